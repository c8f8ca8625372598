"""The gRPC server: the service, health, reflection, interceptors, limits, drain."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import grpc
from grpc import aio
from grpc_channelz.v1 import channelz
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from keybroker.rpc.interceptors.unary import UnaryInterceptor
from keybroker.rpc.servicer import KeyBrokerServicer
from keymaterial.v1 import key_broker_service_pb2
from keymaterial.v1.key_broker_service_pb2_grpc import add_KeyBrokerServiceServicer_to_server

SERVICE = key_broker_service_pb2.DESCRIPTOR.services_by_name["KeyBrokerService"].full_name
_TIME_TO_ANSWER_SECONDS = 0.5
MAX_PENDING_REQUESTS = 8192  # not yet seen by Python; beyond, grpc drops some without a word that they may come again
MAX_REQUEST_BYTES = 128 * 1024  # the longest description, token and material together are below 64 KiB
MAX_METADATA_BYTES = 16 * 1024  # of a call, the bearer token in it, as HTTP/2 counts: 32 more for each entry


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """Certificate chain and private key, and for mTLS the CAs of the callers; each PEM."""

    certificate_chain: bytes
    private_key: bytes = field(repr=False)
    client_ca: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """How long connections live and how they are kept alive. In seconds."""

    keepalive_seconds: float
    max_connection_age_seconds: float
    max_connection_age_grace_seconds: float


class GrpcServer:
    """Health says NOT_SERVING until `serving`, and again from `drain` on."""

    def __init__(
        self,
        *,
        servicer: KeyBrokerServicer,
        interceptors: Sequence[UnaryInterceptor],
        limits: ServerLimits,
        reflect: bool,
        channelz: bool,
    ) -> None:
        self._servicer = servicer
        self._interceptors = interceptors
        self._limits = limits
        self._reflect = reflect
        self._channelz = channelz
        self._health = health_aio.HealthServicer()
        self._server: aio.Server | None = None

    async def start(self, address: str, tls: Callable[[], ServerTls] | None) -> int:
        """Binds, NOT_SERVING; returns the port. Raises RuntimeError if the address can't be bound.

        `tls` is asked at each handshake, so that renewed certificates are used without dropping connections.
        """
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        server = self._built()
        if tls is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, _renewed_credentials(tls))
        await server.start()
        self._server = server
        return port

    async def serving(self) -> None:
        """From now on health says SERVING."""
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)

    async def drain(self, grace_seconds: float, *, wait_until_idle: Callable[[float], None]) -> None:
        """Takes no new calls and waits for those under way, up to the grace period.

        Once the broker's own calls are answered it waits no longer: streams that nobody ends (health's Watch,
        reflection) are cut.
        """
        await self._health.enter_graceful_shutdown()
        if self._server is None:
            return
        stopping = asyncio.ensure_future(self._server.stop(grace_seconds))
        await asyncio.to_thread(wait_until_idle, grace_seconds)
        await asyncio.wait({stopping}, timeout=_TIME_TO_ANSWER_SECONDS)
        if not stopping.done():
            await self._server.stop(0)
        await stopping

    def _built(self) -> aio.Server:
        """A server of the event loop that runs now."""
        server = aio.server(interceptors=list(self._interceptors), options=_options(self._limits))
        add_KeyBrokerServiceServicer_to_server(self._servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if self._reflect:
            reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        if self._channelz:
            channelz.add_channelz_servicer(server)
        return server

    async def _set_health(self, status: "health_pb2.HealthCheckResponse.ServingStatus") -> None:
        for service in ("", SERVICE):
            await self._health.set(service, status)


def _renewed_credentials(tls: Callable[[], ServerTls]) -> grpc.ServerCredentials:
    used = tls()

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal used
        newest = tls()
        if newest is used:
            return None
        used = newest
        return _configuration(newest)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(used),
        fetch,  # type: ignore[arg-type]  # None means unchanged; types-grpcio doesn't know
        require_client_authentication=used.client_ca is not None,
    )


def _configuration(tls: ServerTls) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(tls.private_key, tls.certificate_chain)], root_certificates=tls.client_ca
    )


def _options(limits: ServerLimits) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),  # a taken port is an error, not a second server
        ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),  # between this and the next, grpc refuses at random
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.server.max_pending_requests", MAX_PENDING_REQUESTS),
        ("grpc.server.max_pending_requests_hard_limit", 2 * MAX_PENDING_REQUESTS),
        ("grpc.keepalive_time_ms", int(limits.keepalive_seconds * 1000)),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.max_connection_age_ms", int(limits.max_connection_age_seconds * 1000)),
        ("grpc.max_connection_age_grace_ms", int(limits.max_connection_age_grace_seconds * 1000)),
    ]

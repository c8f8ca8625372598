"""The composition root: settings → adapters → use cases → servers. Only here implementations are chosen."""

import asyncio
import signal
import sys
from collections.abc import Callable

import structlog

from keybroker import __version__
from keybroker.adapters.clock import SystemClock
from keybroker.adapters.entropy import SystemEntropy
from keybroker.adapters.kms.client import KmsClient
from keybroker.adapters.kms.credentials import Credentials
from keybroker.ports import Clock, EntropySource
from keybroker.rpc.handlers import Handlers, UseCases
from keybroker.rpc.import_meter import ImportMeter
from keybroker.rpc.interceptors.deadline import DeadlineInterceptor
from keybroker.rpc.interceptors.errors import ErrorsInterceptor
from keybroker.rpc.interceptors.logging import LoggingInterceptor
from keybroker.rpc.interceptors.metrics import MetricsInterceptor
from keybroker.rpc.server import GrpcServer, ServerLimits, ServerTls
from keybroker.rpc.servicer import KeyBrokerServicer
from keybroker.rpc.workers import Workers
from keybroker.secret_files import SecretFiles, environment_credentials
from keybroker.settings import (
    ConfigurationError,
    ImportSettings,
    InstanceSettings,
    Settings,
    TlsSettings,
    read_file,
    split_address,
)
from keybroker.telemetry.http import TelemetryServer
from keybroker.telemetry.metrics import Metrics
from keybroker.telemetry.upstream import Upstream
from keybroker.usecases.claims import ImportClaims
from keybroker.usecases.deliver import Deliver
from keybroker.usecases.hand_out_import_parameters import HandedOutTokens, HandOutImportParameters
from keybroker.usecases.import_external_key import ImportExternalKey
from keybroker.usecases.import_wrapped_key_material import ImportWrappedKeyMaterial, Refusals
from keybroker.usecases.keys import Keys
from keybroker.usecases.manage_keys import ManageKeys
from keybroker.usecases.obtain_import_parameters import ImportParametersCache, ObtainImportParameters

_SWITCH_INTERVAL_SECONDS = 0.0005  # health answers in time also when many workers compute at once (ADR 2)


class App:
    """One broker: built from its settings, started, stopped. Building does no I/O but reading the files it names."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock | None = None,
        entropy: EntropySource | None = None,
        credentials: Callable[[], Credentials] | None = None,
    ) -> None:
        self._settings = settings
        clock = clock or SystemClock()
        self.metrics = Metrics()
        upstream = Upstream(metrics=self.metrics, monotonic=clock.monotonic)
        self._instances = {
            name: _kms_client(
                name,
                instance,
                credentials=credentials or _credentials(name, instance),
                clock=clock,
                pool_size=settings.server.max_concurrent_calls,
                upstream=upstream,
            )
            for name, instance in settings.kms.instances.items()
        }
        self._workers = Workers(limit=settings.server.max_concurrent_calls)
        meter = ImportMeter(metrics=self.metrics)
        handlers = Handlers(
            instances=self._instances,
            default_instance=settings.kms.default_instance,
            use_cases=_use_cases(settings.imports, self.metrics, clock, entropy or SystemEntropy()),
            meter=meter,
            forbid_pkcs1_v1_5=settings.imports.forbid_pkcs1_v1_5,
        )
        self._tls = _server_tls(settings.server.tls)
        self._grpc = GrpcServer(
            servicer=KeyBrokerServicer(handlers=handlers, workers=self._workers, meter=meter),
            interceptors=[
                ErrorsInterceptor(),
                DeadlineInterceptor(
                    default_seconds=settings.server.default_deadline_seconds,
                    max_seconds=settings.server.max_deadline_seconds,
                    monotonic=clock.monotonic,
                ),
                MetricsInterceptor(metrics=self.metrics),
                LoggingInterceptor(),
            ],
            limits=ServerLimits(
                keepalive_seconds=settings.server.keepalive_seconds,
                max_connection_age_seconds=settings.server.max_connection_age_seconds,
                max_connection_age_grace_seconds=settings.server.shutdown_grace_seconds,
            ),
            reflect=settings.server.reflection,
        )
        self._serving = False
        self._http = TelemetryServer(
            *split_address(settings.server.http_address),
            registry=self.metrics.registry,
            readiness=lambda: (self._serving, {"version": __version__, "kms_last_calls": upstream.summary()}),
        )
        self.grpc_port = 0
        self.http_port = 0

    async def start(self) -> None:
        """Binds both ports and serves. Raises ConfigurationError if an address can't be bound."""
        server = self._settings.server
        try:
            self.http_port = self._http.start()
        except OSError as error:
            raise ConfigurationError(
                f"server.http_address: can't bind {server.http_address}: {error.strerror}"
            ) from None
        try:
            self.grpc_port = await self._grpc.start(server.grpc_address, self._tls)
        except RuntimeError:
            self._http.stop()
            raise ConfigurationError(f"server.grpc_address: can't bind {server.grpc_address}") from None
        await self._grpc.serving()
        self._serving = True
        structlog.get_logger().info(
            "serving", version=__version__, grpc_port=self.grpc_port, http_port=self.http_port, tls=bool(self._tls)
        )

    async def stop(self) -> None:
        """Drains: no new calls, those under way finish, then everything closes. Probes answer to the end."""
        self._serving = False
        structlog.get_logger().info("draining")
        await self._grpc.drain(
            self._settings.server.shutdown_grace_seconds, wait_until_idle=self._workers.wait_until_idle
        )
        await asyncio.to_thread(self._workers.close)
        for kms in self._instances.values():
            kms.close()
        self._http.stop()
        structlog.get_logger().info("stopped")


async def serve(app: App, *, on_started: Callable[[App], None] | None = None) -> None:
    """Serves until SIGTERM or SIGINT, then drains."""
    sys.setswitchinterval(_SWITCH_INTERVAL_SECONDS)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await app.start()
    if on_started is not None:
        on_started(app)
    await stopping.wait()
    await app.stop()


def _kms_client(  # noqa: PLR0913  # what one client is made of
    name: str,
    settings: InstanceSettings,
    *,
    credentials: Callable[[], Credentials],
    clock: Clock,
    pool_size: int,
    upstream: Upstream,
) -> KmsClient:
    try:
        return KmsClient(
            name=name,
            region=settings.region,
            endpoint=settings.endpoint,
            dkms_instance_id=settings.dkms_instance_id,
            credentials=credentials,
            clock=clock,
            allow_emulator=settings.allow_emulator,
            proxy=settings.proxy,
            ca_bundle=settings.ca_bundle_file,
            connect_timeout_seconds=settings.connect_timeout_seconds,
            read_timeout_seconds=settings.read_timeout_seconds,
            pool_size=pool_size,
            observe=upstream.observer(name),
        )
    except ValueError as error:
        raise ConfigurationError(f"kms.instances.{name}: {error}") from None


def _credentials(name: str, settings: InstanceSettings) -> Callable[[], Credentials]:
    """Reads the credentials once now, so that a missing one stops the start, and anew for each request."""
    read: Callable[[], tuple[str, ...]] = environment_credentials
    if settings.credentials is not None:
        files = settings.credentials
        paths = [files.access_key_id_file, files.access_key_secret_file, files.security_token_file]
        read = SecretFiles([path for path in paths if path], key=f"kms.instances.{name}.credentials").contents

    def current() -> Credentials:
        return Credentials(*read())

    try:
        current()
    except ConfigurationError:
        raise
    except ValueError as error:
        raise ConfigurationError(f"kms.instances.{name}.credentials: {error}") from None
    return current


def _server_tls(settings: TlsSettings | None) -> ServerTls | None:
    if settings is None:
        return None
    return ServerTls(
        certificate_chain=read_file(settings.certificate_file, key="server.tls.certificate_file"),
        private_key=read_file(settings.private_key_file, key="server.tls.private_key_file"),
    )


def _use_cases(settings: ImportSettings, metrics: Metrics, clock: Clock, entropy: EntropySource) -> UseCases:
    cache = ImportParametersCache(
        size=settings.cached_parameters,
        expiry_margin_seconds=settings.parameters_expiry_margin_seconds,
        clock=clock,
    )
    metrics.parameters_cached.set_function(lambda: len(cache))
    obtain = ObtainImportParameters(
        cache=cache, on_request=lambda result: metrics.parameters_requests.labels(result.value).inc()
    )
    keys = Keys(clock=clock)
    claims = ImportClaims(clock=clock)
    deliver = Deliver(keys=keys, clock=clock)
    tokens = HandedOutTokens(clock=clock)
    manage = ManageKeys(keys=keys, cache=cache)
    return UseCases(
        manage_keys=manage,
        hand_out_import_parameters=HandOutImportParameters(keys=keys, obtain=obtain, claims=claims, tokens=tokens),
        import_external_key=ImportExternalKey(
            keys=keys,
            manage=manage,
            obtain=obtain,
            cache=cache,
            claims=claims,
            deliver=deliver,
            entropy=entropy,
        ),
        import_wrapped_key_material=ImportWrappedKeyMaterial(
            keys=keys,
            cache=cache,
            obtain=obtain,
            claims=claims,
            deliver=deliver,
            tokens=tokens,
            refusals=Refusals(clock=clock),
            clock=clock,
            allow_foreign_tokens=settings.allow_foreign_tokens,
        ),
    )

import asyncio
import threading
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import CertificateBuilder, IPAddress, Name, SubjectAlternativeName, random_serial_number
from grpc import aio
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from keybroker.rpc.server import MAX_REQUEST_BYTES, SERVICE, GrpcServer, ServerLimits, ServerTls
from keymaterial.v1 import key_broker_service_pb2 as pb
from keymaterial.v1 import types_pb2
from tests.unit.rpc.harness import DESCRIBE, Outcome, Scripted, grpc_server, idle_at_once, invoke, serving

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def health(channel: aio.Channel, service: str = "") -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    outcome = await invoke(channel, request, method="/grpc.health.v1.Health/Check")
    return health_pb2.HealthCheckResponse.FromString(outcome.response).status


def with_server(
    scenario: Callable[[GrpcServer, aio.Channel], Coroutine[Any, Any, Any]], server: GrpcServer | None = None
) -> Any:
    async def run() -> Any:
        served = server or grpc_server(Scripted())
        async with serving(served) as channel:
            return await scenario(served, channel)

    return asyncio.run(run())


def test_service_has_the_name_of_the_design() -> None:
    assert SERVICE == "keymaterial.v1.KeyBrokerService"


@pytest.mark.parametrize("service", ["", SERVICE])
def test_health_says_not_serving_until_told_otherwise(service: str) -> None:
    async def scenario(server: GrpcServer, channel: aio.Channel) -> None:
        assert await health(channel, service) == NOT_SERVING
        await server.serving()
        assert await health(channel, service) == SERVING

    with_server(scenario)


def test_drain_says_not_serving_and_lets_the_call_under_way_finish() -> None:
    async def scenario() -> None:
        here, go_on, idle = asyncio.Event(), asyncio.Event(), threading.Event()

        async def handle(request: Any, context: Any) -> Any:
            here.set()
            await go_on.wait()
            return pb.DescribeKeyResponse()

        server = grpc_server(Scripted(handle))
        async with serving(server) as channel:
            await server.serving()
            watched = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
            assert health_pb2.HealthCheckResponse.FromString(await watched.read()).status == SERVING
            under_way = asyncio.ensure_future(invoke(channel))
            await here.wait()
            draining = asyncio.ensure_future(server.drain(10.0, wait_until_idle=idle.wait))
            assert health_pb2.HealthCheckResponse.FromString(await watched.read()).status == NOT_SERVING
            assert not draining.done()
            go_on.set()
            assert (await under_way).code is grpc.StatusCode.OK
            idle.set()
            await asyncio.wait_for(draining, 5.0)  # the stream that nobody ends is cut, long before the grace is over
            assert (await invoke(channel, timeout_seconds=1.0)).code is not grpc.StatusCode.OK

    asyncio.run(scenario())


def test_drain_beyond_its_grace_cuts_the_call() -> None:
    async def scenario() -> Outcome:
        here = asyncio.Event()

        async def handle(request: Any, context: Any) -> Any:
            here.set()
            await asyncio.sleep(30)

        server = grpc_server(Scripted(handle))
        async with serving(server) as channel:
            under_way = asyncio.ensure_future(invoke(channel))
            await here.wait()
            await server.drain(0.05, wait_until_idle=idle_at_once)
            return await under_way

    assert asyncio.run(scenario()).code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


def test_drain_before_start_does_nothing() -> None:
    asyncio.run(grpc_server(Scripted()).drain(1.0, wait_until_idle=idle_at_once))


def test_start_on_a_taken_port_raises() -> None:
    async def scenario() -> None:
        first, second = grpc_server(Scripted()), grpc_server(Scripted())
        port = await first.start("127.0.0.1:0", None)
        try:
            with pytest.raises(RuntimeError):
                await second.start(f"127.0.0.1:{port}", None)
        finally:
            await first.drain(0.0, wait_until_idle=idle_at_once)

    asyncio.run(scenario())


def listed(server: GrpcServer) -> list[str] | grpc.StatusCode:
    async def scenario(_: GrpcServer, channel: aio.Channel) -> list[str] | grpc.StatusCode:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        answers = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        try:
            return [service.name async for answer in answers for service in answer.list_services_response.service]
        except aio.AioRpcError as error:
            return error.code()

    return with_server(scenario, server)


def test_reflection_is_off_unless_asked_for() -> None:
    assert listed(grpc_server(Scripted())) is grpc.StatusCode.UNIMPLEMENTED


def test_reflection_lists_the_services() -> None:
    assert set(listed(grpc_server(Scripted(), reflect=True))) == {
        SERVICE,
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


@pytest.mark.parametrize(
    ("size", "code"),
    [(MAX_REQUEST_BYTES, grpc.StatusCode.OK), (MAX_REQUEST_BYTES + 1, grpc.StatusCode.RESOURCE_EXHAUSTED)],
)
def test_request_of_the_largest_size_is_taken_and_no_larger(size: int, code: grpc.StatusCode) -> None:
    frame = len(pb.DescribeKeyRequest(key_id="k" * 100_000).SerializeToString()) - 100_000
    request = pb.DescribeKeyRequest(key_id="k" * (size - frame)).SerializeToString()
    assert len(request) == size

    async def scenario(_: GrpcServer, channel: aio.Channel) -> grpc.StatusCode:
        return (await invoke(channel, request)).code

    assert with_server(scenario) is code


@pytest.mark.parametrize(
    "largest",
    [
        pb.ImportExternalKeyRequest(
            request_id="r" * 36,
            instance="i" * 63,
            new_key=types_pb2.NewKey(
                key_spec=types_pb2.KEY_SPEC_AES_256,
                description="x" * 8192,
                alias="a" * 261,
                tags={f"{number}" + "\U0001f511" * 127: "\U0001f511" * 128 for number in range(9)},
            ),
            wrapping_algorithm=types_pb2.WRAPPING_ALGORITHM_RSAES_PKCS1_V1_5,
        ),
        pb.ImportWrappedKeyMaterialRequest(
            request_id="r" * 36,
            instance="i" * 63,
            key_id="k" * 200,
            wrapped_key_material=bytes(256),
            import_token="t" * 16384,
        ),
    ],
    ids=["new_key", "token"],
)
def test_request_with_every_field_at_its_limit_is_well_below_the_largest_size(largest: Any) -> None:
    assert largest.ByteSize() < MAX_REQUEST_BYTES / 2


def test_limits_that_settings_allow_are_taken_by_grpc() -> None:
    longest = ServerLimits(
        keepalive_seconds=2_000_000.0,
        max_connection_age_seconds=2_000_000.0,
        max_connection_age_grace_seconds=2_000_000.0,
    )

    async def scenario(_: GrpcServer, channel: aio.Channel) -> grpc.StatusCode:
        return (await invoke(channel)).code

    assert with_server(scenario, grpc_server(Scripted(), limits=longest)) is grpc.StatusCode.OK


# TLS


def server_tls() -> ServerTls:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    certificate = (
        CertificateBuilder()
        .subject_name(Name([]))
        .issuer_name(Name([]))
        .public_key(key.public_key())
        .serial_number(random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(minutes=5))
        .add_extension(SubjectAlternativeName([IPAddress(ip_address("127.0.0.1"))]), critical=True)
        .sign(key, SHA256())
    )
    return ServerTls(
        certificate_chain=certificate.public_bytes(Encoding.PEM),
        private_key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def test_tls_serves_those_who_trust_its_certificate_and_nobody_in_the_clear() -> None:
    async def scenario() -> tuple[Outcome, Outcome]:
        server, tls = grpc_server(Scripted()), server_tls()
        port = await server.start("127.0.0.1:0", lambda: tls)
        credentials = grpc.ssl_channel_credentials(tls.certificate_chain)
        try:
            async with aio.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
                trusted = await invoke(channel)
            async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                return trusted, await invoke(channel)
        finally:
            await server.drain(1.0, wait_until_idle=idle_at_once)

    trusted, clear = asyncio.run(scenario())
    assert trusted.code is grpc.StatusCode.OK
    assert clear.code is grpc.StatusCode.UNAVAILABLE


def test_tls_shows_no_private_key() -> None:
    assert "PRIVATE" not in repr(server_tls())
    assert "PRIVATE" not in str(server_tls())


def test_drained_server_can_not_be_reached() -> None:
    async def scenario() -> Outcome:
        server = grpc_server(Scripted())
        port = await server.start("127.0.0.1:0", None)
        await server.drain(0.0, wait_until_idle=idle_at_once)
        async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            return await invoke(channel, method=DESCRIBE)

    assert asyncio.run(scenario()).code is grpc.StatusCode.UNAVAILABLE

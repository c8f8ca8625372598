"""The gRPC server as the composition root builds it, on a port of the system's choosing, around a test's servicer.

`call` makes one RPC and says all that came of it: to the client, to the log, to standard error.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import structlog
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc import aio

from keybroker.rpc.interceptors.deadline import DeadlineInterceptor
from keybroker.rpc.interceptors.errors import ErrorsInterceptor
from keybroker.rpc.interceptors.logging import LoggingInterceptor
from keybroker.rpc.interceptors.metrics import MetricsInterceptor
from keybroker.rpc.server import GrpcServer, ServerLimits, ServerTls
from keybroker.telemetry.metrics import Metrics
from keymaterial.v1 import key_broker_service_pb2 as pb
from keymaterial.v1.key_broker_service_pb2_grpc import KeyBrokerServiceServicer
from tests.builders import FakeClock

SERVICE = "keymaterial.v1.KeyBrokerService"
DESCRIBE = f"/{SERVICE}/DescribeKey"
Handle = Callable[[Any, Any], Awaitable[Any]]


class Scripted(KeyBrokerServiceServicer):
    """DescribeKey does what the test says; it answers nothing in particular if the test says nothing."""

    def __init__(self, handle: Handle | None = None) -> None:
        self._handle = handle

    async def DescribeKey(self, request: Any, context: Any) -> Any:  # noqa: N802  # the proto's name
        if self._handle is None:
            return pb.DescribeKeyResponse()
        return await self._handle(request, context)


def raising(error: BaseException) -> Handle:
    async def handle(request: Any, context: Any) -> Any:
        raise error

    return handle


def grpc_server(
    servicer: KeyBrokerServiceServicer,
    *,
    metrics: Metrics | None = None,
    reflect: bool = False,
    default_seconds: float = 15.0,
    max_seconds: float = 20.0,
    limits: ServerLimits | None = None,
) -> GrpcServer:
    return GrpcServer(
        servicer=servicer,
        interceptors=[
            ErrorsInterceptor(),
            DeadlineInterceptor(
                default_seconds=default_seconds, max_seconds=max_seconds, monotonic=FakeClock().monotonic
            ),
            MetricsInterceptor(metrics=metrics or Metrics()),
            LoggingInterceptor(),
        ],
        limits=limits
        or ServerLimits(
            keepalive_seconds=60.0, max_connection_age_seconds=1800.0, max_connection_age_grace_seconds=25.0
        ),
        reflect=reflect,
        channelz=False,
    )


def idle_at_once(seconds: float) -> None:
    """A drain that waits for no workers."""


@asynccontextmanager
async def serving(server: GrpcServer, *, tls: Callable[[], ServerTls] | None = None) -> AsyncIterator[aio.Channel]:
    """A channel to the started server (without TLS)."""
    port = await server.start("127.0.0.1:0", tls)
    try:
        async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.drain(1.0, wait_until_idle=idle_at_once)


@dataclass
class Outcome:
    """What came of one call."""

    code: grpc.StatusCode
    details: str = ""
    response: Any = None
    trailing: Sequence[tuple[str, str | bytes]] = ()
    log: list[Any] = field(default_factory=list)

    @property
    def status(self) -> Status:
        [value] = [value for key, value in self.trailing if key == "grpc-status-details-bin"]
        assert isinstance(value, bytes)
        return Status.FromString(value)

    @property
    def error_info(self) -> ErrorInfo:
        info = ErrorInfo()
        assert self.status.details[0].Unpack(info)
        return info

    @property
    def call_line(self) -> dict[str, Any]:
        [line] = [line for line in self.log if line["event"] == "call"]
        return dict(line)

    def everything(self) -> str:
        """All that client and log can see, as one text."""
        return f"{self.details}{self.trailing}{self.response}{self.log}"


async def invoke(
    channel: aio.Channel, request: Any = b"", *, method: str = DESCRIBE, timeout_seconds: float | None = 20.0
) -> Outcome:
    """One call, of a message or of bytes as they are."""
    sent = request if isinstance(request, bytes) else request.SerializeToString()
    rpc = channel.unary_unary(method)(sent, timeout=timeout_seconds)
    try:
        response = await rpc
    except aio.AioRpcError as error:
        return Outcome(error.code(), error.details() or "", trailing=tuple(error.trailing_metadata()))
    return Outcome(grpc.StatusCode.OK, response=response, trailing=tuple(await rpc.trailing_metadata()))


def call(  # what a call depends on
    servicer: KeyBrokerServiceServicer,
    request: Any = b"",
    *,
    method: str = DESCRIBE,
    timeout_seconds: float | None = 20.0,
    metrics: Metrics | None = None,
    default_seconds: float = 15.0,
    max_seconds: float = 20.0,
) -> Outcome:
    async def scenario() -> Outcome:
        server = grpc_server(servicer, metrics=metrics, default_seconds=default_seconds, max_seconds=max_seconds)
        async with serving(server) as channel:
            return await invoke(channel, request, method=method, timeout_seconds=timeout_seconds)

    with structlog.testing.capture_logs() as log:
        outcome = asyncio.run(scenario())
    outcome.log = list(log)
    return outcome

"""Counts and times every unary RPC, in the names that the ecosystem's dashboards use."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, cast

import grpc
from grpc import aio

from keybroker.domain.errors import BrokerError
from keybroker.rpc.interceptors.unary import Context, Handler, UnaryInterceptor
from keybroker.rpc.status import code_of
from keybroker.telemetry.metrics import Metrics

_GO_SPELLING = {grpc.StatusCode.OK: "OK", grpc.StatusCode.CANCELLED: "Canceled"}
_CODES: Mapping[object, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


class MetricsInterceptor(UnaryInterceptor):
    """grpc_server_started_total, grpc_server_handled_total, grpc_server_handling_seconds."""

    def __init__(self, *, metrics: Metrics) -> None:
        self._metrics = metrics

    async def around(self, method: str, inner: Handler, request: Any, context: Context) -> Any:  # noqa: ANN401
        """Calls the handler and records how it ended."""
        service, _, name = method.removeprefix("/").partition("/")
        labels = ("unary", service, name)
        started = time.perf_counter()
        self._metrics.grpc_started.labels(*labels).inc()
        code = grpc.StatusCode.UNKNOWN
        try:
            response = await inner(request, context)
            code = grpc.StatusCode.OK
        except BaseException as error:
            code = ended_with(error, context)
            raise
        finally:
            self._metrics.grpc_handled.labels(*labels, _camel_case(code)).inc()
            self._metrics.grpc_handling.labels(*labels).observe(time.perf_counter() - started)
        return response


def ended_with(error: BaseException, context: Context) -> grpc.StatusCode:
    """The code that a call gets whose handler raised `error`."""
    if isinstance(error, BrokerError):
        return code_of(error)
    if isinstance(error, asyncio.CancelledError):
        return grpc.StatusCode.CANCELLED
    if isinstance(error, aio.AbortError):
        code = cast("object", context.code())  # the code itself, its number in some versions of grpc
        return _CODES.get(code.value[0] if isinstance(code, grpc.StatusCode) else code, grpc.StatusCode.UNKNOWN)
    return grpc.StatusCode.INTERNAL


def _camel_case(code: grpc.StatusCode) -> str:
    """The dashboards' spelling, which is that of Go's codes: OK, NotFound, InvalidArgument, Canceled."""
    return _GO_SPELLING.get(code) or code.name.title().replace("_", "")

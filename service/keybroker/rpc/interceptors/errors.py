"""Outermost: what leaves the server as an error is one of ours. A security control.

grpc sends the text of an exception that escapes a servicer, or an interceptor, to the client. Here every BrokerError
becomes its status, and anything else becomes INTERNAL. Whatever is INTERNAL has a correlation id that leads to the log.
If telling fails too, the client hears that and no more.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Never

import grpc
import structlog
from grpc import aio

from keybroker.domain.errors import BrokerError, Code, Reason
from keybroker.rpc.call import CURRENT_CALL
from keybroker.rpc.interceptors.unary import Context, Handler, MethodHandler, UnaryInterceptor
from keybroker.rpc.status import TrailingMetadata, code_of, message_of, trailing_metadata
from keybroker.telemetry.logs import exception_chain

_UNTOLD = "Something unforeseen happened, and the broker failed to say what."


class ErrorsInterceptor(UnaryInterceptor):
    """Turns every exception into a status in our words."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["MethodHandler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "MethodHandler | None":
        """Called by grpc for each RPC. The interceptors within are asked here, and may fail."""
        try:
            return await super().intercept_service(continuation, handler_call_details)
        except Exception as error:  # noqa: BLE001  # nothing foreign may pass
            status = _status_of(handler_call_details.method, error)

        async def refuse(request: object, context: Context) -> Never:  # noqa: ARG001  # grpc passes the request
            await context.abort(*status)
            raise AssertionError("abort raises")

        return grpc.unary_unary_rpc_method_handler(refuse)

    async def around(self, method: str, inner: Handler, request: Any, context: Context) -> Any:  # noqa: ANN401
        """Calls the handler; aborts with a status where it raises."""
        try:
            return await inner(request, context)
        except aio.AbortError:
            raise  # a status that a servicer of grpc's own has set
        except Exception as error:  # noqa: BLE001  # nothing foreign may pass
            status = _status_of(method, error)
        await context.abort(*status)
        raise AssertionError("abort raises")


def _status_of(method: str, error: Exception) -> tuple[grpc.StatusCode, str, TrailingMetadata]:
    try:
        failure = error if isinstance(error, BrokerError) else unforeseen(method, error)
        if failure.rule.code is Code.INTERNAL:
            failure = _correlated(failure)
        return code_of(failure), message_of(failure), trailing_metadata(failure)
    except Exception:  # noqa: BLE001  # not even what goes wrong in telling it
        return grpc.StatusCode.INTERNAL, _UNTOLD, ()


def _correlated(error: BrokerError) -> BrokerError:
    """The error with the call's correlation id. Another one: calls that waited for the same read share an error."""
    call = CURRENT_CALL.get(None)
    return BrokerError(
        error.reason,
        error.message,
        metadata=error.metadata | {"correlation_id": call.correlation_id if call else ""},
        retry_after_seconds=error.retry_after_seconds,
    )


def unforeseen(method: str, error: Exception) -> BrokerError:
    """INTERNAL for an exception of no kind that is ours; logged by its types and places."""
    call = CURRENT_CALL.get(None)
    correlation_id = call.correlation_id if call else ""
    structlog.get_logger().error(
        "unforeseen", method=method, correlation_id=correlation_id, exceptions=exception_chain(error)
    )
    metadata = {"correlation_id": correlation_id}
    if call and call.noted.created_key_id:
        metadata["created_key_id"] = call.noted.created_key_id
    return BrokerError(
        Reason.INTERNAL, f"Something unforeseen happened; correlation id {correlation_id}.", metadata=metadata
    )

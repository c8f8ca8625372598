"""Outermost: what leaves the server as an error is one of ours. A security control.

grpc sends the text of an exception that escapes a servicer to the client. Here every BrokerError becomes its status,
and anything else becomes INTERNAL. Whatever is INTERNAL has a correlation id that leads to the log.
"""

from typing import Any

import structlog
from grpc import aio

from keybroker.domain.errors import BrokerError, Code, Reason
from keybroker.rpc.call import CURRENT_CALL
from keybroker.rpc.interceptors.unary import Context, Handler, UnaryInterceptor
from keybroker.rpc.status import code_of, message_of, trailing_metadata
from keybroker.telemetry.logs import exception_chain


class ErrorsInterceptor(UnaryInterceptor):
    """Turns every exception into a status in our words."""

    async def around(self, method: str, inner: Handler, request: Any, context: Context) -> Any:  # noqa: ANN401
        """Calls the handler; aborts with a status where it raises."""
        try:
            return await inner(request, context)
        except aio.AbortError:
            raise  # a status that a servicer of grpc's own has set
        except BrokerError as error:
            failure = _correlated(error) if error.rule.code is Code.INTERNAL else error
        except Exception as error:  # noqa: BLE001  # nothing foreign may pass
            failure = unforeseen(method, error)
        await context.abort(code_of(failure), message_of(failure), trailing_metadata(failure))
        raise AssertionError("abort raises")


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

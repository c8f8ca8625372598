"""One line for each RPC of the broker's own service, of allow-listed fields only (rpc/call.py)."""

import time
from typing import Any

import grpc
import structlog

from keybroker.domain.errors import BrokerError
from keybroker.rpc.call import CURRENT_CALL
from keybroker.rpc.interceptors.metrics import ended_with
from keybroker.rpc.interceptors.unary import Context, Handler, UnaryInterceptor


class LoggingInterceptor(UnaryInterceptor):
    """Logs how each call ended. Health checks are logged at DEBUG."""

    async def around(self, method: str, inner: Handler, request: Any, context: Context) -> Any:  # noqa: ANN401
        """Calls the handler and logs."""
        started = time.perf_counter()
        code, reason = grpc.StatusCode.OK, ""
        try:
            return await inner(request, context)
        except BaseException as error:
            code = ended_with(error, context)
            reason = error.reason.value if isinstance(error, BrokerError) else ""
            raise
        finally:
            call = CURRENT_CALL.get()
            log = structlog.get_logger()
            write = log.debug if method.startswith("/grpc.health.") else log.info
            write(
                "call",
                method=method,
                code=code.name,
                **({"reason": reason} if reason else {}),
                duration_ms=round((time.perf_counter() - started) * 1000, 1),
                correlation_id=call.correlation_id,
                **call.noted.fields(),
            )

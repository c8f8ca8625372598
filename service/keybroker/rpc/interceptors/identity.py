"""Innermost: no call reaches a handler without a caller whom the policy names. Streaming calls too.

Health is open. The method is judged before the request is read; the handlers judge the rest (rpc/handlers.py).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

import grpc
import structlog
from grpc import aio

from keybroker.domain.errors import BrokerError
from keybroker.ports import CallerCredentials
from keybroker.rpc.access import AccessControl, is_open
from keybroker.rpc.call import CURRENT_CALL
from keybroker.rpc.interceptors.errors import unforeseen
from keybroker.rpc.interceptors.unary import Context, Handler, MethodHandler, UnaryInterceptor
from keybroker.rpc.status import code_of, message_of, trailing_metadata

_BEARER = "bearer "


class IdentityInterceptor(UnaryInterceptor):
    """Authenticates the caller and asks the policy about the method."""

    def __init__(self, *, access: AccessControl) -> None:
        self._access = access

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["MethodHandler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "MethodHandler | None":
        """Called by grpc for each RPC."""
        handler = await continuation(handler_call_details)
        if handler is None or is_open(handler_call_details.method):
            return handler
        if handler.request_streaming or handler.response_streaming:
            return self._guarded(handler_call_details.method, handler)
        return await super().intercept_service(continuation, handler_call_details)

    async def around(self, method: str, inner: Handler, request: Any, context: Context) -> Any:  # noqa: ANN401
        """Calls the handler for a caller whom the policy names."""
        call = CURRENT_CALL.get()
        caller = await asyncio.to_thread(self._access.authenticate, _credentials(context))
        call.noted.caller = call.deadline.caller = caller
        self._access.check_method(method, caller)
        return await inner(request, context)

    def _guarded(self, method: str, handler: "MethodHandler") -> "MethodHandler | None":
        """Reflection streams both ways. Nothing else that streams is served to callers."""
        if not (handler.request_streaming and handler.response_streaming):
            return None
        inner = cast("Callable[[Any, Any], AsyncIterator[Any]]", handler.stream_stream)

        async def guarded(requests: Any, context: Context) -> AsyncIterator[Any]:  # noqa: ANN401
            await self._admit_or_abort(method, context)
            try:
                async for response in inner(requests, context):
                    yield response
            except aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001  # as the errors interceptor does for unary calls
                await _abort(context, unforeseen(method, error))

        return grpc.stream_stream_rpc_method_handler(
            guarded,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    async def _admit_or_abort(self, method: str, context: Context) -> None:
        caller = ""
        try:
            caller = await asyncio.to_thread(self._access.authenticate, _credentials(context))
            self._access.check_method(method, caller)
        except BrokerError as error:
            structlog.get_logger().info("call", method=method, reason=error.reason.value, caller=caller)
            await _abort(context, error)
        except Exception as error:  # noqa: BLE001  # nothing foreign may pass
            await _abort(context, unforeseen(method, error))


async def _abort(context: Context, error: BrokerError) -> None:
    await context.abort(code_of(error), message_of(error), trailing_metadata(error))


def _credentials(context: Context) -> CallerCredentials:
    """What the caller showed. Of several authorization headers none counts."""
    auth = cast("Mapping[str, Sequence[bytes]]", context.auth_context())
    leaf, *others = [*auth.get("x509_pem_cert", ()), b""]  # the one whose private key TLS has seen proved
    sent_along = b"\n".join(auth.get("x509_pem_cert_chain", ()))  # anybody's: never who calls
    chain = leaf + b"\n" + sent_along if leaf and others == [b""] else b""
    metadata = context.invocation_metadata() or ()
    values = [str(value) for name, value in metadata if name == "authorization"]
    token = values[0] if len(values) == 1 and values[0][: len(_BEARER)].lower() == _BEARER else ""
    return CallerCredentials(chain, token[len(_BEARER) :].strip())

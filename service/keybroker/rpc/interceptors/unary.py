"""What the interceptors share: wrapping the handler of a unary RPC."""

from abc import abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc
from grpc import aio

# types-grpcio makes these generic; at run time they are not
Context: TypeAlias = "aio.ServicerContext[Any, Any]"
MethodHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Handler = Callable[[Any, Any], Awaitable[Any]]


class UnaryInterceptor(aio.ServerInterceptor):
    """Wraps unary RPCs in `around`. Streaming ones (reflection, health's Watch) pass by."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["MethodHandler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "MethodHandler | None":
        """Called by grpc for each RPC."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming or handler.response_streaming:
            return handler
        inner: Handler = handler.unary_unary  # type: ignore[assignment]  # in aio it is a coroutine
        method = handler_call_details.method

        async def wrapped(request: Any, context: Context) -> Any:  # noqa: ANN401
            return await self.around(method, inner, request, context)

        return grpc.unary_unary_rpc_method_handler(
            wrapped,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    @abstractmethod
    async def around(self, method: str, inner: Handler, request: Any, context: Context) -> Any:  # noqa: ANN401
        """Calls `inner(request, context)` and does its part around it. `method` is "/package.Service/Method"."""

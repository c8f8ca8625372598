"""What the interceptors share: wrapping the handler of a unary RPC.

Messages are decoded and encoded inside the innermost interceptor, not by grpc: what that raises must pass the others
too, or grpc would send its text to the client.
"""

from abc import abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from keybroker.domain.errors import InvalidField

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
        inner = _on_bytes(handler)
        method = handler_call_details.method

        async def wrapped(request: Any, context: Context) -> Any:  # noqa: ANN401
            return await self.around(method, inner, request, context)

        return grpc.unary_unary_rpc_method_handler(wrapped)

    @abstractmethod
    async def around(self, method: str, inner: Handler, request: Any, context: Context) -> Any:  # noqa: ANN401
        """Calls `inner(request, context)` and does its part around it. `method` is "/package.Service/Method"."""


def _on_bytes(handler: "MethodHandler") -> Handler:
    """The handler with decoding and encoding in it. One that an interceptor has wrapped works on bytes already."""
    inner: Handler = handler.unary_unary  # type: ignore[assignment]  # in aio it is a coroutine
    decode, encode = handler.request_deserializer, handler.response_serializer

    async def coded(request: Any, context: Context) -> Any:  # noqa: ANN401
        try:
            message = decode(request) if decode else request
        except DecodeError as error:
            raise InvalidField("request", "is not a well-formed message; strings must be UTF-8.") from error
        response = await inner(message, context)
        return encode(response) if encode else response

    return coded

"""Gives every call a deadline: the caller's, less a little to answer in time, or the default.

Never more than the maximum, which bounds how long a drain takes: no call that is under way outlives it.
"""

from collections.abc import Callable
from typing import Any, cast

from keybroker.domain.deadline import Deadline
from keybroker.rpc.call import CURRENT_CALL, Call
from keybroker.rpc.interceptors.unary import Context, Handler, UnaryInterceptor

_TIME_TO_ANSWER_SECONDS = 0.05


class DeadlineInterceptor(UnaryInterceptor):
    """Opens the Call that the handlers read."""

    def __init__(self, *, default_seconds: float, max_seconds: float, monotonic: Callable[[], float]) -> None:
        self._default_seconds = default_seconds
        self._max_seconds = max_seconds
        self._monotonic = monotonic

    async def around(self, method: str, inner: Handler, request: Any, context: Context) -> Any:  # noqa: ANN401
        """Calls the handler with CURRENT_CALL set."""
        remaining = cast("float | None", context.time_remaining())  # None: the caller set no deadline
        seconds = self._default_seconds if remaining is None else remaining - _TIME_TO_ANSWER_SECONDS
        deadline = Deadline.after(min(seconds, self._max_seconds), monotonic=self._monotonic)
        CURRENT_CALL.set(Call(method, deadline))
        return await inner(request, context)

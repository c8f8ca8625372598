"""Runs the blocking use cases in a bounded number of threads; beyond the bound a call is refused at once.

A call whose client went away goes on to its end: an import that was sent must be told the truth about (log, metrics).
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from keybroker.domain.errors import BrokerError, Reason

T = TypeVar("T")

_RETRY_AFTER_SECONDS = 1.0


def _tell_nobody(error: BaseException | None) -> None:
    """For work whose end nobody needs to hear of."""


class Workers:
    """At most `limit` calls at a time, each in its own thread."""

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._busy = 0
        self._changed = threading.Condition()
        self._executor = ThreadPoolExecutor(max_workers=limit, thread_name_prefix="worker")

    async def run(
        self, work: Callable[[], T], *, on_abandoned: Callable[[BaseException | None], None] = _tell_nobody
    ) -> T:
        """Returns what `work` returns. Reasons: BROKER_OVERLOADED, those of `work`.

        If the caller goes away meanwhile, `on_abandoned` is told how the work ended: its exception, or None.
        """
        with self._changed:
            if self._busy >= self._limit:
                raise BrokerError(
                    Reason.BROKER_OVERLOADED,
                    f"The broker works on {self._limit} calls already.",
                    retry_after_seconds=_RETRY_AFTER_SECONDS,
                )
            self._busy += 1
        running = asyncio.wrap_future(self._executor.submit(self._work, work))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            running.add_done_callback(lambda done: None if done.cancelled() else on_abandoned(done.exception()))
            raise

    def _work(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except StopIteration as error:
            raise RuntimeError("the work raised StopIteration") from error  # which no asyncio future can hold
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    def wait_until_idle(self, seconds: float) -> None:
        """Waits until nothing is being worked on, at most so long."""
        with self._changed:
            self._changed.wait_for(lambda: not self._busy, timeout=seconds)

    def close(self) -> None:
        """Waits until all work is done."""
        self._executor.shutdown(wait=True)

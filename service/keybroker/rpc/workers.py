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


class Workers:
    """At most `limit` calls at a time, each in its own thread."""

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._busy = 0
        self._lock = threading.Lock()
        self._executor = ThreadPoolExecutor(max_workers=limit, thread_name_prefix="worker")

    async def run(self, work: Callable[[], T]) -> T:
        """Returns what `work` returns. Reasons: BROKER_OVERLOADED, those of `work`."""
        with self._lock:
            if self._busy >= self._limit:
                raise BrokerError(
                    Reason.BROKER_OVERLOADED,
                    f"The broker works on {self._limit} calls already.",
                    retry_after_seconds=_RETRY_AFTER_SECONDS,
                )
            self._busy += 1
        running = asyncio.wrap_future(self._executor.submit(self._work, work))
        running.add_done_callback(lambda done: done.cancelled() or done.exception())  # retrieved, if nobody waits
        return await asyncio.shield(running)

    def _work(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except StopIteration as error:
            raise RuntimeError("the work raised StopIteration") from error  # which no asyncio future can hold
        finally:
            with self._lock:
                self._busy -= 1

    def close(self) -> None:
        """Waits until all work is done."""
        self._executor.shutdown(wait=True)

"""Calls that were sent and have not landed yet: what a late fault leaves under way.

A call lands when its real time has passed, when the emulator's clock was moved past it, or when it is told to. It is
performed at that moment, by the clock of that moment.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from kms_emulator.call_record import LoggedCall
from kms_emulator.clock import Clock


@dataclass(frozen=True, slots=True)
class LateCall:
    """One call under way; `perform` says what became of it."""

    operation: str
    perform: Callable[[], LoggedCall]


@dataclass(frozen=True, slots=True)
class _Due:
    """When a call lands by itself: whichever of the two comes first."""

    by_monotonic: float
    by_clock: datetime


class LateCalls:
    """The calls under way; safe to use from many threads.

    Between `start` and `stop` a thread lands them as they fall due. A stop keeps what has not landed.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._clock.when_moved(self._land_due)
        self._changed = threading.Condition()
        self._landing = threading.Lock()
        self._under_way: list[tuple[LateCall, _Due | None]] = []
        self._landed: list[LoggedCall] = []
        self._thread: threading.Thread | None = None

    def add(self, call: LateCall, seconds: float) -> None:
        """Let `call` land in `seconds`; 0 when it is told to."""
        due = _Due(time.monotonic() + seconds, self._clock.now() + timedelta(seconds=seconds)) if seconds else None
        with self._changed:
            self._under_way.append((call, due))
            self._changed.notify_all()

    def operations(self) -> list[str]:
        """Which operations are under way."""
        with self._changed:
            return [call.operation for call, _ in self._under_way]

    def landed(self) -> list[LoggedCall]:
        """What became of every call that has landed, in this order."""
        with self._changed:
            return list(self._landed)

    def land(self) -> list[LoggedCall]:
        """Land all of them now, in the order of their arrival."""
        return self._land(lambda _: True)

    def start(self) -> None:
        """Land what falls due, in a thread."""
        self._thread = threading.Thread(target=self._run, name="late calls", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it."""
        with self._changed:
            thread, self._thread = self._thread, None
            self._changed.notify_all()
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while True:
            self._land_due()
            with self._changed:
                if self._thread is not threading.current_thread():
                    return
                self._changed.wait(self._seconds_to_next())

    def _seconds_to_next(self) -> float | None:
        due = [when.by_monotonic for _, when in self._under_way if when is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _land_due(self) -> None:
        now, clock_now = time.monotonic(), self._clock.now()
        self._land(lambda due: due is not None and (due.by_monotonic <= now or due.by_clock <= clock_now))

    def _land(self, lands: Callable[[_Due | None], bool]) -> list[LoggedCall]:
        """One at a time, so that nobody returns while a call that he wanted to land is still landing elsewhere."""
        with self._landing:
            with self._changed:
                landing = [call for call, due in self._under_way if lands(due)]
                self._under_way = [(call, due) for call, due in self._under_way if not lands(due)]
            outcomes = [call.perform() for call in landing]
            with self._changed:
                self._landed += outcomes
        return outcomes

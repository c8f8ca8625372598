"""The emulator's clock: real UTC time plus an offset that tests move.

Everything that ages by itself (tokens, nonces, waiting periods, quota windows, lags) asks this clock.
Delays of the fault dial are real seconds and do not.
"""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta


class Clock:
    """Real UTC time plus `offset_seconds`; safe to use from many threads."""

    def __init__(self, offset_seconds: float = 0.0) -> None:
        self._lock = threading.Lock()
        self._offset = timedelta(seconds=offset_seconds)
        self._listeners: list[Callable[[], None]] = []

    def now(self) -> datetime:
        """The current instant, UTC-aware."""
        return datetime.now(UTC) + self._offset

    @property
    def offset_seconds(self) -> float:
        """How far this clock is ahead of real time; negative when it is behind."""
        return self._offset.total_seconds()

    def advance(self, seconds: float) -> None:
        """Move the clock by `seconds`; negative moves it back. Returns when everybody who listens has acted on it."""
        with self._lock:
            self._offset += timedelta(seconds=seconds)
        for listener in self._listeners:
            listener()

    def when_moved(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each move, in the mover's thread."""
        self._listeners.append(listener)


def utc_text(instant: datetime | None) -> str:
    """`YYYY-MM-DDThh:mm:ssZ`, the form of every time in a reply; empty text for None. Source: contract section 1."""
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ") if instant else ""

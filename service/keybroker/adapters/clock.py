"""The operating system's clocks."""

import time
from datetime import UTC, datetime


class SystemClock:
    """ports.Clock on the system: wall clock in UTC, monotonic clock, real sleep."""

    def now(self) -> datetime:
        """The time of day, UTC-aware."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Waits."""
        time.sleep(seconds)

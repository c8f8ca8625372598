"""Time for examples: nobody waits."""

import time
from datetime import UTC, datetime, timedelta


class SleeplessClock:
    """The system's time, moved on by whoever sleeps."""

    def __init__(self) -> None:
        self._slept = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self._slept)

    def monotonic(self) -> float:
        return time.monotonic() + self._slept

    def sleep(self, seconds: float) -> None:
        self._slept += seconds

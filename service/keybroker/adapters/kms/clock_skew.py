"""How far the KMS's clock is ahead of this machine's, by the Date of its replies.

Date is cut to the second and was written at some moment between request and reply, so a measurement is good to half a
second and half the exchange. The estimate is the median of the last few: one odd reply does not move it, and a step of
either clock is in it after three replies. A refusal for the request's date starts it anew.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

LEAST_CORRECTED_SECONDS = 3.0
"""Below it the two clocks agree as far as can be told."""

WARN_SECONDS = 60.0
CALM_SECONDS = 50.0  # less than WARN_SECONDS, so that a skew near it does not warn again and again
SLOWEST_MEASURED_SECONDS = 2.0
_MEASUREMENTS = 5


@dataclass(frozen=True, slots=True)
class Heard:
    """One exchange: the reply's Date, when the request left by our clock, and how long the exchange took."""

    date: datetime
    sent_at: datetime
    took_seconds: float

    @property
    def skew_seconds(self) -> float:
        """Positive: the KMS's clock is ahead."""
        middle = self.sent_at + timedelta(seconds=self.took_seconds / 2)
        return (self.date - middle).total_seconds() + 0.5


class ClockSkew:
    """The estimate for one instance, 0.0 until a reply was heard. Safe to use from many threads.

    `on_skew` is told of every new estimate, in seconds.
    """

    def __init__(self, *, instance: str, on_skew: Callable[[float], None]) -> None:
        self._instance = instance
        self._on_skew = on_skew
        self._measured: deque[float] = deque(maxlen=_MEASUREMENTS)
        self._seconds = 0.0
        self._warned = False
        self._lock = threading.Lock()

    def correction(self) -> timedelta:
        """What makes our time the KMS's: nothing as long as the two agree within LEAST_CORRECTED_SECONDS."""
        seconds = self._seconds
        return timedelta(seconds=seconds) if abs(seconds) >= LEAST_CORRECTED_SECONDS else timedelta()

    def hear(self, heard: Heard) -> None:
        """Takes one measurement in, unless the exchange was too slow to tell."""
        if heard.took_seconds <= SLOWEST_MEASURED_SECONDS:
            self._take(heard, anew=False)

    def start_anew(self, heard: Heard) -> None:
        """Takes this measurement alone: the KMS has refused our date."""
        self._take(heard, anew=True)

    def _take(self, heard: Heard, *, anew: bool) -> None:
        with self._lock:
            if anew:
                self._measured.clear()
            self._measured.append(heard.skew_seconds)
            self._seconds = sorted(self._measured)[len(self._measured) // 2]
            self._on_skew(self._seconds)
            self._warn()

    def _warn(self) -> None:
        log = structlog.get_logger()
        skew = {"instance": self._instance, "skew_seconds": round(self._seconds, 1)}
        if not self._warned and abs(self._seconds) > WARN_SECONDS:
            self._warned = True
            log.warning("this machine's clock and the KMS's differ", **skew)
        elif self._warned and abs(self._seconds) < CALM_SECONDS:
            self._warned = False
            log.warning("this machine's clock and the KMS's agree again", **skew)

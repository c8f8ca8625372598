"""When the next request of one quota class may leave: evenly spaced, a little below what the KMS allows.

N + 1 requests, each 1 / (TARGET x N) after the one before, span 25 ms more than a second. So no second holds more than
the N that are allowed, whether the KMS counts fixed or sliding windows (it does not say), with room for what the way
there adds to a request's time. After a pause up to BURST x N may leave at once: one import of a quiet broker does not
wait. The last N requests are remembered, so that what follows a burst makes room for it.

The account's quota has other users. Each throttling slows down by STEP; without one the rate grows again, the faster
the longer. Pure: it is told the time, in seconds on a monotonic clock. Source: contract section 5.
"""

from collections import deque

TARGET = 0.975
BURST = 0.5
STEP = 0.015  # of the rate, at most STEP_MOST
STEP_MOST = 1.0  # requests a second: one request was too many, in about a second
WINDOW_SECONDS = 1.02
CATCH_UP_SECONDS = 0.01  # what a thread may wake too late without its lateness being lost for good
GROWTH_PER_SECOND = 0.01  # of the limit; as much again for every GROWTH_DOUBLES_SECONDS without a throttling
GROWTH_DOUBLES_SECONDS = 5.0
_FLOOR = 0.02


class Schedule:
    """The slots of one quota class. Not safe for threads."""

    def __init__(self, limit_per_second: float, *, now: float) -> None:
        self._limit = limit_per_second
        self._top = TARGET * limit_per_second
        self._rate = self._top
        self._slot_at = now - self._burst_seconds
        self._grown_at = self._throttled_at = now
        self._sent: deque[float] = deque(maxlen=max(1, int(limit_per_second)))

    @property
    def rate_per_second(self) -> float:
        """The rate in force."""
        return self._rate

    def next_at(self, now: float, *, queued: bool) -> float:
        """When the next request may leave. Unused slots of the past count, but among those who queue only the last."""
        self._grow(now)
        credit = CATCH_UP_SECONDS if queued else self._burst_seconds
        return max(self._slot_at, self._room_at(), now - credit)

    def take(self, now: float, *, queued: bool) -> None:
        """A request leaves now, which is not before `next_at`."""
        self._slot_at = self.next_at(now, queued=queued) + 1 / self._rate
        self._sent.append(now)

    def seconds_for(self, requests: float, now: float) -> float:
        """About how long it takes until so many requests, and one more, have left."""
        return max(0.0, self.next_at(now, queued=True) - now) + requests / self._rate

    def throttled(self, now: float) -> None:
        """The KMS refused a request of this class for its quota."""
        self._grow(now)
        self._throttled_at = now
        self._rate = max(_FLOOR * self._top, self._rate - min(STEP * self._rate, STEP_MOST))

    def _grow(self, now: float) -> None:
        """Integrates GROWTH x (1 + t / GROWTH_DOUBLES) over the time since the last call; t since the throttling."""
        start, end = self._grown_at - self._throttled_at, now - self._throttled_at
        self._grown_at = now
        gained = (end - start) + (end**2 - start**2) / (2 * GROWTH_DOUBLES_SECONDS)
        self._rate = min(self._top, self._rate + GROWTH_PER_SECOND * self._limit * gained)

    def _room_at(self) -> float:
        """When the window has room again, if the last requests fill it. Other users' share is taken from it, too."""
        full = max(1, round(len(self._sent) * self._rate / self._top)) if len(self._sent) == self._sent.maxlen else 0
        return self._sent[-full] + WINDOW_SECONDS if full else float("-inf")

    @property
    def _burst_seconds(self) -> float:
        return max(0.0, BURST * self._limit - 1) / self._rate

"""How many repeated requests an instance may cost: a tenth of the first ones, and a few more.

A token bucket. Each first try puts in a tenth of a token and time puts in a little, up to RESERVE; each repetition
takes one. So when everything fails, what the KMS sees grows by a tenth, not by the number of tries.
"""

import threading
from collections.abc import Callable

RATIO = 0.1
RESERVE = 10.0
PER_SECOND = 0.5


class RetryBudget:
    """The tokens of one instance. `monotonic` is in seconds."""

    def __init__(self, *, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._tokens = RESERVE
        self._at = monotonic()

    def first_try(self) -> None:
        """A call is about to send its first request."""
        with self._lock:
            self._add(RATIO)

    def take(self) -> bool:
        """Whether one more request may be a repetition; counts it."""
        with self._lock:
            self._add(0.0)
            if self._tokens < 1.0:
                return False
            self._tokens -= 1.0
            return True

    def give_back(self) -> None:
        """A repetition was not sent after all, or it succeeded: it multiplies no outage."""
        with self._lock:
            self._add(1.0)

    def _add(self, tokens: float) -> None:
        now = self._monotonic()
        self._tokens = min(RESERVE, self._tokens + tokens + PER_SECOND * (now - self._at))
        self._at = now

"""How long a use case goes on trying: a call until its deadline, the recovery for a few steps and no wait."""

import random
from collections import Counter
from typing import Protocol

from keybroker.domain.deadline import Deadline
from keybroker.ports import Clock

_FIRST_WAIT_SECONDS = 0.1
_LONGEST_WAIT_SECONDS = 2.0


class Patience(Protocol):
    """Asked before a step that was taken before; the first of a kind is due at once."""

    @property
    def retries(self) -> bool:
        """Whether what was refused for a passing reason is tried again."""

    def allows(self, step: str, *, at_least_seconds: float = 0.0) -> bool:
        """Waits if that is to be done before this step, and says whether to take it."""


class UntilDeadline:
    """A caller waits: exponential waits with full jitter, while time is left to do something with."""

    def __init__(self, *, clock: Clock, deadline: Deadline, reserve_seconds: float) -> None:
        self._clock = clock
        self._deadline = deadline
        self._reserve_seconds = reserve_seconds
        self._taken: Counter[str] = Counter()

    @property
    def retries(self) -> bool:
        """While there is time."""
        return self._deadline.remaining_seconds() > self._reserve_seconds

    def allows(self, step: str, *, at_least_seconds: float = 0.0) -> bool:
        """See Patience."""
        taken = self._taken[step]
        self._taken[step] += 1
        wait = 0.0 if not taken else _jittered(taken)
        wait = max(wait, at_least_seconds)
        if wait + self._reserve_seconds > self._deadline.remaining_seconds():
            return False
        if wait > 0:
            self._clock.sleep(wait)
        return True


class AtOnce:
    """Nobody waits: each kind of step a few times, none that has to be waited for."""

    retries = False

    def __init__(self, *, times: int) -> None:
        self._left: Counter[str] = Counter()
        self._times = times

    def allows(self, step: str, *, at_least_seconds: float = 0.0) -> bool:
        """See Patience."""
        self._left[step] += 1
        return at_least_seconds == 0.0 and self._left[step] <= self._times


_JITTER = random.Random()  # noqa: S311  # spreads load, hides nothing; not the process's, which others may seed


def _jittered(taken: int) -> float:
    longest = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2 ** min(taken, 10))
    return _JITTER.uniform(longest / 2, longest)

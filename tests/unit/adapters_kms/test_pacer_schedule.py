"""The schedule against windows of both kinds, in simulated time: requests leave when it says, and arrive late."""

import heapq
import math
import random
from collections import deque
from dataclasses import dataclass
from typing import Literal

import pytest

from keybroker.adapters.kms.schedule import BURST, TARGET, WINDOW_SECONDS, Schedule

Mode = Literal["fixed", "sliding"]
MODES: list[Mode] = ["fixed", "sliding"]
LATENCY_SECONDS = 0.003


class Window:
    """The KMS's count: a request that is refused does not count."""

    def __init__(self, mode: Mode, limit: int) -> None:
        self._mode = mode
        self._limit = limit
        self._admitted: deque[float] = deque()

    def admits(self, now: float) -> bool:
        while self._admitted and self._leaves_at(self._admitted[0]) <= now:
            self._admitted.popleft()
        if len(self._admitted) >= self._limit:
            return False
        self._admitted.append(now)
        return True

    def _leaves_at(self, at: float) -> float:
        return (math.floor(at) if self._mode == "fixed" else at) + 1


@dataclass
class Outcome:
    """What became of the requests of the broker and of the other tenant, over `seconds`."""

    seconds: float
    served: int = 0
    throttled: int = 0
    other_served: int = 0

    def use_of_what_is_left(self, limit: int) -> float:
        return self.served / (limit * self.seconds - self.other_served)


def backlog(mode: Mode, limit: int, *, other_share: float = 0.0, seconds: float = 40.0) -> Outcome:
    """As many requests as the schedule lets go; each arrives a little late; the other tenant comes evenly."""
    rng = random.Random(limit)
    window, outcome = Window(mode, limit), Outcome(seconds)
    start = 0.37
    schedule = Schedule(limit, now=start)
    numbers = iter(range(10_000_000))
    events = [(start, next(numbers), "leave")]
    if other_share:
        events.append((start, next(numbers), "other"))
    while events[0][0] < start + seconds:
        now, _, what = heapq.heappop(events)
        if what == "leave":
            schedule.take(now, queued=True)
            heapq.heappush(events, (now + LATENCY_SECONDS + rng.expovariate(500), next(numbers), "arrive"))
            due = max(now, schedule.next_at(now, queued=True))
            heapq.heappush(events, (due + rng.expovariate(1000), next(numbers), "leave"))
        elif what == "arrive":
            if window.admits(now):
                outcome.served += 1
            else:
                outcome.throttled += 1
                schedule.throttled(now + LATENCY_SECONDS)
        else:
            outcome.other_served += window.admits(now)
            heapq.heappush(events, (now + 1 / (other_share * limit), next(numbers), "other"))
    return outcome


@pytest.mark.parametrize("limit", [10, 30, 50, 300])
@pytest.mark.parametrize("mode", MODES)
def test_backlog_alone_uses_the_quota_and_is_not_throttled(mode: Mode, limit: int) -> None:
    outcome = backlog(mode, limit)
    assert outcome.use_of_what_is_left(limit) >= 0.95
    assert outcome.throttled <= 0.01 * outcome.served


@pytest.mark.parametrize("limit", [30, 50, 300])
@pytest.mark.parametrize("mode", MODES)
def test_backlog_beside_another_tenant_uses_what_is_left(mode: Mode, limit: int) -> None:
    outcome = backlog(mode, limit, other_share=0.3)
    assert outcome.other_served >= 0.23 * limit * outcome.seconds  # the other one is not pushed aside
    assert outcome.use_of_what_is_left(limit) >= 0.95
    assert outcome.throttled <= 0.08 * outcome.served


def test_quiet_broker_has_a_burst_at_once_and_no_second_holds_more_than_the_limit() -> None:
    limit, schedule, now, left = 50, Schedule(50, now=0.0), 0.0, []
    while now < 5:
        if schedule.next_at(now, queued=bool(left) and left[-1] < now) <= now:
            schedule.take(now, queued=bool(left) and left[-1] < now)
            left.append(now)
        else:
            now += 0.0005
    assert left.count(0.0) == limit * BURST
    assert all(later - earlier >= 1.0 for earlier, later in zip(left, left[limit:], strict=False))
    assert len(left) >= 0.95 * limit * 5


def test_lateness_is_caught_up_but_a_long_pause_of_those_who_queue_is_not() -> None:
    schedule = Schedule(10, now=0.0)
    interval = 1 / (TARGET * 10)
    for _ in range(5):
        schedule.take(0.0, queued=False)
    first = schedule.next_at(0.0, queued=True)
    schedule.take(first + 0.005, queued=True)
    assert schedule.next_at(first + 0.005, queued=True) == pytest.approx(first + interval)
    schedule.take(100.0, queued=True)
    assert schedule.next_at(100.0, queued=True) > 100.0 + interval - 0.011


def test_throttling_slows_down_and_time_speeds_up_again_to_the_top_and_no_further() -> None:
    schedule = Schedule(50, now=0.0)
    for _ in range(20):
        schedule.throttled(1.0)
    slow = schedule.rate_per_second
    assert 0.7 * 50 < slow < 0.8 * 50
    schedule.next_at(2.0, queued=True)
    assert slow < schedule.rate_per_second < slow + 1
    schedule.next_at(60.0, queued=True)
    assert schedule.rate_per_second == TARGET * 50


def test_rate_never_falls_to_nothing() -> None:
    schedule = Schedule(10, now=0.0)
    for _ in range(10_000):
        schedule.throttled(0.0)
    schedule.take(0.0, queued=True)
    assert schedule.next_at(0.0, queued=True) < 10


def test_what_is_foretold_is_what_happens() -> None:
    schedule = Schedule(50, now=0.0)
    for _ in range(25):
        schedule.take(0.0, queued=False)
    foretold, now = schedule.seconds_for(100, 0.0), 0.0
    for _ in range(101):
        now = max(now, schedule.next_at(now, queued=True))
        schedule.take(now, queued=True)
    assert now - WINDOW_SECONDS * BURST <= foretold <= now  # short by the room that a burst has taken, at most

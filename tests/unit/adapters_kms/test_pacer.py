"""The pacer with threads, in real time: high limits keep it short."""

import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest

from keybroker.adapters.kms.pacer import CalledOff, Pacer
from keybroker.adapters.kms.schedule import BURST, TARGET
from keybroker.adapters.kms.turns import REMEMBERED_TURNS, TurnsOfACall
from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import KmsError, Reason

pytestmark = pytest.mark.alone

LIMIT = 200
OWNER = object()


def deadline(seconds: float = 20.0, caller: str = "") -> Deadline:
    return Deadline.after(seconds, monotonic=time.monotonic, caller=caller)


class Crowd:
    """Threads that ask a pacer for turns, and what each was told."""

    def __init__(self, limit: int = LIMIT, turns_of_a_call: float = 1.0) -> None:
        self.waits: list[float] = []
        self.pacer = Pacer(limit, monotonic=time.monotonic, on_wait=self.waits.append, turns_of_a_call=turns_of_a_call)
        self.served: list[str] = []
        self.failed: list[Exception] = []
        self._threads: list[threading.Thread] = []

    def use_burst(self, limit: int = LIMIT) -> None:
        for _ in range(int(limit * BURST)):
            self.pacer.turn(deadline(), owner=OWNER)

    def ask(self, caller: str, times: int = 1, seconds: float = 20.0, owner: object = OWNER) -> None:
        for _ in range(times):
            self._threads.append(threading.Thread(target=self._ask, args=(caller, seconds, owner)))
            self._threads[-1].start()

    def end(self) -> None:
        for thread in self._threads:
            thread.join(timeout=30)
            assert not thread.is_alive()

    def _ask(self, caller: str, seconds: float, owner: object) -> None:
        try:
            self.pacer.turn(deadline(seconds, caller), owner=owner)
        except (KmsError, CalledOff) as error:
            self.failed.append(error)
        else:
            self.served.append(caller)


def refusal(ask: Callable[[], None]) -> KmsError:
    with pytest.raises(KmsError) as caught:
        ask()
    return caught.value


def test_quiet_pacer_lets_go_at_once() -> None:
    crowd = Crowd()
    started = time.monotonic()
    crowd.use_burst()
    assert time.monotonic() - started < 0.1
    assert len(crowd.waits) == LIMIT * BURST


def test_crowd_leaves_at_the_rate_and_nobody_is_lost() -> None:
    crowd = Crowd()
    crowd.use_burst()
    started = time.monotonic()
    crowd.ask("a", times=300)
    asked_for = time.monotonic() - started
    crowd.end()
    seconds = time.monotonic() - started
    assert len(crowd.served) == 300
    assert 0.75 * LIMIT <= (LIMIT * BURST + 300) / (seconds + 1 / LIMIT) <= LIMIT * (1 + BURST)
    assert max(crowd.waits) > 300 / (TARGET * LIMIT) - asked_for - 0.1  # the last one has not waited from the beginning


def test_callers_of_different_greed_have_the_same_share() -> None:
    crowd = Crowd(limit=60)
    crowd.use_burst(limit=60)
    for caller, times in {"small": 45, "middle": 65, "greedy": 130}.items():
        crowd.ask(caller, times)
    before_all_waited = len(crowd.served)
    crowd.end()
    while_all_wait = Counter(crowd.served[before_all_waited + 10 :][:45])
    assert max(while_all_wait.values()) - min(while_all_wait.values()) <= 8  # by greed it would be 26


def test_turn_that_comes_too_late_is_refused_at_once_and_says_when() -> None:
    crowd = Crowd(limit=2)
    crowd.use_burst(limit=2)
    started = time.monotonic()
    error = refusal(lambda: crowd.pacer.turn(deadline(0.3), owner=OWNER))
    assert time.monotonic() - started < 0.1
    assert (error.reason, error.committed_nothing) == (Reason.KMS_QUOTA_BUSY, True)
    assert 0.3 < (error.retry_after_seconds or 0) < 1.1


@pytest.mark.parametrize(("turns", "is_refused"), [(1.0, False), (3.0, True)])
def test_queue_of_calls_that_come_back_is_longer_than_its_waiters(turns: float, *, is_refused: bool) -> None:
    """Five wait, half a second's worth; if each comes back twice, they stand before a newcomer three times as long."""
    crowd = Crowd(limit=10, turns_of_a_call=turns)
    crowd.use_burst(limit=10)
    crowd.ask("", times=5, seconds=1.45)
    time.sleep(0.05)
    started = time.monotonic()
    crowd.ask("", seconds=1.45)
    time.sleep(0.05)
    failed_at_once = len(crowd.failed)
    crowd.end()
    assert (failed_at_once == 1) is is_refused
    assert len(crowd.served) == 6 - failed_at_once
    assert time.monotonic() - started < 1.6


def test_turns_of_a_call_are_learnt() -> None:
    turns = TurnsOfACall(1.0)
    assert turns.mean == 1.0
    for _ in range(REMEMBERED_TURNS):
        call = deadline()
        for _ in range(3):
            turns.count(call)
    assert turns.mean == pytest.approx(3.0, rel=0.1)
    for _ in range(3 * REMEMBERED_TURNS):
        turns.count(deadline())
    assert turns.mean == pytest.approx(1.0, rel=0.1)


def test_pacer_learns_from_the_turns_that_it_gave() -> None:
    crowd = Crowd(limit=20_000)
    for _ in range(REMEMBERED_TURNS):
        call = deadline()
        for _ in range(3):
            crowd.pacer.turn(call, owner=OWNER)
    assert crowd.pacer._turns.mean == pytest.approx(3.0, rel=0.1)


def test_those_who_came_later_push_nobody_beyond_a_deadline_without_a_word() -> None:
    """Foretold in time, overtaken by other callers: told so when the deadline is near, not after it."""
    crowd = Crowd(limit=5)
    crowd.use_burst(limit=5)
    started = time.monotonic()
    crowd.ask("a", times=3, seconds=0.95)
    time.sleep(0.02)
    for caller in "bcdefg":
        crowd.ask(caller, seconds=10.0)
    crowd.end()
    assert {type(error) for error in crowd.failed} == {KmsError}
    assert Counter(crowd.served)["a"] == 3 - len(crowd.failed)
    assert time.monotonic() - started < 4
    assert crowd.pacer._queue.first() is crowd.pacer._leader is None


def test_waits_that_are_called_off_end_at_once_and_those_of_others_go_on() -> None:
    crowd, other = Crowd(limit=10), object()
    crowd.use_burst(limit=10)
    crowd.ask("a", times=20)
    crowd.ask("b", times=3, owner=other)
    time.sleep(0.05)
    started = time.monotonic()
    crowd.pacer.call_off(OWNER)
    crowd.end()
    assert time.monotonic() - started < 1.0
    assert {type(error) for error in crowd.failed} == {CalledOff}
    assert crowd.served.count("b") == 3


def test_throttling_slows_the_pacer_down() -> None:
    crowd = Crowd()
    before = crowd.pacer.rate_per_second
    crowd.pacer.throttled()
    assert 0.9 * before < crowd.pacer.rate_per_second < before


def test_2000_who_wait_cost_little() -> None:
    """No herd: the CPU time for their turns is a fraction of the time they take."""
    crowd = Crowd(limit=1000)
    crowd.use_burst(limit=1000)
    cpu, started = time.process_time(), time.monotonic()
    crowd.ask("a", times=1000)
    crowd.ask("b", times=1000)
    crowd.end()
    assert len(crowd.served) == 2000
    assert time.monotonic() - started < 6
    assert time.process_time() - cpu < 2.0

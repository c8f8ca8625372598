"""Who is next, and how many are before one: told without time or threads."""

from hypothesis import given
from hypothesis import strategies as st

from keybroker.adapters.kms.fair_queue import FairQueue, Waiter


def queue_of(*waiters: tuple[str, float]) -> FairQueue:
    queue = FairQueue()
    for caller, ends_at in waiters:
        queue.push(Waiter(caller=caller, owner=None, ends_at=ends_at))
    return queue


def order(queue: FairQueue) -> list[tuple[str, float]]:
    served = []
    while queue:
        assert (first := queue.first()) is not None
        waiter = queue.pop()
        assert waiter is first
        served.append((waiter.caller, waiter.ends_at))
    return served


def test_callers_take_turns_whatever_each_has_waiting() -> None:
    queue = queue_of(*[("greedy", 1.0)] * 6, ("small", 9.0), ("small", 9.0), ("one", 5.0))
    callers = [caller for caller, _ in order(queue)]
    assert callers == ["greedy", "small", "one", "greedy", "small", "greedy", "greedy", "greedy", "greedy"]


def test_of_one_caller_the_nearest_deadline_is_first() -> None:
    assert order(queue_of(("a", 3.0), ("a", 1.0), ("a", 2.0))) == [("a", 1.0), ("a", 2.0), ("a", 3.0)]


def test_caller_who_comes_back_waits_for_all_others_turns() -> None:
    queue = queue_of(("a", 1.0), ("b", 1.0))
    assert queue.pop().caller == "a"
    queue.push(Waiter(caller="a", owner=None, ends_at=0.0))
    assert [caller for caller, _ in order(queue)] == ["b", "a"]


def test_those_of_an_owner_leave_together() -> None:
    queue, owner = queue_of(("a", 1.0), ("b", 2.0)), object()
    for caller in ("a", "c"):
        queue.push(Waiter(caller=caller, owner=owner, ends_at=1.5))
    assert sorted(waiter.caller for waiter in queue.remove_all_of(owner)) == ["a", "c"]
    assert order(queue) == [("a", 1.0), ("b", 2.0)]


@given(
    waiting=st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 10)), max_size=30),
    caller=st.sampled_from("abcd"),
    ends_at=st.floats(0, 10),
)
def test_foretold_place_is_that_of_the_waiter_or_a_little_later(
    waiting: list[tuple[str, float]], caller: str, ends_at: float
) -> None:
    """No later than foretold; earlier by less than one turn of each other caller."""
    queue = queue_of(*waiting)
    ahead = queue.ahead_of(caller, ends_at)
    mine = Waiter(caller=caller, owner=None, ends_at=ends_at)
    queue.push(mine)
    place = 0
    while queue.pop() is not mine:
        place += 1
    assert ahead - 3 <= place <= ahead

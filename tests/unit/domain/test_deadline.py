import pytest
from hypothesis import given
from hypothesis import strategies as st

from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import BrokerError, Reason
from tests.builders import FakeClock


def test_deadline_counts_down_and_stops_at_zero() -> None:
    clock = FakeClock()
    deadline = Deadline.after(2.0, monotonic=clock.monotonic)
    assert deadline.remaining_seconds() == 2.0
    clock.advance(1.5)
    assert deadline.remaining_seconds() == 0.5
    clock.advance(5.0)
    assert deadline.remaining_seconds() == 0.0


def test_deadline_that_is_past_from_the_start_has_nothing_left() -> None:
    assert Deadline.after(-1.0, monotonic=FakeClock().monotonic).remaining_seconds() == 0.0


def test_require_exactly_what_is_left_returns_it() -> None:
    assert Deadline.after(2.0, monotonic=FakeClock().monotonic).require(2.0, step="a step") == 2.0


def test_require_more_than_is_left_says_for_which_step() -> None:
    deadline = Deadline.after(2.0, monotonic=FakeClock().monotonic)
    with pytest.raises(BrokerError, match="no time for: a step") as caught:
        deadline.require(2.001, step="a step")
    assert caught.value.reason is Reason.DEADLINE_TOO_SHORT


@given(seconds=st.floats(-100, 100), steps=st.lists(st.floats(0, 50), max_size=5))
def test_remaining_never_grows_and_is_never_negative(seconds: float, steps: list[float]) -> None:
    clock = FakeClock()
    deadline = Deadline.after(seconds, monotonic=clock.monotonic)
    before = deadline.remaining_seconds()
    for step in steps:
        clock.advance(step)
        assert 0.0 <= deadline.remaining_seconds() <= before
        before = deadline.remaining_seconds()

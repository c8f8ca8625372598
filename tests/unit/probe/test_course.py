import pytest

from keybroker.probe.course import CALLS_PER_SECOND, CLEAN_UP_SECONDS, REQUEST_SECONDS, Course, ProbeStopped
from tests.unit.probe.support import StoppedClock


def test_take_turn_paces_requests_whatever_their_number() -> None:
    clock = StoppedClock()
    course = Course(clock=clock, seconds_budget=100)
    for _ in range(11):
        course.take_turn()
    assert clock.monotonic() == pytest.approx(10 / CALLS_PER_SECOND)


def test_take_turn_near_the_end_of_the_budget_still_gives_a_request_its_time() -> None:
    clock = StoppedClock()
    course = Course(clock=clock, seconds_budget=1)
    clock.sleep(0.9)
    assert course.take_turn().remaining_seconds() == REQUEST_SECONDS


@pytest.mark.parametrize("why", ["interrupted", "out_of_time"])
def test_wait_when_the_run_is_over_raises_why(why: str) -> None:
    clock = StoppedClock()
    course = Course(clock=clock, seconds_budget=1)
    if why == "interrupted":
        course.stop()
    else:
        clock.sleep(1)
    with pytest.raises(ProbeStopped) as stopped:
        course.wait(0)
    assert stopped.value.why == why


def test_wait_that_is_interrupted_ends_within_a_second() -> None:
    clock = StoppedClock()
    course = Course(clock=clock, seconds_budget=100)
    clock.when_slept = course.stop
    with pytest.raises(ProbeStopped):
        course.wait(50)
    assert clock.monotonic() < 1


def test_begin_clean_up_after_stop_and_budget_gives_time_that_ends() -> None:
    clock = StoppedClock()
    course = Course(clock=clock, seconds_budget=1)
    clock.sleep(2)
    course.stop()
    course.begin_clean_up()
    course.stop()
    course.wait(CLEAN_UP_SECONDS - 1)
    with pytest.raises(ProbeStopped):
        course.wait(1)

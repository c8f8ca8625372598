from keybroker.adapters.kms.retry_budget import PER_SECOND, RATIO, RESERVE, RetryBudget
from tests.builders import FakeClock


def taken(budget: RetryBudget, asked: int) -> int:
    return sum(budget.take() for _ in range(asked))


def test_reserve_is_there_from_the_start_and_ends() -> None:
    assert taken(RetryBudget(monotonic=FakeClock().monotonic), 100) == RESERVE


def test_retries_of_a_failing_crowd_are_a_tenth_of_it_and_the_reserve() -> None:
    budget = RetryBudget(monotonic=FakeClock().monotonic)
    retries = 0
    for _ in range(1000):
        budget.first_try()
        retries += taken(budget, 4)
    assert 1000 * RATIO <= retries <= 1000 * RATIO + RESERVE


def test_quiet_time_fills_no_more_than_the_reserve() -> None:
    clock = FakeClock()
    budget = RetryBudget(monotonic=clock.monotonic)
    taken(budget, 100)
    clock.advance(2 / PER_SECOND)
    assert taken(budget, 100) == 2
    clock.advance(3600)
    assert taken(budget, 100) == RESERVE

"""The loop on the vendor's SDK in the quotas benchmark runs; the broker's side is tests/integration/test_quotas.py."""

import pytest

from tests.benchmarks.floor import WrongResultError
from tests.benchmarks.quotas import Case, line, sdk_crowd


def test_sdk_crowd_gives_figures_and_a_row() -> None:
    case = Case("sliding", read_limit=30, write_limit=20)
    figures = sdk_crowd(case, {"greedy": 30, "small": 20}, first_wait_seconds=0.2)
    assert figures.imported + sum(figures.failed.values()) == 50
    assert set(figures.failed) <= {"throttled"}
    assert 0.2 < figures.use_of_what_is_left < 1.1
    assert figures.throttled_share > 0
    assert "vendor's SDK  sliding  alone" in line("vendor's SDK", case, figures)


def test_crowd_too_small_to_measure_is_a_wrong_result() -> None:
    with pytest.raises(WrongResultError, match="too small"):
        sdk_crowd(Case("fixed", read_limit=1000, write_limit=1000), {"one": 1})

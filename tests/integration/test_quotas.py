"""Quotas shared by 400 imports of three callers, with four times the KMS's figures; make bench takes its own."""

from pathlib import Path

import pytest

from tests.benchmarks.quotas import GREED, OTHER_SHARE, Case, Figures, Window, broker_crowd


def check(figures: Figures) -> None:
    assert figures.failed == {}
    assert figures.imported == sum(GREED.values())
    assert figures.use_of_what_is_left >= 0.95
    for share in figures.shares.values():
        assert share == pytest.approx(1 / len(GREED), rel=0.1)


@pytest.mark.xdist_group("timing")
@pytest.mark.parametrize("window", ["fixed", "sliding"])
def test_queued_imports_alone_use_the_quota_fairly_and_are_hardly_throttled(window: Window, tmp_path: Path) -> None:
    figures = broker_crowd(Case(window, read_limit=200, write_limit=120), tmp_path, GREED)
    check(figures)
    assert figures.throttled_share < 0.01


@pytest.mark.xdist_group("timing")
@pytest.mark.parametrize("window", ["fixed", "sliding"])
def test_queued_imports_beside_another_tenant_use_what_is_left_fairly(window: Window, tmp_path: Path) -> None:
    figures = broker_crowd(Case(window, read_limit=200, write_limit=120, other_share=OTHER_SHARE), tmp_path, GREED)
    check(figures)
    assert figures.other_reads_per_second >= 0.8 * OTHER_SHARE * 200

"""Runs the state machine with given bounds, outside Hypothesis's own collection of tests."""

from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.unit.exactly_once.machine import ExactlyOnce
from tests.unit.exactly_once.seeded_bugs import Bug
from tests.unit.exactly_once.truth import Broken

STEPS_A_RUN = 30
_ANY_SPEED = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)


def search(runs: int, *, number: int | None = None, shrink: bool = True) -> Counter[str]:
    """Raises Broken; notes the shortest run that it found. Returns how often which answer was told.

    The same `number` draws the same runs.
    """
    told: Counter[str] = Counter()

    class Counted(ExactlyOnce):
        def teardown(self) -> None:
            super().teardown()
            if self.site is not None:
                told.update(self.site.truth.outcomes)

    phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)
    bounds = settings(
        max_examples=runs,
        stateful_step_count=STEPS_A_RUN,
        deadline=None,
        database=None,
        phases=phases,
        report_multiple_bugs=False,
        suppress_health_check=_ANY_SPEED,
    )
    drawn = Counted if number is None else seed(number)(Counted)
    run_state_machine_as_test(drawn, settings=bounds)
    return told


def finds(bug: Bug, *, runs: int, number: int) -> bool:
    """Whether the machine notices the bug. Nothing is shrunk or printed."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()), bug():
        try:
            search(runs, number=number, shrink=False)
        except Broken:
            return True
    return False

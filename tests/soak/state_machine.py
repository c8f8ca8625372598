"""The state machine of tests/unit/exactly_once for 10,000 steps and more, and a long search for each seeded bug."""

import logging

import structlog

from tests.soak.plan import Plan
from tests.unit.exactly_once.scenarios import SCENARIOS
from tests.unit.exactly_once.search import STEPS_A_RUN, finds, search
from tests.unit.exactly_once.seeded_bugs import BUGS
from tests.unit.exactly_once.truth import Broken

_STEPS_A_ROUND = 510  # 20 rounds are a little more than 10,000
_BUG_STEPS_A_ROUND = 150  # for each bug


def soak(plan: Plan) -> str:
    """Raises AssertionError if an invariant breaks, or if a seeded bug breaks none in its scenario."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    runs = plan.rounds * _STEPS_A_ROUND // STEPS_A_RUN
    told = search(runs, number=plan.seed)
    missed = [name for name in BUGS if not _breaks(name)]
    if missed:
        raise AssertionError(f"seeded bugs that nothing notices: {', '.join(missed)}")
    bug_runs = plan.rounds * _BUG_STEPS_A_ROUND // STEPS_A_RUN
    found = [name for name, bug in BUGS.items() if finds(bug, runs=bug_runs, number=plan.seed)]
    by_scenario = ", ".join(sorted(set(BUGS) - set(found))) or "none"
    return (
        f"{runs * STEPS_A_RUN} steps, {sum(told.values())} answers, {told['IMPORTED']} of them IMPORTED; "
        f"{len(found)} of {len(BUGS)} seeded bugs found by search, by their scenario alone: {by_scenario}"
    )


def _breaks(name: str) -> bool:
    with BUGS[name]():
        try:
            SCENARIOS[name].play()
        except Broken:
            return True
    return False

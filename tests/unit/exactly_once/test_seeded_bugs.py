"""The invariants notice each rule that is taken away. A state machine that can't fail would prove nothing."""

import re

import pytest

from tests.unit.exactly_once.scenarios import SCENARIOS
from tests.unit.exactly_once.search import finds
from tests.unit.exactly_once.seeded_bugs import BUGS
from tests.unit.exactly_once.truth import Broken

_FOUND_SOON = (
    "resend_not_counted",
    "server_error_is_refusal",
    "told_before_recorded",
    "failure_keeps_the_cmk",
    "hand_out_beside_claims",
    "rewrap_beside_open_send",
    "one_look_settles",
    "regenerated_on_time_out",
    "enabled_is_success",
    "adopted_unverified",
)
"""What random search finds in some hundred steps. The others need their scenario, or the search of `make soak`."""

_RUNS = 15  # at a time
_TIMES = 20  # each with a number of its own, so that the outcome is the same each time


def test_seeded_bugs_each_has_a_scenario() -> None:
    assert set(SCENARIOS) == set(BUGS)


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario_without_its_bug_is_sound(name: str) -> None:
    SCENARIOS[name].play()


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario_with_its_bug_breaks_the_invariant(name: str) -> None:
    with BUGS[name](), pytest.raises(Broken, match=re.escape(SCENARIOS[name].breaks)):
        SCENARIOS[name].play()


@pytest.mark.parametrize("name", _FOUND_SOON)
def test_state_machine_with_a_bug_fails(name: str) -> None:
    assert any(finds(BUGS[name], runs=_RUNS, number=number) for number in range(_TIMES))

"""The state machine, a few hundred steps of it: another draw each time. `make soak` does many more."""

import pytest

from tests.unit.exactly_once.scenarios import FOUND
from tests.unit.exactly_once.search import search

_RUNS = 25


def test_import_protocol_whatever_happens_keeps_its_invariants() -> None:
    told = search(_RUNS)

    assert told["IMPORTED"] > 0


@pytest.mark.parametrize("name", FOUND)
def test_import_protocol_in_a_run_that_once_broke_it_is_sound(name: str) -> None:
    FOUND[name].play()

"""The state machine, a few hundred steps of it: another draw each time. `make soak` does many more."""

from tests.unit.exactly_once.search import search

_RUNS = 30


def test_import_protocol_whatever_happens_keeps_its_invariants() -> None:
    told = search(_RUNS)

    assert told["IMPORTED"] > 0

"""Runs a group of cells; tells apart what was told truly and what was not."""

from collections.abc import Mapping, Sequence

from tests.integration.fault_matrix.axes import GROUPS, WORLDS, Cell, cells_of_group
from tests.integration.fault_matrix.course import run_cell
from tests.integration.fault_matrix.stack import Lane, run_cells

_MOST_SECOND_TRIES = 20  # more is a change, not a machine that is busy


def run_group(group: str, lanes: Sequence[Lane], recorded: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The outcomes of the cells that hold, and what is wrong with the others; both by the cells' keys.

    On a busy machine a call may run out of time, or the broker of patience with the KMS: it then tells the truth, but
    less of it. A few cells that hold and are not as recorded are therefore run once more, by themselves. One that does
    not hold never is.
    """
    cells = cells_of_group(group)
    held, false = _run(group, cells, lanes)
    others = [cell for cell in cells if cell.key in held and held[cell.key] != recorded.get(cell.key, held[cell.key])]
    if 0 < len(others) <= _MOST_SECOND_TRIES:
        held_again, false_now = _run(group, others, lanes)
        held, false = held | held_again, false | false_now
    return {key: outcome for key, outcome in held.items() if key not in false}, false


def _run(group: str, cells: Sequence[Cell], lanes: Sequence[Lane]) -> tuple[dict[str, str], dict[str, str]]:
    prove = any(WORLDS[key].prove for key in GROUPS[group])
    outcomes = run_cells(cells, lanes, run_cell, prove=prove)
    held = {key: outcome for key, outcome in outcomes.items() if isinstance(outcome, str)}
    return held, {key: str(outcome) for key, outcome in outcomes.items() if key not in held}

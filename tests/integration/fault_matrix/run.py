"""Runs a group of cells; tells apart what was told truly and what was not."""

from collections.abc import Mapping, Sequence

from tests.integration.fault_matrix.axes import GROUPS, WORLDS, Cell, cells_of_group
from tests.integration.fault_matrix.course import run_cell
from tests.integration.fault_matrix.stack import Lane, NotStruckError, run_cells

Outcome = str | Exception

_TRIES = 4
_FEWEST_LANES = 3
_CELLS_A_LANE = 8


def run_group(group: str, lanes: Sequence[Lane], recorded: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The outcomes of the cells that hold, and what is wrong with the others; both by the cells' keys.

    On a busy machine a call may run out of time, or the broker of patience with the KMS: it then tells the truth, but
    less of it, or is done before the fault can strike. Such cells are run again, with ever fewer beside them. One that
    does not hold never is.
    """
    cells = cells_of_group(group)
    outcomes = _run(group, cells, lanes)
    for _ in range(_TRIES - 1):
        short = [cell for cell in cells if _came_short(outcomes[cell.key], recorded.get(cell.key))]
        if not short:
            break
        outcomes |= _run(group, short, lanes[: max(_FEWEST_LANES, len(short) // _CELLS_A_LANE)])
    held = {key: outcome for key, outcome in outcomes.items() if isinstance(outcome, str)}
    return held, {key: f"{type(it).__name__}: {it}" for key, it in outcomes.items() if isinstance(it, Exception)}


def _run(group: str, cells: Sequence[Cell], lanes: Sequence[Lane]) -> dict[str, Outcome]:
    return run_cells(cells, lanes, run_cell, prove=any(WORLDS[key].prove for key in GROUPS[group]))


def _came_short(outcome: Outcome, recorded: str | None) -> bool:
    if isinstance(outcome, str):
        return recorded not in (outcome, None)
    return isinstance(outcome, NotStruckError)

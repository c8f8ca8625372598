"""Runs a group of cells; tells apart what was told truly and what was not."""

from collections.abc import Sequence

from tests.integration.fault_matrix.axes import GROUPS, WORLDS, cells_of_group
from tests.integration.fault_matrix.course import run_cell
from tests.integration.fault_matrix.stack import Lane, run_cells


def run_group(group: str, lanes: Sequence[Lane]) -> tuple[dict[str, str], dict[str, str]]:
    """The outcomes of the cells that hold, and what is wrong with the others; both by the cells' keys."""
    prove = any(WORLDS[key].prove for key in GROUPS[group])
    outcomes = run_cells(cells_of_group(group), lanes, run_cell, prove=prove)
    held = {key: outcome for key, outcome in outcomes.items() if isinstance(outcome, str)}
    return held, {key: str(outcome) for key, outcome in outcomes.items() if key not in held}

"""Every fault at every operation under every reading: the caller is told the truth, always (docs/fault-matrix.md).

Run scripts/generate_fault_matrix.py to write the record of outcomes and the page anew, and review what has changed.
"""

from collections.abc import Iterator

import pytest

from tests.integration.fault_matrix import document, record
from tests.integration.fault_matrix.axes import GROUPS, cells_of_group
from tests.integration.fault_matrix.lists import listed_unattributed, listed_unresolved, said
from tests.integration.fault_matrix.run import run_group
from tests.integration.fault_matrix.stack import Lane, running_lanes


@pytest.fixture(scope="module")
def lanes() -> Iterator[list[Lane]]:
    with running_lanes() as running:
        yield running


@pytest.mark.xdist_group("matrix")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("group", GROUPS)
def test_fault_matrix_cells_told_is_the_truth_and_as_recorded(group: str, lanes: list[Lane]) -> None:
    recorded = record.flat(record.read())
    outcomes, false = run_group(group, lanes, recorded)
    assert false == {}
    cells = cells_of_group(group)
    assert said(outcomes).unresolved == listed_unresolved(cells)
    assert said(outcomes).unattributed == listed_unattributed(cells)
    assert outcomes == {cell.key: recorded.get(cell.key) for cell in cells}


def test_fault_matrix_record_has_exactly_the_cells_of_the_matrix() -> None:
    assert record.flat(record.read()).keys() == {cell.key for group in GROUPS for cell in cells_of_group(group)}


def test_fault_matrix_document_is_rendered_from_the_record() -> None:
    assert document.PATH.read_text(encoding="utf-8") == document.render(record.read())

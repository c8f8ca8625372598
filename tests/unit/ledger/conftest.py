from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.ledger.support import Files


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    folder = tmp_path / "ledger"
    folder.mkdir()
    files = Files(folder)
    yield files
    files.close()

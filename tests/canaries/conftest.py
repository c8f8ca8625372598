"""The run that all tests of this folder look at: made once."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.canaries.run import Run, whole_run


@pytest.fixture(scope="session")
def run() -> Iterator[Run]:
    with tempfile.TemporaryDirectory() as folder:
        yield whole_run(Path(folder))

"""The runs that the tests of this folder look at: each made once."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.canaries.forced import Forced, all_strikes
from tests.canaries.run import Run, whole_run

_IN_MEMORY = Path("/dev/shm")


@pytest.fixture(scope="session")
def run() -> Iterator[Run]:
    with tempfile.TemporaryDirectory() as folder:
        yield whole_run(Path(folder))


@pytest.fixture(scope="session")
def forced() -> Iterator[Forced]:
    """In memory, since hundreds of ledgers are written to the last byte."""
    with tempfile.TemporaryDirectory(dir=_IN_MEMORY if _IN_MEMORY.is_dir() else None) as folder:
        yield all_strikes(Path(folder))

"""Two processes over one file, and processes that are killed."""

import random
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.unit.ledger.support import Files, attempt

ROOT = Path(__file__).parents[3]


def start(what: str, files: Files, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.unit.ledger.process", what, str(files.folder), name]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def outcomes(what: str, files: Files) -> list[list[str]]:
    """What two processes print that do the same at the same time."""
    processes = [start(what, files, name) for name in ("a", "b")]
    lines = []
    for process in processes:
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        lines.append(output.splitlines())
    return lines


def test_each_cmk_is_claimed_by_one_of_two_processes(files: Files) -> None:
    """They also make the new ledger's files at the same time."""
    first, second = outcomes("claim", files)
    for number in range(100):
        assert (f"won {number}" in first) != (f"won {number}" in second)
        assert (f"held {number}" in first) != (f"held {number}" in second)
    assert files.ledger().restored() is None


def test_increments_of_two_processes_are_all_there(files: Files) -> None:
    ledger = files.ledger()
    ledger.insert(attempt())
    first, second = outcomes("count", files)
    assert len({*first, *second}) == 200  # versions
    row = ledger.find("jwt:caller", "request-1")
    assert row is not None
    assert row.sends == 200
    assert files.ledger().restored() is None


def test_what_returned_is_there_after_kill_9(files: Files) -> None:
    returned: dict[str, int] = {}
    for turn in range(5):
        written = killed_writer(files, f"turn{turn}", seconds=random.uniform(0.02, 0.2))
        assert written
        returned |= written
        ledger = files.ledger()
        assert ledger.restored() is None
        for request_id, version in returned.items():
            row = ledger.find("jwt:caller", request_id)
            assert row is not None
            assert row.version >= version
        files.close()


def killed_writer(files: Files, name: str, *, seconds: float) -> dict[str, int]:
    """The rows that a writer said it had written, until it was killed so long after its first."""
    process = start("write", files, name)
    output = process.stdout
    assert output is not None
    lines = [output.readline()]
    reader = threading.Thread(target=lambda: lines.extend(output))
    reader.start()
    time.sleep(seconds)
    process.kill()
    reader.join()
    process.communicate()
    whole = [line.split() for line in lines if line.endswith("\n")]
    return {request_id: int(version) for request_id, version in whole}

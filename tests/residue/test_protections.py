"""The protections from dumps, each on and off: core files, core images by gcore, reading by another process."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.residue.lodger import SECRET_BYTES, byte_of_secret
from tests.residue.memory import residues_in_file
from tests.residue.site import ROOT, Site

SECRET = bytes(byte_of_secret(number) for number in range(SECRET_BYTES))
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
USER = ["user"] if os.geteuid() == 0 else []
PATTERN = Path("/proc/sys/kernel/core_pattern").read_text().strip()
YAMA = Path("/proc/sys/kernel/yama/ptrace_scope")
NO_CORE_FILES_HERE = pytest.mark.skipif(
    "/" in PATTERN or "|" in PATTERN, reason="this system puts core files elsewhere than in the working directory"
)


class Lodger(NamedTuple):
    process: subprocess.Popen[str]
    address: int


@pytest.fixture
def lodge(tmp_path: Path) -> Iterator[Callable[..., Lodger]]:
    """Starts a process with a secret, in tmp_path."""
    with ExitStack() as stack:

        def start(*options: str) -> Lodger:
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.residue.lodger", *options],
                    cwd=tmp_path,
                    env=ENVIRONMENT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            assert process.stdout is not None
            return Lodger(process, int(process.stdout.readline()))

        yield start


def aborted(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> int:
    """How it ended: CLD_DUMPED, or CLD_KILLED if there is no core image."""
    process.send_signal(signal.SIGABRT)
    ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    assert process.wait() == -signal.SIGABRT
    return ended.si_code


def pried(lodger: Lodger) -> str:
    command = [sys.executable, "-m", "tests.residue.prying", str(lodger.process.pid), str(lodger.address)]
    done = subprocess.run(
        [*command, str(len(SECRET)), *USER], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_broker_that_aborts_leaves_no_core_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Site(tmp_path, "core", monkeypatch=monkeypatch, dump_protection=True) as site:
        told = json.loads(site.get("/readyz"))["hardening"]
        assert told["dumps_off"]
        assert told["memory_excluded_from_dumps"]
        status = Path(f"/proc/{site.process.pid}/status").read_text()
        assert "\nVmLck:\t      32 kB\n" in status  # for all of max_concurrent_calls, before the first
        assert aborted(site.process) == os.CLD_KILLED
    assert not list(tmp_path.glob("core*"))


@NO_CORE_FILES_HERE
def test_broker_without_protection_leaves_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Site(tmp_path, "core", monkeypatch=monkeypatch, dump_protection=False) as site:
        assert not json.loads(site.get("/readyz"))["hardening"]["dumps_off"]
        assert aborted(site.process) == os.CLD_DUMPED
    assert list(tmp_path.glob("core*"))


@NO_CORE_FILES_HERE
@pytest.mark.parametrize("excluded", [True, False])
def test_core_file_has_the_secret_unless_its_memory_is_excluded(
    lodge: Callable[..., Lodger], tmp_path: Path, *, excluded: bool
) -> None:
    assert aborted(lodge(*["excluded"] * excluded).process) == os.CLD_DUMPED
    (image,) = tmp_path.glob("core*")
    assert residues_in_file(image, [SECRET]) == (set() if excluded else {0})


@pytest.mark.parametrize("excluded", [True, False])
def test_image_by_gcore_has_the_secret_unless_its_memory_is_excluded(
    lodge: Callable[..., Lodger], tmp_path: Path, *, excluded: bool
) -> None:
    pid = lodge(*["excluded"] * excluded).process.pid
    subprocess.run(["gcore", "-o", str(tmp_path / "image"), str(pid)], check=True, capture_output=True)
    assert residues_in_file(tmp_path / f"image.{pid}", [SECRET]) == (set() if excluded else {0})


def test_memory_is_not_read_by_another_process_of_the_same_user(lodge: Callable[..., Lodger]) -> None:
    assert pried(lodge("undumped", *USER)) == "PermissionError"


@pytest.mark.skipif(YAMA.exists() and YAMA.read_text().strip() != "0", reason="this system forbids it to everybody")
def test_memory_without_protection_is_read_by_another_process_of_the_same_user(lodge: Callable[..., Lodger]) -> None:
    assert pried(lodge(*USER)) == SECRET.hex()

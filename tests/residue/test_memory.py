"""The search itself: it finds what it is to find."""

import ctypes
import mmap
import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.residue.memory import Windows, residues, residues_in_file

SECRETS = [bytes(range(0xC0, 0xE0)), bytes(range(0x10, 0x20))]
PART_BYTES = 1 << 22


@pytest.mark.parametrize("offset", range(17))
@pytest.mark.parametrize("at", [0, 5, 24])
def test_run_of_8_bytes_is_found_at_every_address(offset: int, at: int) -> None:
    run = SECRETS[0][at : at + 8]
    assert Windows(SECRETS).found_in(b"\xff" * offset + run + b"\xff" * 3) == {0}
    assert Windows(SECRETS).found_in(b"\xff" * offset + run[::-1] + b"\xff" * 3) == {0}


def test_run_of_7_bytes_is_not_found() -> None:
    assert Windows(SECRETS).found_in(b"\xff" * 9 + SECRETS[0][:7] + b"\xff" * 9) == set()


@pytest.mark.parametrize("start", [0, 4090, 3 * 4096, PART_BYTES - 31, PART_BYTES - 1, PART_BYTES])
def test_secret_in_a_file_is_found_across_pages_and_parts(tmp_path: Path, start: int) -> None:
    path = tmp_path / "image"
    path.write_bytes(bytes(start) + SECRETS[1] + bytes(PART_BYTES))
    assert residues_in_file(path, SECRETS) == {1}


def test_secret_in_the_memory_of_a_process_is_found() -> None:
    planted = ctypes.create_string_buffer(os.urandom(24), 24)
    elsewhere = os.urandom(24)  # here and in the list below
    assert set().union(*residues(os.getpid(), [planted.raw, elsewhere]).values()) == {0, 1}


def test_mapping_that_can_not_be_read_to_its_end_is_no_empty_one() -> None:
    """A file that was cut under its mapping stands in for a page that the kernel does not give out."""
    with tempfile.TemporaryFile() as file:
        file.truncate(2 * mmap.PAGESIZE)
        with mmap.mmap(file.fileno(), 0):
            file.truncate(mmap.PAGESIZE)
            with pytest.raises(AssertionError, match="can't be read"):
                residues(os.getpid(), SECRETS)


def test_process_that_has_gone_is_not_one_without_secrets() -> None:
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie has no memory
        with pytest.raises(AssertionError, match="gone"):
            residues(process.pid, SECRETS)

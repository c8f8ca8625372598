"""docs/audit.md: the programs that it gives do what it says, and its table has every kind of defect."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from keybroker.adapters.audit.verify import Kind
from tests.unit.audit.support import head_of, log_of, sealed

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "audit.md").read_text()
CHECK = TEXT.partition("```python\n")[2].partition("```")[0]
HASH = TEXT.partition("```sh\n")[2].partition("```")[0]
LOG = log_of(4, 3)


def checked(lines: list[bytes]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-c", CHECK], input=b"".join(lines), capture_output=True, check=False)


def test_check_in_twenty_lines_finds_a_sound_log_sound() -> None:
    assert len(CHECK.splitlines()) <= 20
    assert checked(LOG).stdout.decode() == f"sound up to {head_of(LOG)}\n"


@pytest.mark.parametrize(
    "lines",
    [
        [*LOG[:2], LOG[2].replace(b"a.example", b"b.example"), *LOG[3:]],
        [*LOG[:2], *LOG[3:]],
        [*LOG[:3], *LOG[4:]],
        [*LOG[:1], LOG[2], LOG[1], *LOG[3:]],
        [*LOG[:6], LOG[6].replace(b"a.example", b"b.example")],
        [*LOG[:5], sealed(LOG[5], caller="b"), LOG[6]],
        [*LOG[:6], sealed(LOG[6], seq=9)],
        [*LOG[:2], b"\n", *LOG[2:]],
    ],
    ids=["changed", "removed", "end of a chain", "moved", "last", "replaced", "number", "blank"],
)
def test_check_in_twenty_lines_finds_a_tampered_log(lines: list[bytes]) -> None:
    assert checked(lines).returncode == 1


def test_hash_of_the_last_line_is_had_by_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").write_bytes(b"".join(LOG))
    ended = subprocess.run(["sh", "-c", HASH], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ended.stdout.split()[0] == head_of(LOG)


def test_each_kind_of_defect_is_described() -> None:
    table = TEXT.partition("| defect |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == [kind.value for kind in Kind]

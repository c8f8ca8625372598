"""`keybroker audit verify`: what it prints and how it ends."""

import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from keybroker.__main__ import main
from tests.unit.audit.support import head_of, log_of, sealed

LOG = log_of(3, 2)
REST = "what comes after it, whoever can write to the log could have written anew"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """audit.jsonl in the working directory."""
    monkeypatch.chdir(tmp_path)
    file = Path("audit.jsonl")
    file.write_bytes(b"".join(LOG))
    return file


def test_sound_log_is_described(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "verify", str(file), "--expect-head", head_of(LOG[:4])]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "5 lines, 2 chains",
        "chain A: 1 to 3, keybroker 1.0",
        "  from audit.jsonl:1, 2026-01-02T03:04:05.250000Z, to audit.jsonl:3, 2026-01-02T03:04:05.750000Z",
        "chain B: 1 to 2, keybroker 1.0",
        "  from audit.jsonl:4, 2026-01-02T03:04:05.250000Z, to audit.jsonl:5, 2026-01-02T03:04:05.500000Z",
        f"anchored up to audit.jsonl:4 (number 1 of chain B); {REST}",
        "sound",
    ]


def test_defects_are_listed_with_their_places(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_bytes(b"".join([LOG[0], *LOG[2:]]))
    assert main(["audit", "verify", str(file), "--expect-head", "0" * 64]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-4:] == [
        "DEFECT missing: audit.jsonl:2: before it, number 2 of its chain is missing (number 3 of chain A)",
        f"DEFECT head: head {'0' * 64} is not in the log: lines were removed at its end, or it was written anew",
        "not anchored: whoever can write to the log could have written all of it anew (--expect-head)",
        "NOT SOUND, defects: 2",
    ]


def test_files_are_read_in_their_order_and_standard_input_too(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("old").write_bytes(b"".join(LOG[:2]))
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"".join(LOG[2:]))))
    assert main(["audit", "verify", "old", "-", "--expect-head", head_of(LOG)]) == 0
    assert "anchored up to standard input:3 " in capsys.readouterr().out


def test_version_that_is_none_is_not_shown(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_bytes(sealed(LOG[0], version="\n\x1b[2Jsound"))
    assert main(["audit", "verify", str(file)]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "chain A: 1 to 1"


def test_json_has_the_same(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_bytes(b"".join([LOG[0], *LOG[2:]]))
    assert main(["audit", "verify", str(file), "--output", "json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert not report["sound"]
    assert report["lines"] == 4
    assert report["defect_count"] == 1
    assert report["defects"][0]["kind"] == "missing"
    assert report["defects"][0]["place"] == {"file": "audit.jsonl", "number": 2}
    assert [chain["id"] for chain in report["chains"]] == ["A", "B"]
    assert report["chains"][0]["last_place"] == {"file": "audit.jsonl", "number": 2}


def test_defects_that_are_too_many_are_counted(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_bytes(b"\n" * 1002)
    assert main(["audit", "verify", str(file)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3] == "and 2 more"
    assert lines[-1] == "NOT SOUND, defects: 1002"


@pytest.mark.parametrize("name", ["missing.jsonl", "."])
def test_file_that_can_not_be_read_ends_in_2(name: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "verify", str(file), name]) == 2
    assert f"keybroker: {name} can't be read: " in capsys.readouterr().err


@pytest.mark.parametrize("head", ["", "0" * 63, "A" * 64, "0" * 64 + "\n"])
def test_head_of_another_form_ends_in_2(head: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["audit", "verify", str(file), f"--expect-head={head}"])
    assert ended.value.code == 2
    assert "64 digits" in capsys.readouterr().err


def test_standard_input_that_is_closed_is_no_defect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert main(["audit", "verify", "-"]) == 2
    assert capsys.readouterr().err == "keybroker: standard input can't be read: it is closed\n"


def test_report_that_can_not_be_written_is_no_defect(file: Path) -> None:
    command = [sys.executable, "-m", "keybroker", "audit", "verify", str(file)]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (
        2,
        "keybroker: the report can't be written: No space left on device\n",
    )


def test_standard_output_that_is_closed_is_no_defect(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout", None)
    assert main(["audit", "verify", str(file)]) == 2
    assert capsys.readouterr().err == "keybroker: the report can't be written: standard output is closed\n"

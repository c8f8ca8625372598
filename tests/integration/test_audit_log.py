"""The audit log under tampering, under kill -9, and on a disk that is full."""

import io
import json
import os
import random
import shutil
import subprocess
import sys
from contextlib import closing
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from keybroker.__main__ import main
from keybroker.adapters.audit.log import ChainedAuditLog
from keybroker.adapters.audit.reading import defects_of, verify
from keybroker.adapters.audit.verify import Defect, Place, Verifier
from keybroker.adapters.clock import SystemClock
from keybroker.domain.audit import AuditEvent
from tests.integration.tamperings import SHOWN_BY_THE_HEAD, SHOWN_BY_THE_LINES, Lines, cut_beginning
from tests.unit.audit.support import head_of

ROOT = Path(__file__).parents[2]
LINES = 10_000
CHAINS = 5
NUMBERS = range(1000)
KINDS = (*SHOWN_BY_THE_LINES, *SHOWN_BY_THE_HEAD)
IN_WHOLE_EVERY = 50  # so many of them are also verified from the first line to the last, by the command
SEED = 20261124
KILLS = 25
NAME = "audit.jsonl"


@pytest.fixture(scope="module")
def log_lines(tmp_path_factory: pytest.TempPathFactory) -> Lines:
    """Five starts, written by the log itself."""
    file = tmp_path_factory.mktemp("log") / NAME
    for start in range(CHAINS):
        with closing(ChainedAuditLog(file=file, stdout=None, clock=SystemClock(), version="1.0")) as log:
            log.open()
            log.write([an_event(start * LINES + number) for number in range(LINES // CHAINS - 1)])
    lines = file.read_bytes().splitlines(keepends=True)
    assert len(lines) == LINES
    assert verify([(NAME, io.BytesIO(b"".join(lines)))], heads=[head_of(lines)]).is_sound
    return lines


def an_event(number: int) -> AuditEvent:
    caller = f"x509:spiffe://corp.example/ns/team-{number % 7}/sa/app"
    return AuditEvent(f"event-{number}", {"event": "before", "change": "import", "caller": caller, "days": number % 30})


def tampered(lines: Lines, number: int) -> Lines:
    """The log after this one of the tamperings: always the same."""
    others = KINDS[number % len(KINDS)](lines, random.Random(SEED + number))
    assert others != lines, number
    return others


def first_difference(lines: Lines, others: Lines) -> int:
    """The number of the first line, from 0, that is not the same in both."""
    pairs = enumerate(zip(lines, others, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(lines), len(others)))


def forked(verifier: Verifier, heads: frozenset[str] = frozenset()) -> Verifier:
    """Goes on from where the verifier is, and leaves it there."""
    chains = {name: copy(chain) for name, chain in verifier.chains.items()}
    copies = {name: getattr(verifier, name).copy() for name in ("notes", "heads_found", "_places", "_ids")}
    return replace(verifier, heads=heads, chains=chains, **copies)


def first_defect(verifier: Verifier, lines: Lines) -> Defect | None:
    return next(defects_of([(NAME, io.BytesIO(b"".join(lines)))], verifier), None)


def test_each_of_a_thousand_tamperings_is_found_at_its_place(
    log_lines: Lines, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Verified from the first line that differs, by a verifier that has read the untouched lines before it.

    That is what it had come to in a run over the whole, since those lines are the same: what is left out is only time.
    Some are verified in whole all the same.
    """
    verifier, read = Verifier(), 0
    for same, number in sorted(
        (first_difference(log_lines, tampered(log_lines, number)), number) for number in NUMBERS
    ):
        for at in range(read, same):
            assert list(verifier.feed(Place(NAME, at + 1), log_lines[at][:-1])) == []
        read, tamper, lines = same, KINDS[number % len(KINDS)], tampered(log_lines, number)
        what = (tamper.__name__, SEED + number)
        if tamper in SHOWN_BY_THE_HEAD:
            defect = first_defect(forked(verifier, frozenset({head_of(log_lines)})), lines[same:])
            assert defect is not None, what
            assert defect.kind == "head", what
        else:
            defect = first_defect(forked(verifier), lines[same:])
            assert defect is not None, what
            assert defect.place is not None, what
            # in the next line if this was written anew; later if the log begins with what belongs elsewhere
            assert defect.place.number in {1, 2} or same == 0, what
        if number % IN_WHOLE_EVERY == 0:
            found_by_the_command(lines, log_lines, tmp_path, capsys)


def found_by_the_command(lines: Lines, log_lines: Lines, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / NAME
    file.write_bytes(b"".join(lines))
    assert main(["audit", "verify", str(file), "--expect-head", head_of(log_lines)]) == 1
    assert "NOT SOUND" in capsys.readouterr().out


def test_log_whose_first_lines_were_removed_says_where_it_begins(log_lines: Lines) -> None:
    for number in range(20):
        lines = cut_beginning(log_lines, random.Random(SEED + number))[:50]
        report = verify([(NAME, io.BytesIO(b"".join(lines)))])
        assert report.is_sound
        assert report.notes[0].startswith("the log begins at audit.jsonl:1")


def test_log_of_killed_processes_is_sound_and_has_every_event_whose_write_returned(tmp_path: Path) -> None:
    file = tmp_path / NAME
    told = json.loads(python("killed_writers", file, SEED, KILLS))
    with file.open("rb") as lines:
        report = verify([(NAME, lines)])
    assert report.defects == []
    assert len(report.chains) == KILLS
    assert len(told) > KILLS
    whole = file.read_bytes().rpartition(b"\n")[0].splitlines()  # the last one to be killed may have left a torn line
    written = [json.loads(line)["id"] for line in whole]
    assert set(told) <= set(written)
    assert len(written) == len(set(written))


def python(module: str, *arguments: object, before: list[str] | None = None) -> str:
    command = [*(before or []), sys.executable, "-m", f"tests.integration.{module}", *map(str, arguments)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def on_a_full_disk(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What tests.integration.full_disk sees on a tmpfs of its own, which is gone with its process."""
    folder = tmp_path_factory.mktemp("disk")
    unshare = shutil.which("unshare")
    assert unshare is not None, "unshare (util-linux) is needed, to mount a small disk"
    mount = [unshare, "-m" if os.geteuid() == 0 else "-rm", "sh", "-c"]
    mount += ['mount -t tmpfs -o size=64k tmpfs "$0" && exec "$@"', str(folder)]
    allowed = subprocess.run([*mount, "true"], capture_output=True, text=True, check=False)
    assert allowed.returncode == 0, f"no small disk can be mounted here, and this can't be tested: {allowed.stderr}"
    seen: dict[str, Any] = json.loads(python("full_disk", folder, before=mount))
    return seen


def test_full_disk_refuses_events_and_leaves_the_log_sound(on_a_full_disk: dict[str, Any]) -> None:
    seen = on_a_full_disk["running"]
    assert seen["reasons"] == ["AUDIT_UNAVAILABLE"] * 3
    assert seen["grown"] == 0
    assert seen["sound_when_full"]


def test_disk_that_has_space_again_gets_the_refused_events_once(on_a_full_disk: dict[str, Any]) -> None:
    seen = on_a_full_disk["running"]
    assert seen["afterwards"] == ""
    assert seen["each_once"]
    assert seen["sound_afterwards"]


def test_disk_that_is_full_at_the_start_gets_the_first_line_later(on_a_full_disk: dict[str, Any]) -> None:
    assert on_a_full_disk["starting"] == {
        "while_full": "AUDIT_UNAVAILABLE",
        "afterwards": "",
        "lines": ["started", "before"],
        "sound": True,
    }

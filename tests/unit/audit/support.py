"""Lines and logs for the tests of the audit log."""

import io
import itertools
import json
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from keybroker.adapters.audit.lines import Position
from keybroker.adapters.audit.log import ChainedAuditLog
from keybroker.adapters.audit.reading import Report, verify
from keybroker.domain.audit import AuditEvent
from tests.builders import FakeClock

_numbers = itertools.count(1)


def event(**fields: Any) -> AuditEvent:
    number = next(_numbers)
    return AuditEvent(f"event-{number}", {"event": "before", "caller": "x509:dns:a.example", "n": number} | fields)


def chain(name: str, length: int, *, after: str = "") -> list[bytes]:
    """Lines of one process start, with their newlines; `after` is the hash that it is linked to."""
    clock, position = FakeClock(), Position(name, head=after)
    lines = []
    for number in range(length):
        clock.advance(0.25)
        what = event() if number else AuditEvent(f"start-{name}", {"event": "started", "version": "1.0"})
        line, position = position.next_line(what, clock.now())
        lines.append(line)
    return lines


def log_of(*lengths: int) -> list[bytes]:
    """Chains of these lengths, A, B, C…, each linked to the one before."""
    lines: list[bytes] = []
    for name, length in zip("ABCDEFGH", lengths, strict=False):
        lines += chain(name, length, after=head_of(lines))
    return lines


def head_of(lines: Sequence[bytes]) -> str:
    return str(json.loads(lines[-1])["hash"]) if lines else ""


def sealed(line: bytes, **members: Any) -> bytes:
    """The line with other members and a hash that fits: what somebody writes who knows the format."""
    content = json.loads(line) | members
    del content["hash"]
    raw = json.dumps(content, separators=(",", ":"))
    return f'{raw[:-1]},"hash":"{sha256(raw.encode()).hexdigest()}"}}\n'.encode()


def verified(*files: Iterable[bytes], heads: Iterable[str] = ()) -> Report:
    """The report of a log in files f1, f2, …"""
    named = [(f"f{number}", io.BytesIO(b"".join(lines))) for number, lines in enumerate(files, 1)]
    return verify(named, heads=heads)


def found(*files: Iterable[bytes], heads: Iterable[str] = ()) -> list[tuple[str, str]]:
    """Kinds and places of the defects."""
    return [(one.kind.value, str(one.place or "")) for one in verified(*files, heads=heads).defects]


def make_log(file: Path | None, stdout: int | None = None, *, patience_seconds: float = 0.01) -> ChainedAuditLog:
    return ChainedAuditLog(
        file=file, stdout=stdout, clock=FakeClock(), version="1.0", patience_seconds=patience_seconds
    )


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_bytes().splitlines()]


def verified_file(*files: Path, heads: Iterable[str] = ()) -> Report:
    return verify([(file.name, io.BytesIO(file.read_bytes())) for file in files], heads=heads)

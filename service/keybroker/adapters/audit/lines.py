"""One line of the audit log: how it is made, and how it is read again. Pure.

A line is a JSON object in ASCII without spaces. Its last member, `hash`, is the SHA-256 of the object without it; its
`prev` is the `hash` of the line before. What lines mean one after the other is verify.py's. Source: docs/audit.md.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from keybroker.domain.audit import AuditEvent, Value

MAX_LINE_BYTES = 4096  # with the newline: PIPE_BUF on Linux, so a line enters a pipe whole
MAX_VALUE_CHARACTERS = 512
OURS = ("seq", "chain", "prev", "time", "id")  # before the event's fields, in this order
LINE_BEGINS = b'{"seq":'
HASH = re.compile(r"[0-9a-f]{64}")

VISIBLE = re.compile(r"[!-~]{1,100}")  # ASCII: what can be shown as it is

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_RESERVED = {*OURS, "hash"}
_TAIL_LENGTH = len(',"hash":""}') + 64
_CUT = "…"  # \u2026 in the line
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True, slots=True)
class Position:
    """Where a chain stands: the number of its last line, and the hash of the log's. `seq` 0: nothing is written yet."""

    chain: str
    seq: int = 0
    head: str = ""

    def next_line(self, event: AuditEvent, at: datetime) -> tuple[bytes, "Position"]:
        """The line after this position, with its newline, and the position after it.

        Values that are too long are cut and end in "…". Raises ValueError for an event that is no one's input but the
        program's mistake: names that are ours or no names, values of other types, too many fields.
        """
        _check(event)
        ours = dict(zip(OURS, (self.seq + 1, self.chain, self.head, _rfc3339(at), event.id), strict=True))
        limit = MAX_VALUE_CHARACTERS
        while limit:
            content = _encode(ours | {name: _bounded(value, limit) for name, value in event.fields.items()}).encode()
            if len(content) - 1 + _TAIL_LENGTH < MAX_LINE_BYTES:
                digest = sha256(content).hexdigest()
                line = b'%b,"hash":"%b"}\n' % (content[:-1], digest.encode())
                return line, Position(self.chain, self.seq + 1, digest)
            limit //= 2
        raise ValueError(f"an event of {len(event.fields)} fields does not fit into a line")


def _check(event: AuditEvent) -> None:
    if not VISIBLE.fullmatch(event.id):
        raise ValueError("an event's id is 1 to 100 visible ASCII characters")
    for name, value in event.fields.items():
        if name in _RESERVED or not _NAME.fullmatch(name):
            raise ValueError(f"an event's field can't be named {name!r}")
        if not isinstance(value, str | int):
            raise ValueError(f"{name} is a {type(value).__name__}")  # noqa: TRY004  # one error for every mistake


def _bounded(value: Value, limit: int) -> Value:
    if isinstance(value, str) and len(value) > limit:
        return value[: limit - 1] + _CUT
    return value


def _rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Line:
    """A line as it was read."""

    seq: int
    chain: str
    prev: str
    time: str
    id: str
    hash: str
    members: Mapping[str, Any]


class NotALineError(ValueError):
    """What was read is not a line as it was written. `says` is what it says all the same, if it has the form of one."""

    def __init__(self, text: str, says: Line | None = None) -> None:
        super().__init__(text)
        self.says = says


def read_line(raw: bytes) -> Line:
    """Reads a line without its newline. Raises NotALineError if one byte is not as it was written."""
    members = _members(raw)
    if not _has_the_form(members):
        raise NotALineError("it has not the members of a line")
    line = Line(**{name: members[name] for name in (*OURS, "hash")}, members=members)
    if line.hash != sha256(raw[:-_TAIL_LENGTH] + b"}").hexdigest():
        raise NotALineError("its hash does not fit its content: it was changed", line)
    if not _is_as_written(members, raw):
        raise NotALineError("it is not written as the broker writes lines: it was changed", line)
    return line


def _members(raw: bytes) -> dict[str, Any]:
    try:
        members = json.loads(raw.decode("ascii"))
    except (ValueError, RecursionError):
        raise NotALineError("it is not JSON in ASCII") from None
    if not isinstance(members, dict):
        raise NotALineError("it is not a JSON object")
    return members


def _is_as_written(members: dict[str, Any], raw: bytes) -> bool:
    """False for a member that comes twice, spaces, other escapes: a parser may read them differently."""
    try:
        return len(raw) < MAX_LINE_BYTES and _encode(members).encode() == raw
    except (ValueError, RecursionError):
        return False


def _has_the_form(members: Mapping[str, Any]) -> bool:
    names = list(members)
    if tuple(names[: len(OURS)]) != OURS or names[-1] != "hash":
        return False
    seq, prev = members["seq"], members["prev"]
    shown = [members[name] for name in ("chain", "time", "id", "hash")]
    return (
        type(seq) is int
        and seq > 0
        and all(isinstance(text, str) and VISIBLE.fullmatch(text) for text in shown)
        and isinstance(prev, str)
        and (prev == "" or HASH.fullmatch(prev) is not None)
    )

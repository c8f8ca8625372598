"""A line of the audit log, as docs/audit.md describes it."""

import json
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keybroker.adapters.audit.lines import MAX_LINE_BYTES, NotALineError, Position, read_line
from keybroker.domain.audit import AuditEvent
from tests.unit.audit.support import chain, event

AT = datetime(2026, 11, 24, 12, 0, 0, 5, tzinfo=UTC)
GOOD = chain("A", 1)[0][:-1]
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True).filter(
    lambda name: name not in {"seq", "chain", "prev", "time", "id", "hash"}
)
VALUES = st.text(max_size=700) | st.integers() | st.booleans()


def test_line_is_the_one_that_the_format_gives() -> None:
    content = (
        b'{"seq":8,"chain":"A","prev":"' + b"0" * 64 + b'","time":"2026-11-24T12:00:00.000005Z","id":"e-1",'
        b'"event":"before","caller":"\\u00e9","days":7,"ok":true}'
    )
    fields = {"event": "before", "caller": "é", "days": 7, "ok": True}
    line, position = Position("A", 7, "0" * 64).next_line(AuditEvent("e-1", fields), AT)
    digest = sha256(content).hexdigest()
    assert line == content[:-1] + f',"hash":"{digest}"}}\n'.encode()
    assert position == Position("A", 8, digest)


def test_time_of_another_zone_is_written_in_utc() -> None:
    line, _ = Position("A").next_line(event(), AT.astimezone(timezone(timedelta(hours=8))))
    assert json.loads(line)["time"] == "2026-11-24T12:00:00.000005Z"


@given(fields=st.dictionaries(NAMES, VALUES, max_size=12))
def test_line_of_any_event_fits_and_is_read_again(fields: dict[str, Any]) -> None:
    line, position = Position("A").next_line(AuditEvent("e", fields), AT)
    assert len(line) <= MAX_LINE_BYTES
    assert line.isascii()
    assert line.count(b"\n") == 1
    read = read_line(line[:-1])
    assert read.hash == position.head
    for name, value in fields.items():
        kept = read.members[name]
        assert kept == value or (isinstance(value, str) and kept.endswith("…") and value.startswith(kept[:-1]))


def test_value_of_512_characters_is_kept_and_a_longer_one_cut() -> None:
    line, _ = Position("A").next_line(event(fits="a" * 512, long="a" * 513), AT)
    members = json.loads(line)
    assert members["fits"] == "a" * 512
    assert members["long"] == "a" * 511 + "…"


def test_values_that_do_not_fit_together_are_all_cut_further() -> None:
    line, _ = Position("A").next_line(event(**{f"f{n}": "\U0001f511" * 512 for n in range(20)}), AT)
    assert len(line) <= MAX_LINE_BYTES
    assert json.loads(line)["f19"].endswith("…")


@pytest.mark.parametrize("name", ["seq", "chain", "prev", "time", "id", "hash", "", "Caller", "a b", 'a"', "a\n"])
def test_name_that_no_field_can_have_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="can't be named"):
        Position("A").next_line(AuditEvent("e", {name: 1}), AT)


@pytest.mark.parametrize("value", [1.5, None, b"", [], {}])
def test_value_of_another_type_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="x is a "):
        Position("A").next_line(AuditEvent("e", {"x": value}), AT)


@pytest.mark.parametrize("event_id", ["", "a b", "a" * 101, "é", "a\n"])
def test_id_of_another_form_is_refused(event_id: str) -> None:
    with pytest.raises(ValueError, match="an event's id"):
        Position("A").next_line(AuditEvent(event_id, {}), AT)


def test_event_of_too_many_fields_is_refused() -> None:
    with pytest.raises(ValueError, match="an event of 400 fields does not fit"):
        Position("A").next_line(AuditEvent("e", {f"field_{n}": n for n in range(400)}), AT)


def resealed(content: bytes) -> bytes:
    """With the hash of whatever bytes these are."""
    return content[:-1] + f',"hash":"{sha256(content).hexdigest()}"}}'.encode()


CONTENT = GOOD[: GOOD.index(b',"hash"')] + b"}"
FORGED = {
    "blank": b"",
    "not JSON": b"junk",
    "not ASCII": GOOD.replace(b"started", b"start\xc3\xa9d"),
    "no object": b"[1]",
    "an empty object": b"{}",
    "nested beyond reason": b"[" * 4000,
    "carriage return": GOOD + b"\r",
    "a space after it": GOOD + b" ",
    "a space in it": resealed(CONTENT.replace(b",", b", ", 1)),
    "a member twice": resealed(CONTENT[:-1] + b',"event":"started"}'),
    "our member twice": resealed(CONTENT[:-1] + b',"seq":2}'),
    "another order": resealed(b'{"chain":"A","seq":1' + CONTENT[CONTENT.index(b',"prev"') :]),
    "a needless escape": resealed(CONTENT.replace(b"started", b"\\u0073tarted")),
    "not a number": resealed(CONTENT[:-1] + b',"x":NaN}'),
    "not a number that floats hold": resealed(CONTENT[:-1] + b',"x":1e999}'),
    "seq 0": resealed(CONTENT.replace(b'"seq":1', b'"seq":0')),
    "seq true": resealed(CONTENT.replace(b'"seq":1', b'"seq":true')),
    "seq in words": resealed(CONTENT.replace(b'"seq":1', b'"seq":"1"')),
    "prev of another form": resealed(CONTENT.replace(b'"prev":""', b'"prev":"00"')),
    "time a number": resealed(CONTENT.replace(b'"time":"', b'"time":1,"x":"')),
    "chain that would clear the screen": resealed(CONTENT.replace(b'"chain":"A"', b'"chain":"A\\u001b[2Jsound"')),
    "chain of two lines": resealed(CONTENT.replace(b'"chain":"A"', b'"chain":"A\\nsound"')),
    "time of two lines": resealed(CONTENT.replace(b'"time":"', b'"time":"\\n')),
    "hash not last": GOOD[:-1] + b',"x":1}',
    "hash in capitals": GOOD[:-66] + GOOD[-66:].upper(),
    "no hash": CONTENT,
    "too long": resealed(CONTENT[:-1] + b',"x":"' + b"a" * MAX_LINE_BYTES + b'"}'),
}


@pytest.mark.parametrize("name", FORGED)
def test_bytes_that_the_broker_does_not_write_are_no_line(name: str) -> None:
    with pytest.raises(NotALineError):
        read_line(FORGED[name])


def test_line_that_the_forgeries_are_made_of_is_one() -> None:
    assert resealed(CONTENT) == GOOD
    assert read_line(GOOD).seq == 1


@given(st.binary(max_size=200))
def test_any_bytes_are_no_line_and_nothing_worse(raw: bytes) -> None:
    with pytest.raises(NotALineError):
        read_line(raw)


@given(at=st.integers(0, len(GOOD) - 1), byte=st.integers(0, 255))
def test_changed_byte_anywhere_is_no_line(at: int, byte: int) -> None:
    changed = GOOD[:at] + bytes([byte]) + GOOD[at + 1 :]
    if changed != GOOD:
        with pytest.raises(NotALineError):
            read_line(changed)

"""Verification: what is found in a log that was tampered with, and where."""

import io
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keybroker.adapters.audit import reading
from keybroker.adapters.audit.lines import MAX_LINE_BYTES
from tests.unit.audit.support import chain, found, head_of, log_of, sealed, verified

LOG = log_of(6, 5, 4)  # A is lines 1-6, B 7-11, C 12-15

Lines = list[bytes]


def cut_out(first: int, last: int) -> Callable[[Lines], Lines]:
    return lambda lines: lines[: first - 1] + lines[last:]


def put(number: int, line: bytes) -> Callable[[Lines], Lines]:
    """The line in place of the one that has the number."""
    return lambda lines: [*lines[: number - 1], line, *lines[number:]]


def insert(number: int, *added: bytes) -> Callable[[Lines], Lines]:
    """So that the first of the lines gets this number."""
    return lambda lines: [*lines[: number - 1], *added, *lines[number - 1 :]]


def swapped(one: int, other: int) -> Callable[[Lines], Lines]:
    return lambda lines: put(one, lines[other - 1])(put(other, lines[one - 1])(lines))


CHANGED = LOG[2].replace(b"a.example", b"b.example")
CASES = {
    "value changed": (put(3, CHANGED), [("changed", "f1:3")]),
    "hash changed": (put(3, LOG[2][:-6] + b"0000" + LOG[2][-2:]), [("changed", "f1:3")]),
    "number changed": (put(3, LOG[2].replace(b'"seq":3', b'"seq":9')), [("changed", "f1:3")]),
    "link changed": (put(3, LOG[2].replace(b'"prev":"', b'"prev":"00')), [("changed", "f1:3")]),
    "written anew with a hash that fits": (put(3, sealed(LOG[2], caller="b")), [("replaced", "f1:4")]),
    "first line changed": (put(1, LOG[0].replace(b"1.0", b"1.1")), [("changed", "f1:1")]),
    "first line junk": (put(1, b"junk\n"), [("changed", "f1:1")]),
    "last line changed": (put(15, LOG[14].replace(b"a.example", b"b.example")), [("changed", "f1:15")]),
    "lines changed": (lambda lines: put(3, b"x\n")(put(4, b"y\n")(lines)), [("changed", "f1:3"), ("changed", "f1:4")]),
    "line of a chain's start changed": (put(7, b"x\n"), [("changed", "f1:7")]),
    "line of a chain's end changed": (put(6, b"x\n"), [("changed", "f1:6")]),
    "blank line": (insert(3, b"\n"), [("changed", "f1:3")]),
    "carriage return": (put(3, LOG[2][:-1] + b"\r\n"), [("changed", "f1:3")]),
    "trailing junk": (put(3, LOG[2][:-1] + b" \n"), [("changed", "f1:3")]),
    "line changed after one that was removed": (
        lambda lines: cut_out(3, 3)(put(4, b"x\n")(lines)),
        [("changed", "f1:3"), ("missing", "f1:4")],
    ),
    "start changed and the line after it removed": (
        lambda lines: cut_out(8, 8)(put(7, b"x\n")(lines)),
        [("changed", "f1:7"), ("missing", "f1:8")],
    ),
    "number skipped by who knows the format": (put(15, sealed(LOG[14], seq=9)), [("missing", "f1:15")]),
    "number used again by who knows the format": (put(15, sealed(LOG[14], seq=3)), [("order", "f1:15")]),
    "two lines in one": (
        lambda lines: [*lines[:2], lines[2][:-1] + lines[3], *lines[4:]],
        [("changed", "f1:3"), ("missing", "f1:4")],
    ),
    "made-up line": (insert(3, b'{"event":"nothing"}\n'), [("changed", "f1:3")]),
    "far too long line": (insert(3, b"a" * 3 * MAX_LINE_BYTES + b"\n"), [("changed", "f1:3")]),
    "line removed": (cut_out(3, 3), [("missing", "f1:3")]),
    "range removed": (cut_out(3, 5), [("missing", "f1:3")]),
    "range over a start removed": (cut_out(5, 8), [("missing", "f1:5")]),
    "end of a chain removed": (cut_out(5, 6), [("unlinked", "f1:5")]),
    "start of a chain removed": (cut_out(7, 7), [("missing", "f1:7")]),
    "chain removed": (cut_out(7, 11), [("unlinked", "f1:7")]),
    "neighbours swapped": (swapped(3, 4), [("missing", "f1:3"), ("order", "f1:5")]),
    "distant lines swapped": (
        swapped(2, 9),
        [("missing", "f1:2"), ("missing", "f1:3"), ("order", "f1:9"), ("order", "f1:10")],
    ),
    "line repeated": (insert(4, LOG[2]), [("repeated", "f1:4")]),
    "range repeated": (insert(13, *LOG[7:9]), [("repeated", "f1:13"), ("repeated", "f1:14")]),
    "log repeated": (lambda lines: lines + lines, [("repeated", f"f1:{number}") for number in range(16, 31)]),
    "line of another chain in its place": (put(3, LOG[9]), [("missing", "f1:3"), ("missing", "f1:4")]),
    "line of another log inserted": (insert(3, chain("Z", 3)[2]), [("missing", "f1:3")]),
    "start of another log inserted": (insert(3, chain("Z", 1)[0]), [("unlinked", "f1:3")]),
    "chains exchanged": (
        lambda lines: lines[6:11] + lines[:6] + lines[11:],
        [("unlinked", "f1:6"), ("unlinked", "f1:12")],
    ),
    "chain begun anew": (put(7, sealed(LOG[6], prev="")), [("unlinked", "f1:7"), ("replaced", "f1:8")]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_tampered_log_is_found_with_its_place(name: str) -> None:
    tamper, defects = CASES[name]
    assert found(tamper(list(LOG))) == defects


def test_untouched_log_is_sound_in_any_cut_into_files() -> None:
    for at in range(len(LOG) + 1):
        report = verified(LOG[:at], LOG[at:])
        assert report.is_sound
        assert not report.notes
        assert [(one.id, one.first_seq, one.last_seq) for one in report.chains] == [
            ("A", 1, 6),
            ("B", 1, 5),
            ("C", 1, 4),
        ]


def test_files_in_the_wrong_order_are_found() -> None:
    assert found(LOG[6:], LOG[:6]) == [("unlinked", "f2:1")]


def test_chains_are_described() -> None:
    first = verified(LOG[:3], LOG[3:]).chains[0]
    assert (str(first.first_place), str(first.last_place)) == ("f1:1", "f2:3")
    assert (first.first_time, first.last_time) == (json.loads(LOG[0])["time"], json.loads(LOG[5])["time"])
    assert first.version == "1.0"


def test_text_of_a_defect_names_the_line_and_what_it_was_written_after() -> None:
    moved = [*LOG[:2], LOG[3], LOG[2], *LOG[4:]]
    texts = [str(one) for one in verified(moved).defects]
    assert texts == [
        "f1:3: before it, number 3 of its chain is missing (number 4 of chain A)",
        "f1:5: it is out of its place; it was written after f1:3 (number 5 of chain A)",
    ]


@pytest.mark.parametrize(
    ("cut", "note"),
    [
        (3, "the log begins at f1:1 (number 4 of chain A); what came before is not here"),
        (6, "the log begins at f1:1 with a chain that is linked to a line that is not here"),
    ],
)
def test_log_that_begins_later_is_sound_and_says_so(cut: int, note: str) -> None:
    report = verified(LOG[cut:])
    assert report.is_sound
    assert report.notes == [note]


def test_removed_beginning_is_found_by_a_head_of_it() -> None:
    assert found(LOG[3:], heads=[head_of(LOG[:2])]) == [("head", "")]


@pytest.mark.parametrize("kept", range(1, 15))
def test_removed_end_is_found_by_the_head_only(kept: int) -> None:
    assert found(LOG[:kept]) == []
    assert found(LOG[:kept], heads=[head_of(LOG)]) == [("head", "")]


def test_log_written_anew_is_found_by_a_head_only() -> None:
    anew = log_of(6, 5, 4)
    assert found(anew) == []
    assert found(anew, heads=[head_of(LOG[:7])]) == [("head", "")]


def test_log_is_anchored_up_to_the_last_head_that_it_has() -> None:
    report = verified(LOG, heads=[head_of(LOG[:8]), head_of(LOG[:3])])
    assert report.is_sound
    assert report.anchor.startswith("anchored up to f1:8 (number 2 of chain B); ")
    assert verified(LOG).anchor.startswith("not anchored: ")


def test_line_without_an_end_is_a_note_at_the_end_of_the_log_only() -> None:
    report = verified([*LOG[:14], LOG[14][:-1]])
    assert report.is_sound
    assert report.lines == 14
    assert report.notes[0].startswith("f1:15: the last line has no end")
    assert found([*LOG[:6], LOG[6][:20]], LOG[6:]) == [("changed", "f1:7")]


def test_lost_newline_of_the_last_line_is_found_by_its_head() -> None:
    assert found([*LOG[:14], LOG[14][:-1] + b"x"], heads=[head_of(LOG)]) == [("head", "")]


def test_empty_log_is_sound_and_says_so() -> None:
    report = verified([])
    assert (report.is_sound, report.notes) == (True, ["there is no line"])


def test_event_written_twice_is_counted_and_no_defect() -> None:
    lines = log_of(3)
    again = sealed(lines[2], seq=4, prev=head_of(lines))
    report = verified([*lines, again])
    assert report.is_sound
    assert report.notes == ["events written twice, as can be around the death of a process: 1"]


def test_defects_beyond_a_thousand_are_counted_and_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_LISTED", 10)
    report = verified([b"x\n"] * 25)
    assert (report.defect_count, len(report.defects)) == (25, 10)


def test_line_is_read_no_further_than_the_longest_line_goes() -> None:
    class Watched(io.BytesIO):
        longest = 0

        def readline(self, size: int | None = -1, /) -> bytes:
            raw = super().readline(size)
            self.longest = max(self.longest, len(raw))
            return raw

    file = Watched(b"a" * 1_000_000)
    report = reading.verify([("f1", file)])
    assert file.longest == MAX_LINE_BYTES + 1
    assert report.notes[0].startswith("f1:1: the last line has no end")


@st.composite
def tamperings(draw: st.DrawFn) -> Lines:
    """Any other log made of the lines of this one, of copies, and of lines that are no one's; the same end."""
    pool = [*LOG, *chain("Z", 3), b"junk\n", CHANGED]
    return [*draw(st.lists(st.sampled_from(pool), min_size=1, max_size=18)), LOG[14]]


@given(lines=tamperings())
def test_log_put_together_from_lines_is_sound_only_if_it_is_a_part_that_nobody_touched(lines: Lines) -> None:
    untouched = LOG[-len(lines) :] == lines
    assert verified(lines).is_sound == untouched


@given(numbers=st.lists(st.integers(0, 14), min_size=1, unique=True), in_order=st.booleans())
def test_selection_of_lines_is_sound_only_if_nothing_is_missing_inside(numbers: list[int], *, in_order: bool) -> None:
    chosen = sorted(numbers) if in_order else numbers
    report = verified([LOG[number] for number in chosen])
    assert report.is_sound == (chosen == list(range(chosen[0], chosen[0] + len(chosen))))


@given(at=st.integers(0, sum(map(len, LOG)) - 2), byte=st.integers(0, 255))
def test_any_changed_byte_is_found(at: int, byte: int) -> None:
    whole = b"".join(LOG)
    changed = whole[:at] + bytes([byte]) + whole[at + 1 :]
    assert bool(found([changed])) == (changed != whole)


def test_made_up_event_needs_the_whole_rest_written_anew() -> None:
    added = sealed(LOG[3], id="made-up", prev=head_of(LOG[:3]))
    assert found([*LOG[:3], added, *LOG[3:]]) == [("order", "f1:5")]

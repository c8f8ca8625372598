"""Reads the files of an audit log, one after the other, for verify.py, and draws its result up.

A file is read line by line, and no line further than the longest that the broker writes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from keybroker.adapters.audit.lines import MAX_LINE_BYTES
from keybroker.adapters.audit.verify import Chain, Defect, Kind, Place, Verifier

MAX_LISTED = 1000


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it. `defects` are the first MAX_LISTED of `defect_count`. `anchor` is a sentence."""

    lines: int
    chains: list[Chain]
    defect_count: int
    defects: list[Defect]
    notes: list[str]
    anchor: str

    @property
    def is_sound(self) -> bool:
        """No defect was found."""
        return not self.defect_count


def verify(files: Iterable[tuple[str, BinaryIO]], *, heads: Iterable[str] = ()) -> Report:
    """Verifies a log whose parts are given in their order, each with its name. Raises OSError."""
    verifier = Verifier(heads=frozenset(heads))
    listed: list[Defect] = []
    count = 0
    for defect in defects_of(files, verifier):
        count += 1
        if len(listed) < MAX_LISTED:
            listed.append(defect)
    return Report(
        lines=verifier.lines,
        chains=list(verifier.chains.values()),
        defect_count=count,
        defects=listed,
        notes=verifier.notes,
        anchor=_anchor(verifier),
    )


def defects_of(files: Iterable[tuple[str, BinaryIO]], verifier: Verifier) -> Iterator[Defect]:
    """The defects, as they are found. Raises OSError."""
    torn: Place | None = None
    for name, file in files:
        if torn is not None:
            yield Defect(Kind.CHANGED, torn, "the file's last line has no end")
        torn = None
        for number, raw in enumerate(_raw_lines(file), 1):
            if raw.endswith(b"\n"):
                yield from verifier.feed(Place(name, number), raw[:-1])
            else:
                torn = Place(name, number)
    if torn is not None:
        verifier.notes.append(
            f"{torn}: the last line has no end and was left out: it is being written, or its process died"
        )
    if not verifier.lines:
        verifier.notes.append("there is no line")
    yield from verifier.finish()


def _raw_lines(file: BinaryIO) -> Iterator[bytes]:
    """With their newlines. One that is too long is cut, but keeps its end."""
    while raw := file.readline(MAX_LINE_BYTES + 1):
        rest = raw
        while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE_BYTES + 1)
        yield raw if rest is raw else raw + rest[-1:]


def _anchor(verifier: Verifier) -> str:
    if verifier.anchor is None:
        return "not anchored: whoever can write to the log could have written all of it anew (--expect-head)"
    line, place = verifier.anchor
    return (
        f"anchored up to {place} (number {line.seq} of chain {line.chain}); what comes after it, whoever can write to "
        "the log could have written anew"
    )

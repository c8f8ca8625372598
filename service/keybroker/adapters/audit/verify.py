"""Verification of an audit log: a fold over its lines that finds what was changed, removed, added or moved.

Pure: lines come in, defects go out as they are found. It keeps one line, one short record of each chain, and of the
last RECENT lines what it takes to recognise a copy; a repetition over a longer distance is told as out of order.
What can be detected, and what only with a head that was kept elsewhere, is in docs/audit.md.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from keybroker.adapters.audit.lines import VISIBLE, Line, NotALineError, read_line

RECENT = 20_000

_MOVED = "it is out of its place"


class Kind(StrEnum):
    """What is wrong with a line."""

    CHANGED = "changed"
    MISSING = "missing"
    ORDER = "order"
    REPEATED = "repeated"
    REPLACED = "replaced"
    UNLINKED = "unlinked"
    HEAD = "head"


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file, counted from 1."""

    file: str
    number: int

    def __str__(self) -> str:
        return f"{self.file}:{self.number}"


@dataclass(frozen=True, slots=True)
class Defect:
    """Something that can't be in a log that nobody touched. `place` is None for what is nowhere."""

    kind: Kind
    place: Place | None
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}" if self.place else self.text


@dataclass(slots=True)
class Chain:
    """A chain as far as it was read: its numbers, times and places, and the version that its first line tells."""

    id: str
    first_seq: int
    last_seq: int
    first_time: str
    last_time: str
    first_place: Place
    last_place: Place
    version: str


@dataclass(frozen=True, slots=True)
class _Read:
    line: Line
    place: Place

    def is_followed_by(self, line: Line) -> bool:
        """As the broker writes: the next of the chain, or the first of another."""
        seq = self.line.seq + 1 if line.chain == self.line.chain else 1
        return line.seq == seq and line.prev == self.line.hash


@dataclass(slots=True)
class Verifier:
    """Takes lines in their order. `heads` are hashes that the log must have."""

    heads: frozenset[str] = frozenset()
    lines: int = 0
    chains: dict[str, Chain] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    repeated_ids: int = 0
    heads_found: dict[str, _Read] = field(default_factory=dict)
    _last: _Read | None = None  # the last line that follows the one before it
    _aside: _Read | None = None  # a sound line after it that does not: the log may go on from there
    _unsound: int = 0  # lines since _last
    _places: "OrderedDict[str, Place]" = field(default_factory=OrderedDict)  # by hash
    _ids: "OrderedDict[str, None]" = field(default_factory=OrderedDict)

    def feed(self, place: Place, raw: bytes) -> Iterator[Defect]:
        """Takes a line without its newline."""
        self.lines += 1
        try:
            line = read_line(raw)
        except NotALineError as error:
            self._unsound += 1
            yield Defect(Kind.CHANGED, place, f"{error}{_name(error.says)}")
            return
        here = _Read(line, place)
        defect = self._defect(here)
        if defect is not None:
            yield defect
        self._remember(here)

    def finish(self) -> Iterator[Defect]:
        """What only the end tells."""
        if self.repeated_ids:
            self.notes.append(f"events written twice, as can be around the death of a process: {self.repeated_ids}")
        for head in sorted(self.heads - self.heads_found.keys()):
            text = f"head {head} is not in the log: lines were removed at its end, or it was written anew"
            yield Defect(Kind.HEAD, None, text)

    @property
    def anchor(self) -> tuple[Line, Place] | None:
        """The last line that is one of `heads`."""
        found = list(self.heads_found.values())
        return (found[-1].line, found[-1].place) if found else None

    def _defect(self, here: _Read) -> Defect | None:
        if self._last is None and not self._unsound:
            self._note_beginning(here)
        elif not self._follows(here.line):
            defect = self._classified(here)
            if defect.kind is not Kind.REPEATED:
                self._aside = here
            return defect
        self._last, self._aside = here, None
        self._unsound = 0
        return None

    def _follows(self, line: Line) -> bool:
        if self._last is not None and self._last.is_followed_by(line):
            return True
        if self._aside is not None and self._aside.is_followed_by(line):
            return True
        return self._unsound > 0 and self._may_follow_unsound(line)

    def _may_follow_unsound(self, line: Line) -> bool:
        """A line that was changed is told once: by its number, this one stands in its place after it."""
        if self._last is None or line.chain not in self.chains:
            return self._last is None or line.seq <= 1 + self._unsound
        return line.chain == self._last.line.chain and line.seq == self._last.line.seq + 1 + self._unsound

    def _classified(self, here: _Read) -> Defect:
        line = here.line
        copied = self._places.get(line.hash)
        if copied is not None:
            return Defect(Kind.REPEATED, here.place, f"it is a copy of {copied}{_name(line)}")
        kind, text = self._relation(line)
        before = self._places.get(line.prev)
        if before and kind is Kind.REPLACED:
            kind, text = Kind.ORDER, _MOVED
        after = f"; it was written after {before}" if before and kind is not Kind.MISSING else ""
        return Defect(kind, here.place, f"{text}{after}{_name(line)}")

    def _relation(self, line: Line) -> tuple[Kind, str]:
        known = self.chains.get(line.chain)
        if known is None and line.seq == 1:
            return Kind.UNLINKED, "the chain that it begins is not linked to the line before it"
        last = known.last_seq if known else 0
        if line.seq > last + 1:
            gap = f"{last + 1} to {line.seq - 1}" if line.seq > last + 2 else f"{last + 1}"
            return Kind.MISSING, f"before it, number {gap} of its chain is missing"
        before = self._aside or self._last
        if line.seq <= last or before is None or before.line.chain != line.chain:
            return Kind.ORDER, _MOVED
        return Kind.REPLACED, f"it was not written after the line before it ({before.place}), which was replaced"

    def _note_beginning(self, here: _Read) -> None:
        line = here.line
        if line.seq > 1:
            self.notes.append(f"the log begins at {here.place}{_name(line)}; what came before is not here")
        elif line.prev:
            self.notes.append(f"the log begins at {here.place} with a chain that is linked to a line that is not here")

    def _remember(self, here: _Read) -> None:
        line = here.line
        if line.hash in self.heads and line.hash not in self.heads_found:
            self.heads_found[line.hash] = here
        if line.hash not in self._places:
            self.repeated_ids += line.id in self._ids
        self._places.setdefault(line.hash, here.place)
        self._ids[line.id] = None
        for recent in (self._places, self._ids):
            if len(recent) > RECENT:
                recent.popitem(last=False)
        self._extend_chain(here)

    def _extend_chain(self, here: _Read) -> None:
        line = here.line
        chain = self.chains.get(line.chain)
        if chain is None:
            version = str(line.members.get("version", ""))
            version = version if VISIBLE.fullmatch(version) else ""
            numbers, times = (line.seq, line.seq), (line.time, line.time)
            self.chains[line.chain] = Chain(line.chain, *numbers, *times, here.place, here.place, version)
        elif line.seq > chain.last_seq:
            chain.last_seq, chain.last_time, chain.last_place = line.seq, line.time, here.place


def _name(line: Line | None) -> str:
    return f" (number {line.seq} of chain {line.chain})" if line else ""

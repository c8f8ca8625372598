"""The ledger's compare-and-set, what is told from it, and the properties that a single state or answer can break."""

from typing import NamedTuple

from tests.model.options import Options
from tests.model.state import (
    ALREADY_BOUND,
    EMPTY_HAND,
    ENABLED_UNATTRIBUTED,
    GARBAGE,
    IMPORTED,
    NO_EVIDENCE,
    NOT_IMPORTED,
    PREPARED,
    REVOKED,
    SEND,
    TAKEN,
    TELLING,
    TERMINAL,
    UNBOUND,
    UNFINISHED,
    VALID,
    Process,
    Row,
    World,
    put,
    with_process,
)


class Broken(Exception):  # noqa: N818  # reads as what it says
    """A property does not hold; its name is the message."""


class Move(NamedTuple):
    """One step of anybody. `fault`: nobody may count on it. `request`: whose process takes it; -1 is the world."""

    name: str
    world: World
    fault: bool = False
    request: int = -1


class Answer(NamedTuple):
    """What a caller is told. `known`: how much material there was then."""

    state: str
    evidence: str = NO_EVIDENCE
    material: int = 0
    known: int = 0


def tell(options: Options, world: World, request: int, answer: Answer) -> World:
    """The caller of the request learns a terminal answer. Raises Broken for S1, S4 and S5, where they are checked.

    After a restore the ledger may have lost answers. Whoever was told anything but IMPORTED may start over; what was
    told as IMPORTED may become ENABLED_UNATTRIBUTED, nothing else.
    """
    before = world.told[request]
    if answer.state == IMPORTED and answer.material != world.bound:
        _breaks(options, "S1")
    if answer.state == IMPORTED and answer.evidence == NO_EVIDENCE:
        _breaks(options, "S5")
    if not before:
        known = len(world.owners) if options.restore else 0
        return world._replace(told=put(world.told, request, answer._replace(known=known)))
    if before[:3] != answer[:3] and not _may_change(options, world, before, answer):
        _breaks(options, "S4")
    return world


def _breaks(options: Options, name: str) -> None:
    if name in options.checks:
        raise Broken(name)


def _may_change(options: Options, world: World, before: Answer, answer: Answer) -> bool:
    restored = options.restore and world.budget.copies == 0
    return restored and (
        before.state != IMPORTED
        or answer.state == ENABLED_UNATTRIBUTED
        or (answer.state == IMPORTED and answer.material == before.material)
    )


def write(options: Options, world: World, index: int, row: Row, process: object) -> World | None:
    """Compare-and-set of a process's row; None if its copy is stale. Whoever else has a copy has a stale one then."""
    mine = world.processes[index]
    if not options.claims:
        return with_process(world, index, process)
    if not mine.fresh:
        return None
    processes = tuple(
        other._replace(fresh=False) if other and place != index and other.request == mine.request else other
        for place, other in enumerate(world.processes)
    )
    ledger = world.ledger._replace(rows=put(world.ledger.rows, mine.request, row))
    return world._replace(ledger=ledger, processes=put(processes, index, process))


def finish(options: Options, world: World, index: int, answer: Answer) -> World:
    """A terminal state is recorded; it is told from the row, whoever wrote it (R3). Raises Broken for L2."""
    process = world.processes[index]
    if answer.state == ENABLED_UNATTRIBUTED and provable(options, world, process.view):
        _breaks(options, "L2")
    if not options.records_first and process.errand[:1] != (TELLING,):
        told = tell(options, world, process.request, answer)
        return with_process(told, index, process._replace(errand=(TELLING, answer)))
    row = Row(answer.state, answer.material, restored=process.view.restored, evidence=answer.evidence)
    written = write(options, world, index, row, ())
    if written is None:
        return with_process(world, index, _carries_on(options, world, process))
    if not options.claims:
        rows = put(written.ledger.rows, process.request, row)
        written = written._replace(ledger=written.ledger._replace(rows=rows))
    return written


def _carries_on(options: Options, world: World, process: Process) -> object:
    row = world.ledger.rows[process.request]
    if options.looks_anew or row.state != PREPARED or row.material != process.view.material:
        return ()
    return process._replace(view=row, fresh=True)


def holder(options: Options, world: World, request: int) -> Row | None:
    """Another request's row that holds the CMK."""
    for place, row in enumerate(world.ledger.rows):
        if place != request and (row.state in UNFINISHED or row.state in (TAKEN if options.frees else TERMINAL)):
            return row
    return None


def check(options: Options, world: World) -> str | None:
    """S2 and S3 for a state: the name of the broken one."""
    if UNBOUND < world.bound < GARBAGE:
        told = world.told[world.owners[world.bound - 1]]
        if told and told.state in {NOT_IMPORTED, ALREADY_BOUND} and (not options.restore or world.bound <= told.known):
            return "S2"
    if world.bound == UNBOUND and len(capable(options, world)) > 1:
        return "S3"
    return None


def capable(options: Options, world: World) -> set[int]:
    """The broker's materials that a request under way, recorded or repeatable can bind."""
    found = {material for material, _ in world.late}
    for request, row in enumerate(world.ledger.rows):
        repeatable = options.blob_stored or (options.wrapped and request == 0)
        waits = row.restored and options.restored_waits  # R8: never sent while nothing is bound
        if row.state == PREPARED and repeatable and row.blob == VALID and not waits:
            found.add(row.material)
    unrecorded = not options.counts_sends or not options.claims
    for process in world.processes:
        if not process:
            continue
        about_to_send = process.errand[:2] == (SEND, VALID)
        has_blob = options.blob_stored or process.hand != EMPTY_HAND
        if about_to_send or (unrecorded and has_blob and process.view.state == PREPARED and process.view.blob == VALID):
            found.add(process.view.material)
    return found


def provable(options: Options, world: World, row: Row) -> bool:
    """Whether a resend of a PREPARED row would be accepted, so that nobody may call it unattributed (L2)."""
    return (
        options.reading.same_again
        and options.blob_stored
        and row.state == PREPARED
        and row.material == world.bound
        and row.blob == VALID
    )


def owed(world: World, request: int) -> bool:
    """Whether the evidence for a request must not be lost: its material is bound, and no pair of it is expired."""
    row = world.ledger.rows[request]
    return (
        UNBOUND < world.bound < GARBAGE
        and row.material == world.bound
        and row.state in UNFINISHED
        and all(status in {VALID, REVOKED} for status in row.pairs)
    )

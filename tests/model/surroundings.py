"""What happens around the broker: time, late requests, foreign importers, hand-outs, copies of the ledger."""

from collections.abc import Iterator

from tests.model.ledger import Move
from tests.model.options import Options
from tests.model.state import (
    EXPIRED,
    FOREIGN,
    GONE_BY,
    MANY,
    NO_PAIR,
    OVER,
    PREPARED,
    SEEN,
    SOON_SEEN,
    TAKEN,
    UNBOUND,
    UNFINISHED,
    UNSEEN,
    VALID,
    World,
    aged,
    minute_later,
    revoked,
    spend,
)


def bind(options: Options, world: World, material: int) -> World:
    """The CMK takes the material."""
    return world._replace(bound=material, shown=UNSEEN if options.reading.late else SEEN)


def fetched(options: Options, world: World) -> World:
    """The KMS issues a pair; what that does to the others."""
    return revoked(world) if options.reading.newest_only else world


def may_commit(options: Options, status: int) -> bool:
    """Whether a request whose token was checked in time can still commit. Late ones commit in spite of a revocation."""
    return status != OVER if options.reading.late else status == VALID


def moves(options: Options, world: World) -> Iterator[Move]:
    """Everything that is not a step of a process."""
    yield from _time(options, world)
    for message in world.late:
        left = world._replace(late=tuple(other for other in world.late if other != message))
        yield Move("a late request lands and commits", bind(options, left, message[0]))
    yield from _foreign(options, world)
    yield from _hand_out(options, world)
    yield from _copies(options, world)


def _time(options: Options, world: World) -> Iterator[Move]:
    hidden = world.bound != UNBOUND and world.shown != SEEN
    if hidden:
        yield Move("Enabled becomes visible", world._replace(shown=SEEN))
    sooner = world
    if hidden and not options.lag_unbounded:
        sooner = world._replace(shown=SOON_SEEN if world.shown == UNSEEN else SEEN)
    if options.ageing:
        yield Move("pairs age", aged(sooner))
    yield Move("a minute passes", minute_later(sooner))


def _foreign(options: Options, world: World) -> Iterator[Move]:
    if world.budget.foreign == 2:
        yield Move("a foreign importer fetches a pair", spend(fetched(options, world), foreign=1), fault=True)
    if world.budget.foreign == 1:
        done = spend(world, foreign=0)
        yield Move("the foreign importer imports", done if world.bound else bind(options, done, FOREIGN), fault=True)


def _hand_out(options: Options, world: World) -> Iterator[Move]:
    """GetImportParameters. One process keeps check and fetch together by its claim, which no other process sees."""
    asked = world.budget.hand_outs
    if asked == 2 and _may_hand_out(options, world):
        if len(world.processes) == 1:
            yield from _handed(options, world)
        else:
            yield Move("a hand-out looks in the ledger", spend(world, hand_outs=1))
    if asked == 1:
        yield from _handed(options, world)
    if world.handed == VALID and world.bound == UNBOUND:
        bound = bind(options, world._replace(handed=OVER), FOREIGN)
        yield Move("the caller imports past the broker", bound, fault=True)


def _may_hand_out(options: Options, world: World) -> bool:
    if world.shown == SEEN or world.ledger.forgotten not in {NO_PAIR, OVER}:
        return False
    if not options.hand_out_looks:
        return True
    return any(not process for process in world.processes) and not any(
        row.state in UNFINISHED or row.state in TAKEN for row in world.ledger.rows
    )


def _handed(options: Options, world: World) -> Iterator[Move]:
    world = spend(world._replace(ledger=world.ledger._replace(handed_out=True)), hand_outs=0)
    if world.cached != NO_PAIR:
        yield Move("a cached pair is handed out", world._replace(handed=world.cached))
    new = fetched(options, world)._replace(handed=VALID)
    yield Move("a new pair is handed out", new._replace(cached=VALID) if options.cache else new)


def _copies(options: Options, world: World) -> Iterator[Move]:
    if world.budget.copies == 2:
        yield Move("the ledger is copied", spend(world, copies=1)._replace(copy=world.ledger))
    old = world.copy
    if world.budget.copies != 1 or old is None or old == world.ledger:
        return
    if options.knows_restore:
        rows = tuple(
            row._replace(restored=True, open=MANY if row.state == PREPARED else row.open) if row.state else row
            for row in old.rows
        )
        old = old._replace(rows=rows, forgotten=VALID)
    stopped = world._replace(ledger=old, processes=((),) * len(world.processes), cached=NO_PAIR, copy=None)
    yield Move("all processes stop, the copy is restored", spend(stopped, copies=0), fault=True)


def is_over(options: Options, world: World, pairs: tuple[int, ...]) -> bool:
    """Whether nothing sent under these pairs can commit any more, as far as the broker can know (R7, R8)."""
    if options.local_clock:
        return True
    if world.ledger.forgotten not in {NO_PAIR, OVER}:
        return False
    over = {OVER} if options.keeps_margin else {OVER, EXPIRED, GONE_BY}
    return all(status in over for status in pairs)

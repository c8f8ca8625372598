"""What a state of the model is made of: the KMS, the ledger, the processes, what callers were told.

Everything is a tuple, so that states are hashed and compared fast. A pair of import parameters is known by its status
only: two with the same status can do the same. Material is a number from 1 on, in the order of generation.
"""

from collections.abc import Callable
from typing import NamedTuple

from keybroker.domain.attempt import Evidence, State

# Plain strings: an enum's hash is Python code.
NO_ROW = ""
CLAIMED = State.CLAIMED.value
PREPARED = State.PREPARED.value
ACCEPTED = State.ACCEPTED.value
RELEASED = State.RELEASED.value
IMPORTED = State.IMPORTED.value
ENABLED_UNATTRIBUTED = State.ENABLED_UNATTRIBUTED.value
NOT_IMPORTED = State.NOT_IMPORTED.value
ALREADY_BOUND = State.ALREADY_BOUND.value
UNFINISHED = frozenset({CLAIMED, PREPARED, ACCEPTED})
TERMINAL = frozenset({IMPORTED, ENABLED_UNATTRIBUTED, NOT_IMPORTED, ALREADY_BOUND})
TAKEN = frozenset({IMPORTED, ENABLED_UNATTRIBUTED})

NO_EVIDENCE = ""
BY_ACCEPTANCE = Evidence.ACCEPTED.value
BY_PROOF = Evidence.PROVED.value
BY_ASSERTION = Evidence.SOLE_IMPORTER.value

# Status of a pair. OVER: so long expired that nothing checked under it can still commit. GONE_BY: revoked and expired.
NO_PAIR, VALID, EXPIRED, OVER, REVOKED, GONE_BY = range(-1, 5)
_OLDER = {NO_PAIR: NO_PAIR, VALID: EXPIRED, EXPIRED: OVER, OVER: OVER, REVOKED: GONE_BY, GONE_BY: OVER}
_REVOKED = {NO_PAIR: NO_PAIR, VALID: REVOKED, EXPIRED: GONE_BY, OVER: OVER, REVOKED: REVOKED, GONE_BY: GONE_BY}

UNBOUND, GARBAGE, FOREIGN = 0, 8, 9
UNSEEN, SOON_SEEN, SEEN = range(3)  # whether DescribeKey shows what is bound
MANY = 2  # open sends: 0, 1, MANY; MANY never comes down

NOTHING, BOUND, PENDING, REFUSED_SINCE = range(4)  # a process's sight; REFUSED_SINCE: bound, then a resend refused
NOT_SETTLING, LOOKED_ONCE, MINUTE_OVER, SETTLED = range(4)
EMPTY_HAND, BLOB, MATERIAL = range(3)

SEND, SUCCESS, REFUSED, PASSING, TELLING = "send", "success", "refused", "passing", "telling"


class Row(NamedTuple):
    """An attempt in the ledger. `pairs`: the statuses that its sends were made under; `blob`: the last one, kept."""

    state: str = NO_ROW
    material: int = 0
    pairs: tuple[int, ...] = ()
    blob: int = NO_PAIR
    open: int = 0
    first: bool = False
    restored: bool = False
    evidence: str = NO_EVIDENCE


class Process(NamedTuple):
    """A process at work. `fresh`: its copy of the row is current. `errand`: what it is in the middle of."""

    request: int
    view: Row
    fresh: bool = True
    hand: int = EMPTY_HAND
    errand: tuple = ()  # (SEND, status), (SUCCESS,), (REFUSED,), (PASSING,), (TELLING, answer)
    pair: int = NO_PAIR
    settling: int = NOT_SETTLING
    sight: int = NOTHING


class Ledger(NamedTuple):
    """`handed_out`: a pair went to a caller. `forgotten`: age of the youngest pair that a restored ledger may miss."""

    rows: tuple[Row, ...]
    handed_out: bool = False
    forgotten: int = NO_PAIR


class Budget(NamedTuple):
    """How many faults are left. `hand_outs`: 2 to ask for, 1 asked, 0 answered. `copies`: 2 to make, 1 to restore."""

    losses: int
    crashes: int
    passing: int
    foreign: int
    hand_outs: int
    copies: int


class World(NamedTuple):
    """One state. `late`: requests under way, (material, status). `told`: the first terminal answer of each request.

    `owners`: whose each material is. `handed`: the pair that a caller has. `cached`: the pair in the parameter cache.
    """

    bound: int
    shown: int
    late: tuple[tuple[int, int], ...]
    ledger: Ledger
    processes: tuple
    told: tuple
    owners: tuple[int, ...]
    handed: int
    cached: int
    budget: Budget
    copy: Ledger | None = None


def put(values: tuple, index: int, value: object) -> tuple:
    """The tuple with one value changed."""
    return (*values[:index], value, *values[index + 1 :])


def with_process(world: World, index: int, process: object) -> World:
    """The world with one process changed; () is an idle one."""
    return world._replace(processes=put(world.processes, index, process))


def spend(world: World, **left: int) -> World:
    """The world with a smaller budget."""
    return world._replace(budget=world.budget._replace(**left))


def aged(world: World) -> World:
    """Every pair is older by one step."""
    world = minute_later(_with_pairs(world, _OLDER.__getitem__))
    return world._replace(
        ledger=world.ledger._replace(forgotten=_OLDER[world.ledger.forgotten]),
        copy=world.copy and world.copy._replace(forgotten=_OLDER[world.copy.forgotten]),
    )


def revoked(world: World) -> World:
    """A newer pair was issued, and the KMS honours the newest only."""
    return _with_pairs(world, _REVOKED.__getitem__)


def minute_later(world: World) -> World:
    """So much time that a second DescribeKey counts."""
    if not any(process and process.settling == LOOKED_ONCE for process in world.processes):
        return world
    return world._replace(
        processes=tuple(
            process._replace(settling=MINUTE_OVER) if process and process.settling == LOOKED_ONCE else process
            for process in world.processes
        )
    )


def _with_pairs(world: World, change: Callable[[int], int]) -> World:
    return world._replace(
        late=tuple(sorted({(material, change(status)) for material, status in world.late})),
        ledger=_ledger_with_pairs(world.ledger, change),
        processes=tuple(process and _process_with_pairs(process, change) for process in world.processes),
        handed=change(world.handed),
        cached=change(world.cached),
        copy=world.copy and _ledger_with_pairs(world.copy, change),
    )


def _ledger_with_pairs(ledger: Ledger, change: Callable[[int], int]) -> Ledger:
    return ledger._replace(rows=tuple(_row_with_pairs(row, change) for row in ledger.rows))


def _row_with_pairs(row: Row, change: Callable[[int], int]) -> Row:
    if not row.pairs:
        return row
    return row._replace(pairs=tuple(sorted(set(map(change, row.pairs)))), blob=change(row.blob))


def _process_with_pairs(process: Process, change: Callable[[int], int]) -> Process:
    errand = process.errand
    if errand and errand[0] == SEND:
        errand = (SEND, change(errand[1]))
    return process._replace(view=_row_with_pairs(process.view, change), errand=errand, pair=change(process.pair))

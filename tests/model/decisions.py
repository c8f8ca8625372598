"""What a process may decide, on its own copy of the row and what it has seen. Wider than the code where that is safe.

The names of the moves are what test_tie.py compares with the steps of keybroker/domain/import_protocol.py.
"""

from collections.abc import Iterator

from tests.model.ledger import Answer, Move, finish, holder, write
from tests.model.options import Options
from tests.model.state import (
    ACCEPTED,
    ALREADY_BOUND,
    BLOB,
    BOUND,
    BY_ACCEPTANCE,
    BY_ASSERTION,
    BY_PROOF,
    CLAIMED,
    EMPTY_HAND,
    ENABLED_UNATTRIBUTED,
    IMPORTED,
    LOOKED_ONCE,
    MANY,
    MATERIAL,
    MINUTE_OVER,
    NO_EVIDENCE,
    NO_PAIR,
    NO_ROW,
    NOT_IMPORTED,
    NOT_SETTLING,
    NOTHING,
    OVER,
    PENDING,
    PREPARED,
    REFUSED_SINCE,
    RELEASED,
    SEEN,
    SEND,
    SETTLED,
    VALID,
    Process,
    Row,
    World,
    put,
    with_process,
)
from tests.model.surroundings import fetched, is_over


def moves(options: Options, world: World, index: int) -> Iterator[Move]:
    """Every step of one process that is not in the middle of an errand."""
    turn = _Turn(options, world, index)
    yield from turn.looks()
    if turn.view.state == ACCEPTED:
        yield from turn.accepted()
    elif turn.view.state == PREPARED:
        yield from turn.prepared()
        yield from turn.new_pair()
    else:
        yield from turn.claimed()


class _Turn:
    """One process's turn: the facts that its decisions rest on."""

    def __init__(self, options: Options, world: World, index: int) -> None:
        process: Process = world.processes[index]
        self.options, self.world, self.index, self.process, self.view = options, world, index, process, process.view
        self.enabled = process.sight in {BOUND, REFUSED_SINCE}
        self.over = is_over(options, world, process.view.pairs)
        self.in_hand = process.hand == MATERIAL
        self.usable = bool(process.view.pairs) and (options.blob_stored or process.hand != EMPTY_HAND)
        self.closed = process.view.open == 0 and not process.view.restored  # R8: a restored row does not know
        self.generated = len(world.owners)

    def looks(self) -> Iterator[Move]:
        """DescribeKey."""
        process = self.process
        if self.world.shown == SEEN:
            if not self.enabled:
                yield self._kept("sees Enabled", process._replace(sight=BOUND))
            return
        settling = self._settling()
        sight = NOTHING if self.options.rewraps_closed_only else PENDING
        if settling != process.settling or sight != process.sight:
            yield self._kept("sees PendingImport", process._replace(sight=sight, settling=settling))

    def _settling(self) -> int:
        """Two looks at PendingImport after everything was over, a minute apart (R7)."""
        before = self.process.settling
        counts = self.view.state == PREPARED or (self.view.state == CLAIMED and self.world.ledger.forgotten != NO_PAIR)
        if not counts or not self.over:
            return before
        if before == MINUTE_OVER or not self.options.looks_twice:
            return SETTLED
        return max(before, LOOKED_ONCE)

    def accepted(self) -> Iterator[Move]:
        """The KMS said yes; only Enabled is missing."""
        if not self.enabled:
            return
        asks = self.options.proves and self.in_hand
        if asks and self.world.bound == self.view.material:
            yield self._ends("proves", IMPORTED, BY_PROOF)
        if not (asks and self.world.bound != self.view.material):
            yield self._ends("finishes ACCEPTED", IMPORTED, BY_ACCEPTANCE)
        if asks:
            yield self._ends("finishes UNATTRIBUTED", ENABLED_UNATTRIBUTED)

    def claimed(self) -> Iterator[Move]:
        """Nothing was generated."""
        recorded = self.view.state == CLAIMED
        if recorded and not self.enabled:
            yield from self._writes("releases", Row(RELEASED, restored=self.view.restored), ())
        if self.enabled:
            if not recorded:
                yield self._kept("lets go", ())
            elif self.world.ledger.forgotten == NO_PAIR:
                yield self._ends("finishes ALREADY_BOUND", ALREADY_BOUND)
            else:
                yield self._ends("finishes UNATTRIBUTED", ENABLED_UNATTRIBUTED)
            return
        if self.world.ledger.forgotten != NO_PAIR and self.process.settling != SETTLED:
            return  # R8
        if self.process.hand == BLOB:
            yield from self._prepares(self.world.handed)
        elif self.process.pair != NO_PAIR:
            yield from self._prepares(self.process.pair)
        elif not (self.options.wrapped and self.process.request == 0):
            yield self._fetches()
            if self.world.cached != NO_PAIR:
                cached = self.process._replace(pair=self.world.cached)
                yield self._kept("takes the cached pair", cached)

    def prepared(self) -> Iterator[Move]:
        """Every recorded send may have happened."""
        options, view = self.options, self.view
        if self.enabled and not self.closed:
            yield from self._bound()
        settled = self.process.settling == SETTLED
        if self.closed or settled:
            yield self._ends("finishes NOT_IMPORTED", NOT_IMPORTED)
        may_release = self.closed or not options.releases_closed_only
        if may_release and self.generated < options.materials:
            yield from self._writes("releases", Row(RELEASED, restored=view.restored), ())
        if self.usable and self.process.pair == NO_PAIR:
            yield from self._resends()

    def _bound(self) -> Iterator[Move]:
        options, view, process = self.options, self.view, self.process
        if options.adopts:
            yield self._ends("adopts", IMPORTED, NO_EVIDENCE)
        if options.proves and self.in_hand and self.world.bound == view.material:
            yield self._ends("proves", IMPORTED, BY_PROOF)
        known = options.sole_asks_again and self.world.ledger.handed_out
        disproved = options.proves and self.in_hand and self.world.bound != view.material
        if options.asserts_sole and view.first and not view.restored and not known and not disproved:
            yield self._ends("finishes SOLE_IMPORTER", IMPORTED, BY_ASSERTION)
        if process.sight == REFUSED_SINCE or not self.usable or self.over:
            yield self._ends("finishes UNATTRIBUTED", ENABLED_UNATTRIBUTED)

    def _resends(self) -> Iterator[Move]:
        view = self.view
        too_late, too_early = (
            view.blob == OVER and not self.closed,
            view.restored and self.options.restored_waits and not self.enabled,
        )
        if too_late or too_early or (self.closed and self.enabled):
            return
        row = view._replace(open=min(MANY, view.open + 1))
        sending = self._sending(row, view.blob, sight=self.process.sight)
        if self.options.counts_sends and self.options.claims:
            yield from self._writes("resends", row, sending)
        else:
            yield self._kept("resends, recording nothing", sending)

    def new_pair(self) -> Iterator[Move]:
        """Another pair for a row that has one: to wrap the same material again, or other material in its place."""
        rewrap, replace = self._may_rewrap(), self._may_replace()
        if self.process.pair == NO_PAIR:
            if rewrap or replace or self.options.fetches_unresolved:
                yield self._fetches()
            if rewrap and self.world.cached != NO_PAIR:
                yield self._kept("takes the cached pair", self.process._replace(pair=self.world.cached))
            return
        if rewrap:
            yield from self._rewraps(self.process.pair)
        if replace:
            yield from self._prepares(self.process.pair)

    def _may_rewrap(self) -> bool:
        options = self.options
        if not self.in_hand:
            return False
        if not options.rewraps_closed_only:
            return self.process.sight == PENDING
        return not self.enabled and (self.closed or (options.rewraps_expired and self.over))

    def _may_replace(self) -> bool:
        options = self.options
        if self.enabled or self.generated >= options.materials:
            return False
        nothing_bound = self.closed or self.process.settling == SETTLED
        return (options.replaces and nothing_bound) or (options.regenerates and (not self.in_hand or not self.closed))

    def _rewraps(self, status: int) -> Iterator[Move]:
        view = self.view
        pairs = tuple(sorted({*view.pairs, status}))
        row = view._replace(pairs=pairs, blob=status, open=min(MANY, view.open + 1))
        if self.options.rewraps_blindly:
            yield self._kept("rewraps, recording nothing", self._sending(row, status))
        else:
            yield from self._writes("rewraps", row, self._sending(row, status))

    def _prepares(self, status: int) -> Iterator[Move]:
        """Material is generated, wrapped, and recorded with its first send."""
        options, process, view = self.options, self.process, self.view
        material = self.generated + 1
        wrapped = options.wrapped and process.request == 0
        row = Row(
            PREPARED,
            material,
            (status,),
            status,
            1,
            first=view.first and view.state != PREPARED,
            restored=view.restored,
        )
        sending = self._sending(row, status)._replace(hand=BLOB if wrapped else MATERIAL, fresh=True)
        known = self.world._replace(owners=(*self.world.owners, process.request))
        recorded = row if options.counts_sends else row._replace(open=MANY)
        if options.replaces_blindly and view.state == PREPARED:
            after: World | None = with_process(known, self.index, sending._replace(fresh=process.fresh))
        elif view.state == NO_ROW and options.claims:
            after = self._inserted(known, recorded, sending)
        else:
            after = write(options, known, self.index, recorded, sending)
        if after is not None:
            yield Move("prepares", after, request=process.request)

    def _inserted(self, world: World, row: Row, process: Process) -> World:
        """Without R5 the row is written with the blob only, if nobody was faster."""
        rows = world.ledger.rows
        if holder(self.options, world, process.request) or rows[process.request].state not in {NO_ROW, RELEASED}:
            return with_process(self.world, self.index, ())
        ledger = world.ledger._replace(rows=put(rows, process.request, row))
        return with_process(world._replace(ledger=ledger), self.index, process)

    def _fetches(self) -> Move:
        after = fetched(self.options, self.world)
        if self.options.cache:
            after = after._replace(cached=VALID)
        with_pair = after.processes[self.index]._replace(pair=VALID)
        return Move("fetches a pair", with_process(after, self.index, with_pair), request=self.process.request)

    def _sending(self, row: Row, status: int, *, sight: int = NOTHING) -> Process:
        return self.process._replace(view=row, errand=(SEND, status), pair=NO_PAIR, settling=NOT_SETTLING, sight=sight)

    def _kept(self, name: str, process: object) -> Move:
        return Move(name, with_process(self.world, self.index, process), request=self.process.request)

    def _writes(self, name: str, row: Row, process: object) -> Iterator[Move]:
        after = write(self.options, self.world, self.index, row, process)
        if after is not None:
            yield Move(name, after, request=self.process.request)

    def _ends(self, name: str, state: str, evidence: str = NO_EVIDENCE) -> Move:
        material = self.view.material if state == IMPORTED else 0
        answer = Answer(state, evidence, material)
        return Move(name, finish(self.options, self.world, self.index, answer), request=self.process.request)

"""What the broker's processes do: take a request up, send, record replies. What they decide: decisions.py."""

from collections.abc import Iterator

from tests.model import decisions
from tests.model.ledger import Answer, Move, finish, holder, tell, write
from tests.model.options import Options
from tests.model.state import (
    ACCEPTED,
    ALREADY_BOUND,
    BLOB,
    BOUND,
    BY_ACCEPTANCE,
    CLAIMED,
    EMPTY_HAND,
    ENABLED_UNATTRIBUTED,
    GARBAGE,
    IMPORTED,
    MANY,
    NO_PAIR,
    NO_ROW,
    NOT_SETTLING,
    PASSING,
    PREPARED,
    REFUSED,
    REFUSED_SINCE,
    RELEASED,
    SEEN,
    SEND,
    SUCCESS,
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
    spend,
    with_process,
)
from tests.model.surroundings import bind


def moves(options: Options, world: World) -> Iterator[Move]:
    """Every step that a process can take now."""
    for index, process in enumerate(world.processes):
        if not process:
            yield from _take_up(options, world, index)
        elif not process.errand:
            yield Move("the process stops", with_process(world, index, ()), fault=True, request=process.request)
            yield from decisions.moves(options, world, index)
        else:
            if world.budget.crashes:
                crashed = spend(with_process(world, index, ()), crashes=world.budget.crashes - 1)
                yield Move("the process crashes", crashed, fault=True, request=process.request)
            yield from _errand(options, world, index)


def _take_up(options: Options, world: World, index: int) -> Iterator[Move]:
    for request, row in enumerate(world.ledger.rows):
        if row.state in TERMINAL:
            answer = Answer(row.state, row.evidence, row.material)
            if not world.told[request] or world.told[request][:3] != answer[:3]:
                yield Move(f"is told {row.state}", tell(options, world, request, answer), request=request)
        elif row.state == CLAIMED and options.claims and not options.resumes_claims:
            yield from _claim_left_behind(options, world, request)
        elif row.state in UNFINISHED and options.claims:
            yield Move("resumes", with_process(world, index, Process(request, row)), request=request)
            if options.wrapped and request == 0:
                repeated = Process(request, row, hand=BLOB)
                yield Move("is repeated", with_process(world, index, repeated), request=request)
        else:
            yield from _start(options, world, index, request)


def _claim_left_behind(options: Options, world: World, request: int) -> Iterator[Move]:
    """A process that did not claim the CMK itself fetches nothing for it: it lets go of it, or ends it."""
    before = world.ledger.rows[request]
    ended = [("releases", RELEASED)]
    if world.shown == SEEN:
        known = world.ledger.forgotten == NO_PAIR
        ended.append(("ends", ALREADY_BOUND if known else ENABLED_UNATTRIBUTED))
    for name, state in ended:
        rows = put(world.ledger.rows, request, Row(state, restored=before.restored))
        after = world._replace(ledger=world.ledger._replace(rows=rows))
        stale = tuple(at and at._replace(fresh=at.fresh and at.request != request) for at in world.processes)
        yield Move(f"{name} a claim left behind", after._replace(processes=stale), request=request)


def _start(options: Options, world: World, index: int, request: int) -> Iterator[Move]:
    """A request without a row, or with one that was RELEASED."""
    other = holder(options, world, request) if options.claims else None
    if other is not None and other.state not in TAKEN:
        return  # IMPORT_IN_PROGRESS
    if other is not None or world.shown == SEEN:
        answer = Answer(ALREADY_BOUND if world.ledger.forgotten == NO_PAIR else ENABLED_UNATTRIBUTED)
        if not world.told[request] or world.told[request][:3] != answer[:3]:
            yield Move(f"is told {answer.state}", tell(options, world, request, answer), request=request)
        return
    wrapped = options.wrapped and request == 0
    if wrapped and world.handed == NO_PAIR:
        return
    ledger = world.ledger
    first = not (wrapped or ledger.handed_out or ledger.forgotten != NO_PAIR or any(row.state for row in ledger.rows))
    row = Row(CLAIMED, first=first, restored=ledger.rows[request].restored)
    hand = BLOB if wrapped else EMPTY_HAND
    if options.claims and options.claims_first:
        claimed = world._replace(ledger=ledger._replace(rows=put(ledger.rows, request, row)))
        yield Move("claims", with_process(claimed, index, Process(request, row, hand=hand)), request=request)
    else:
        begun = Process(request, row._replace(state=NO_ROW), hand=hand)
        yield Move("sees PendingImport, writes nothing", with_process(world, index, begun), request=request)


def _errand(options: Options, world: World, index: int) -> Iterator[Move]:
    process = world.processes[index]
    kind = process.errand[0]
    if kind == SEND:
        yield from _send(options, world, index)
    elif kind == TELLING:
        recorded = finish(options, world, index, process.errand[1])
        yield Move("records what it told", recorded, request=process.request)
    else:
        yield _record(options, world, index)


def _send(options: Options, world: World, index: int) -> Iterator[Move]:
    """The send that was recorded last, with every fate that the network and the KMS have for it."""
    process = world.processes[index]
    material, status, budget = process.view.material, process.errand[1], world.budget
    accepted = status == VALID and (world.bound == UNBOUND or (world.bound == material and options.reading.same_again))

    def ends(name: str, then: World, *errand: str, fault: bool = True) -> Move:
        return Move(name, with_process(then, index, process._replace(errand=errand)), fault, process.request)

    done = world
    if accepted and world.bound == UNBOUND:
        done = bind(options, world, material)
    yield ends("accepted" if accepted else "refused", done, SUCCESS if accepted else REFUSED, fault=False)
    if options.garbage and accepted and world.bound == UNBOUND:
        yield ends("accepted as garbage", bind(options, world, GARBAGE), SUCCESS)
    if budget.losses:
        less = budget.losses - 1
        yield ends("the reply is lost", spend(done, losses=less))
        yield ends("the request is lost", spend(world, losses=less))
        if world.bound == UNBOUND and status == VALID:
            late = world._replace(late=tuple(sorted({*world.late, (material, status)})))
            yield ends("the request is under way", spend(late, losses=less))
        if accepted and not options.final_codes_only:
            yield ends("accepted, and a 500 is read as a refusal", spend(done, losses=less), REFUSED)
    if budget.passing and status == VALID:
        yield ends("refused in passing", spend(world, passing=budget.passing - 1), PASSING)


def _record(options: Options, world: World, index: int) -> Move:
    """What a reply taught is written on the row, as long as the row names the same material."""
    process = world.processes[index]
    request, view, errand = process.request, process.view, process.errand[0]
    if errand != SUCCESS and not (options.counts_sends and options.claims):
        kept = _after_refusal(options, process, errand)
        return Move("counts a refusal in memory", with_process(world, index, kept), request=request)
    if options.claims and not process.fresh:
        row = world.ledger.rows[request]
        same = row.state == PREPARED and row.material == view.material
        again = process._replace(view=row, fresh=True, pair=NO_PAIR, settling=NOT_SETTLING) if same else ()
        return Move("finds the row changed", with_process(world, index, again), request=request)
    if errand != SUCCESS:
        kept = _after_refusal(options, process, errand)
        return Move("records the refusal", _written(options, world, index, kept), request=request)
    if not options.records_first and world.shown == SEEN:
        answer = Answer(IMPORTED, BY_ACCEPTANCE, view.material)
        return Move("tells before it records", finish(options, world, index, answer), request=request)
    row = view._replace(state=ACCEPTED)
    kept = process._replace(view=row, errand=(), pair=NO_PAIR, settling=NOT_SETTLING)
    return Move("records the success", _written(options, world, index, kept), request=request)


def _written(options: Options, world: World, index: int, process: Process) -> World:
    written = write(options, world, index, process.view, process)
    if written is None:
        raise ValueError("only a current row is written here")
    return written


def _after_refusal(options: Options, process: Process, errand: str) -> Process:
    """A reply closes its own send (R1)."""
    left = process.view.open if process.view.open == MANY else max(0, process.view.open - 1)
    sight = process.sight
    if sight == BOUND and (errand == REFUSED or not options.passing_is_passing):
        sight = REFUSED_SINCE
    return process._replace(view=process.view._replace(open=left), errand=(), sight=sight)

"""Breadth-first search over all states of a configuration, so that the first violation has a shortest trace."""

from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.model import processes, surroundings
from tests.model.ledger import Broken, Move, check, owed
from tests.model.options import Options
from tests.model.state import IMPORTED, NO_PAIR, OVER, UNBOUND, Budget, Ledger, Process, Row, World
from tests.model.surroundings import may_commit

LIMIT = 4_000_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a configuration. `broken`: the property that fails, with the moves that lead there."""

    states: int
    broken: str = ""
    trace: tuple[str, ...] = ()
    answers: frozenset[str] = field(default=frozenset())


def initial(options: Options) -> World:
    """Nothing has happened."""
    return World(
        bound=UNBOUND,
        shown=0,
        late=(),
        ledger=Ledger((Row(),) * options.requests),
        processes=((),) * options.processes,
        told=((),) * options.requests,
        owners=(),
        handed=NO_PAIR,
        cached=NO_PAIR,
        budget=Budget(
            losses=options.losses,
            crashes=options.crashes,
            passing=options.passing,
            foreign=2 if options.foreign else 0,
            hand_outs=2 if options.hand_out else 0,
            copies=2 if options.restore else 0,
        ),
    )


def explore(options: Options) -> Verdict:
    """Looks at every state. Raises OverflowError past LIMIT."""
    return _Search(options).run()


def transitions(options: Options) -> Iterator[tuple[Row, str, Row]]:
    """Every way in which a process changes a row in the states of a configuration: before, the move's name, after."""
    search = _Search(options)
    search.run()
    for world in search.states:
        for move in successors(options, world):
            before, after = world.ledger.rows[move.request], move.world.ledger.rows[move.request]
            if move.request >= 0 and before != after:
                yield before, move.name, after


def successors(options: Options, world: World) -> Iterator[Move]:
    """All moves. Raises Broken when an answer breaks a property that is checked."""
    yield from surroundings.moves(options, world)
    yield from processes.moves(options, world)


def normal(options: Options, world: World) -> World:
    """One state for all that differ in nothing that matters: dead messages, the order of processes."""
    late, at_work, cached = world.late, world.processes, world.cached
    if late:
        late = () if world.bound else tuple(message for message in late if may_commit(options, message[1]))
    if options.stale_is_idle:
        at_work = tuple(process and _without_stale(process) for process in at_work)
    if len(at_work) > 1:
        at_work = tuple(sorted(at_work))
    if cached == OVER:
        cached = NO_PAIR
    return world._replace(late=late, processes=at_work, cached=cached)


def _without_stale(process: Process) -> object:
    """A stale process can end its errand; its copy of the row is of no use any more."""
    if process.fresh:
        return process
    if not process.errand:
        return ()
    view = Row(process.view.state, process.view.material)
    return Process(process.request, view, fresh=False, hand=process.hand, errand=process.errand, sight=process.sight)


class _Search:
    def __init__(self, options: Options) -> None:
        self._options = options
        self.states: list[World] = []
        self._index: dict[World, int] = {}
        self._parent = array("l")
        self._via: list[str] = []
        self._edges = array("l")
        self._parts: dict[object, object] = {}

    def run(self) -> Verdict:
        self._add(normal(self._options, initial(self._options)), -1, "")
        queue = deque([0])
        while queue:
            number = queue.popleft()
            try:
                for move in successors(self._options, self.states[number]):
                    broken = self._follow(number, move, queue)
                    if broken:
                        return self._verdict(broken, len(self.states) - 1)
            except Broken as broken:
                return self._verdict(str(broken), number, "a process ends it, or a caller is told")
        return self._liveness()

    def _follow(self, number: int, move: Move, queue: deque[int]) -> str:
        world = normal(self._options, move.world)
        known = self._index.get(world)
        if known is None:
            known = self._add(
                world, number, f"request {move.request + 1} {move.name}" if move.request >= 0 else move.name
            )
            queue.append(known)
            broken = check(self._options, world)
            if broken in self._options.checks:
                return broken or ""
        if not move.fault and known != number:
            self._edges.append(number)
            self._edges.append(known)
        return ""

    def _add(self, world: World, parent: int, via: str) -> int:
        if len(self.states) >= LIMIT:
            raise OverflowError(f"{self._options.name}: more than {LIMIT} states")
        shared = self._parts.setdefault
        world = world._replace(
            ledger=shared(world.ledger, world.ledger),
            processes=shared(world.processes, world.processes),
            told=shared(world.told, world.told),
            budget=shared(world.budget, world.budget),
        )
        number = self._index[world] = len(self.states)
        self.states.append(world)
        self._parent.append(parent)
        self._via.append(shared(via, via))
        return number

    def _liveness(self) -> Verdict:
        answers = frozenset(" ".join(filter(None, told[:2])) for world in self.states for told in world.told if told)
        checks = self._options.checks
        if "L1" in checks:
            stuck = self._stuck([all(world.told) for world in self.states], [True] * len(self.states))
            if stuck is not None:
                return self._verdict("L1", stuck)
        for request in range(self._options.requests if "L2" in checks else 0):
            told = [bool(w.told[request]) and w.told[request].state == IMPORTED for w in self.states]
            stuck = self._stuck(told, [owed(world, request) for world in self.states])
            if stuck is not None:
                return self._verdict("L2", stuck)
        return Verdict(len(self.states), answers=answers)

    def _stuck(self, goal: list[bool], asked: list[bool]) -> int | None:
        """The first asked state from which no way without a fault leads to the goal."""
        reached = bytearray(goal)
        edges = self._edges
        changed = True
        while changed:
            changed = False
            for place in range(len(edges) - 2, -1, -2):
                if reached[edges[place + 1]] and not reached[edges[place]]:
                    reached[edges[place]] = 1
                    changed = True
        return next((number for number, ask in enumerate(asked) if ask and not reached[number]), None)

    def _verdict(self, broken: str, number: int, last: str = "") -> Verdict:
        trace = [last] if last else []
        while number > 0:
            trace.append(self._via[number])
            number = self._parent[number]
        return Verdict(len(self.states), broken, tuple(reversed(trace)))

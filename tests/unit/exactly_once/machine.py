"""The state machine: Hypothesis draws a KMS, an operator's choices, and what happens."""

from collections.abc import Callable

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.unit.exactly_once.ending import PAST_EXPIRY_SECONDS, SETTLING_SECONDS, converge
from tests.unit.exactly_once.events import PLACES, Event, Fault, Interrupt, What
from tests.unit.exactly_once.faults import PROVES_NOTHING, REFUSALS
from tests.unit.exactly_once.requests import Request, everybody, makers, rivals
from tests.unit.exactly_once.site import Readings, Site

_OPERATIONS = (
    *("ImportKeyMaterial",) * 4,
    *("CreateKey",) * 2,
    "GetParametersForImport",
    "DescribeKey",
    "CreateAlias",
    "ListKeys",
    "Encrypt",
)
_SECONDS = (2, 15, SETTLING_SECONDS, 340, 24 * 3600 - 30, PAST_EXPIRY_SECONDS)

operations = st.sampled_from(_OPERATIONS)
times = st.sampled_from((1, 1, 6))
lost = st.builds(
    Fault,
    operations,
    st.sampled_from(sorted(PROVES_NOTHING)),
    st.sampled_from(("before", "after", "late", "checked")),
    times,
)
refused = st.builds(Fault, operations, st.sampled_from(sorted(REFUSALS)), st.just("before"), times)
lost_all = Fault("ImportKeyMaterial", times=9)
under_way = (Fault("ImportKeyMaterial", fate="late"), lost_all)
checked = (Fault("ImportKeyMaterial", fate="checked"), lost_all)
creation_lost = tuple((Fault("CreateKey", fate=fate),) for fate in ("before", "after", "late"))
faults = st.lists(lost | refused, max_size=2).map(tuple) | st.sampled_from(
    ((), (lost_all,), under_way, checked, *creation_lost)
)
numbers = st.integers(0, 11)
processes = st.integers(0, 1)


def _calls(interrupts: st.SearchStrategy[tuple[Interrupt, ...]]) -> st.SearchStrategy[Event]:
    whats = st.sampled_from((What.CALL,) * 5 + (What.CONSENT, What.RECOVER, What.HAND_OUT))
    return st.builds(Event, whats, numbers, processes, faults, interrupts)


elsewhere = st.one_of(
    st.builds(
        Event,
        st.sampled_from((What.FOREIGN_IMPORT, What.FOREIGN_FETCH, What.FOREIGN_TAG, What.FOREIGN_ALIAS)),
        st.integers(0, 3),
    ),
    st.just(Event(What.LAND)),
    st.builds(Event, st.just(What.MOVE), st.sampled_from(_SECONDS)),
)
stops = st.sampled_from((Event(What.CRASH), Event(What.CRASH), Event(What.LEDGER_FAILS), Event(What.COPY_LEDGER)))
places = st.sampled_from(PLACES)
within = st.builds(Interrupt, places, stops | elsewhere, st.integers(1, 2))
around = st.builds(
    Interrupt, places, stops | elsewhere | _calls(st.lists(within, max_size=1).map(tuple)), st.integers(1, 2)
)
calls = _calls(st.lists(around, max_size=2).map(tuple))

readings = st.builds(
    Readings,
    same_material_reimport=st.booleans(),
    newest_token_only=st.booleans(),
    enabled_lag_seconds=st.sampled_from((0.0, 3.0, 59.0)),
    enabled_after_describes=st.integers(0, 1),
    tag_filters_ignored=st.booleans(),
    tag_filter_lag_seconds=st.sampled_from((0.0, 1.0, 30.0)),
    encrypt_works=st.booleans(),
    prove=st.booleans(),
    sole_importer=st.booleans(),
)


class ExactlyOnce(RuleBasedStateMachine):
    """Every rule is an event; the site checks its invariants after each."""

    site: Site | None = None

    @initialize(chosen=readings, people=st.sampled_from((rivals, makers, everybody)))
    def _start(self, chosen: Readings, people: Callable[[], list[Request]]) -> None:
        self.site = Site(chosen, people(), cmks=1 if people is rivals else 2)

    @rule(event=calls)
    def _call(self, event: Event) -> None:
        self._at().happen(event)

    @rule(event=calls)
    def _call_again(self, event: Event) -> None:
        """Calls are what most steps should be."""
        self._at().happen(event)

    @rule(event=elsewhere)
    def _elsewhere(self, event: Event) -> None:
        self._at().happen(event)

    @rule(process=processes)
    def _recover(self, process: int) -> None:
        self._at().happen(Event(What.RECOVER, process=process))

    @rule(process=processes)
    def _restart(self, process: int) -> None:
        self._at().happen(Event(What.RESTART, process=process))

    @rule(number=st.integers(0, 3), process=processes)
    def _delete_orphan(self, number: int, process: int) -> None:
        self._at().happen(Event(What.DELETE_ORPHAN, number, process))

    @rule(seconds=st.sampled_from((-90_000, -3600, 3600, 90_000)))
    def _set_local_clock(self, seconds: int) -> None:
        self._at().happen(Event(What.LOCAL_CLOCK, seconds))

    @rule(what=st.sampled_from((What.COPY_LEDGER, What.COPY_LEDGER, What.RESTORE_LEDGER)))
    def _copy_or_restore(self, what: What) -> None:
        self._at().happen(Event(what))

    def teardown(self) -> None:
        if self.site is None:
            return
        try:
            if not self.site.truth.broken:
                converge(self.site)
        finally:
            self.site.close()

    def _at(self) -> Site:
        if self.site is None:
            raise AssertionError("initialize comes first")
        return self.site

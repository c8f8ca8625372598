"""The state machine: Hypothesis draws a KMS, an operator's choices, and what happens."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.unit.exactly_once.ending import PAST_EXPIRY_SECONDS, SETTLING_SECONDS, converge
from tests.unit.exactly_once.events import PLACES, Event, Fault, Interrupt, What
from tests.unit.exactly_once.faults import PROVES_NOTHING, REFUSALS
from tests.unit.exactly_once.requests import EVERYBODY, MAKERS, RIVALS, People
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
_AROUND_THE_SEND = (
    "claim: after",
    "GetParametersForImport: before",
    "prepare: after",
    "send: before",
    "ImportKeyMaterial: before",
    "ImportKeyMaterial: after",
    "refusal: after",
    "acceptance: before",
    "finish: before",
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
places = st.sampled_from(_AROUND_THE_SEND) | st.sampled_from(PLACES)
within = st.builds(Interrupt, places, stops | elsewhere, st.integers(1, 2))
around = st.builds(
    Interrupt,
    places,
    stops | elsewhere | _calls(st.lists(within, max_size=1).map(tuple)),
    st.integers(1, 2),
)
calls = _calls(st.lists(around, max_size=2).map(tuple))
recoveries = st.builds(Event, st.just(What.RECOVER), process=processes)
restarts = st.builds(Event, st.just(What.RESTART), process=processes)
orphans = st.builds(Event, st.just(What.DELETE_ORPHAN), st.integers(0, 3), processes)
clock_settings = st.builds(Event, st.just(What.LOCAL_CLOCK), st.sampled_from((-90_000, -3600, 3600, 90_000)))
copies = st.sampled_from((Event(What.COPY_LEDGER), Event(What.COPY_LEDGER), Event(What.RESTORE_LEDGER)))
renewals = st.just(Event(What.RENEW))
_WEIGHTS = {calls: 10, renewals: 2, elsewhere: 3, recoveries: 3, restarts: 1, orphans: 1, clock_settings: 1, copies: 1}
events = st.sampled_from([each for each, weight in _WEIGHTS.items() for _ in range(weight)]).flatmap(lambda each: each)

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
    """One rule, an event: rules of their own would be drawn alike, however much calls matter more."""

    site: Site | None = None

    @initialize(chosen=readings, people=st.sampled_from((RIVALS, MAKERS, EVERYBODY)))
    def _start(self, chosen: Readings, people: People) -> None:
        self.site = Site(chosen, people)

    @rule(event=events)
    def _happen(self, event: Event) -> None:
        self._at().happen(event)

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

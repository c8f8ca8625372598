"""For each seeded bug the shortest run that shows it; without the bug the same run is sound.

Random search finds many of these bugs within a few hundred steps; those that need a certain second of a certain day,
or three things in a row, only in the long runs (tests/soak).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.unit.exactly_once.ending import converge
from tests.unit.exactly_once.events import Event, Fault, Interrupt, What
from tests.unit.exactly_once.requests import EVERYBODY
from tests.unit.exactly_once.site import Readings, Site

_WITHOUT_BLOB = 2  # places among EVERYBODY
_NEW_WITH_ALIAS = 6
_DAY_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Scenario:
    """What happens, at which kind of KMS. `breaks`: how the message of what it breaks begins."""

    breaks: str
    events: Sequence[Event]
    readings: Readings = Readings()  # noqa: RUF009  # frozen

    def play(self) -> None:
        """Raises Broken."""
        site = Site(self.readings, EVERYBODY)
        try:
            for event in self.events:
                site.happen(event)
            converge(site)
        finally:
            site.close()


def _call(number: int, *faults: Fault, process: int = 0, at: Sequence[Interrupt] = ()) -> Event:
    return Event(What.CALL, number, process, faults, tuple(at))


def _recover(*faults: Fault, process: int = 1) -> Event:
    return Event(What.RECOVER, 0, process, faults)


def _lost(fate: str = "before", *, error: str = "timeout", times: int = 1) -> Fault:
    return Fault("ImportKeyMaterial", error, fate, times)  # type: ignore[arg-type]


_LOST_ALL = _lost(times=9)
_UNDER_WAY = (_lost("late"), _LOST_ALL)
_LAST_MOMENT = (
    _call(0, _LOST_ALL),
    Event(What.MOVE, _DAY_SECONDS - 30),
    _recover(_lost("checked"), _LOST_ALL),
)
"""Material whose token was checked just before its expiry is under way."""

_NO_SECOND_IMPORT = Readings(same_material_reimport=False)
_PROVING = Readings(same_material_reimport=False, prove=True)
_RESEND_LOST = Interrupt("send: before", _recover(_lost("after")))

SCENARIOS: Mapping[str, Scenario] = {
    "resend_not_counted": Scenario("S2", [_call(0, at=[_RESEND_LOST])], _NO_SECOND_IMPORT),
    "refusals_judged_in_memory": Scenario("S2", [_call(0, at=[_RESEND_LOST])], _NO_SECOND_IMPORT),
    "server_error_is_refusal": Scenario("S2", [_call(0, _lost("after", error="500"))], _NO_SECOND_IMPORT),
    "nonce_used_is_refusal": Scenario("S2", [_call(0, _lost("after", error="nonce used"))], _NO_SECOND_IMPORT),
    "told_before_recorded": Scenario("S4", [_call(0, _lost("after")), Event(What.RESTART), _call(0)], _PROVING),
    "loser_tells_its_own": Scenario(
        "S4", [_call(0, _lost("after"), at=[Interrupt("finish: before", _recover())]), _call(0)], _PROVING
    ),
    "failure_keeps_the_cmk": Scenario("L1", [_call(0, _lost(error="403"))]),
    "failure_frees_the_request_id": Scenario(
        "S4",
        [
            _call(0, _LOST_ALL),
            Event(What.MOVE, 2 * _DAY_SECONDS),
            _call(0),
            Event(What.MOVE, 62),
            _call(0),
            _call(0),
        ],
    ),
    "pair_before_claim": Scenario(
        "L2",
        [_call(1, process=1, at=[Interrupt("GetParametersForImport: before", _call(0, _LOST_ALL))])],
        Readings(newest_token_only=True),
    ),
    "hand_out_beside_claims": Scenario(
        "L2", [_call(0, at=[Interrupt("send: before", Event(What.HAND_OUT, 0, 1))])], Readings(newest_token_only=True)
    ),
    "rewrap_beside_open_send": Scenario("L2", [_call(0, _lost("late"))], Readings(newest_token_only=True)),
    "one_look_settles": Scenario(
        "S2", [*_LAST_MOMENT, Event(What.MOVE, 340), _recover(), _call(0)], Readings(enabled_lag_seconds=59.0)
    ),
    "no_margin": Scenario(
        "S2", [*_LAST_MOMENT, Event(What.MOVE, 40), _recover(), Event(What.MOVE, 62), _recover(), _call(0)]
    ),
    "expiry_by_the_local_clock": Scenario(
        "S2",
        [
            _call(_WITHOUT_BLOB, *_UNDER_WAY),
            Event(What.LOCAL_CLOCK, _DAY_SECONDS + 3600),
            _recover(),
            Event(What.MOVE, 62),
            _recover(),
            _call(_WITHOUT_BLOB),
        ],
    ),
    "restore_not_recognised": Scenario(
        "S3", [Event(What.COPY_LEDGER), _call(0, *_UNDER_WAY), Event(What.RESTORE_LEDGER), _call(1)]
    ),
    "no_embargo": Scenario(
        "S3", [Event(What.COPY_LEDGER), _call(0, *_UNDER_WAY), Event(What.RESTORE_LEDGER), _call(1)]
    ),
    "restored_rows_not_marked": Scenario(
        "S2",
        [
            _call(0, _lost(error="token"), *_UNDER_WAY, at=[Interrupt("refusal: after", Event(What.COPY_LEDGER))]),
            Event(What.RESTORE_LEDGER),
            _recover(),
            _call(0),
        ],
    ),
    "regenerated_on_time_out": Scenario("S3", [_call(0, *_UNDER_WAY), _call(0)]),
    "enabled_is_success": Scenario("S1", [_call(0, _LOST_ALL), Event(What.FOREIGN_IMPORT), _call(0)]),
    "adopted_unverified": Scenario(
        "adopted", [_call(_NEW_WITH_ALIAS, Fault("CreateKey"))], Readings(tag_filters_ignored=True)
    ),
    "adopted_by_tag_alone": Scenario("adopted", [Event(What.FOREIGN_TAG), _call(_NEW_WITH_ALIAS, Fault("CreateKey"))]),
    "adopted_by_alias": Scenario(
        "adopted",
        [
            _call(
                _NEW_WITH_ALIAS,
                Fault("CreateKey"),
                at=[Interrupt("create: before", Event(What.FOREIGN_ALIAS))],
            )
        ],
    ),
    "created_again": Scenario(
        "CMKs", [_call(_NEW_WITH_ALIAS, Fault("CreateKey", fate="late")), _call(_NEW_WITH_ALIAS)]
    ),
}

FOUND: Mapping[str, Scenario] = {
    "the record of a CreateKey fails": Scenario(
        "CMKs", [_call(_NEW_WITH_ALIAS, at=[Interrupt("created: before", Event(What.LEDGER_FAILS))])]
    ),
    "a claim is of the future": Scenario(
        "L1",
        [
            _call(0, at=[Interrupt("claim: after", Event(What.CRASH))]),
            Event(What.LOCAL_CLOCK, -3 * _DAY_SECONDS),
        ],
    ),
}
"""Runs that the state machine found to break an invariant, before the broker was mended."""

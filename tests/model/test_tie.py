"""Ties keybroker/domain/import_protocol.py to the model, both ways: steps, and what each does to the row."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import product

import pytest

from keybroker.domain import import_protocol as protocol
from keybroker.domain.attempt import Attempt, Evidence, Failure, Kind, State
from keybroker.domain.errors import Reason
from keybroker.domain.external_key import CmkName, ExternalKey, KeyState
from keybroker.domain.import_protocol import Means, Seen, Sight, Step, Wrapped
from tests.model import decisions, state
from tests.model.explore import initial, transitions
from tests.model.options import Options, Reading
from tests.model.state import BLOB, EMPTY_HAND, FOREIGN, MANY, MATERIAL, NO_PAIR, OVER, SEEN, VALID, Process, Row

NAMES = {
    Step.RESEND: "resends",
    Step.REWRAP: "fetches a pair",
    Step.PROVE: "proves",
    Step.FINISH_ACCEPTED: "finishes ACCEPTED",
    Step.FINISH_SOLE_IMPORTER: "finishes SOLE_IMPORTER",
    Step.FINISH_UNATTRIBUTED: "finishes UNATTRIBUTED",
    Step.FINISH_NOT_IMPORTED: "finishes NOT_IMPORTED",
    Step.FINISH_ALREADY_BOUND: "finishes ALREADY_BOUND",
    Step.RELEASE: "releases",
}
NOW = datetime(2026, 1, 1, tzinfo=UTC)
CMK = CmkName("1", "cn-hangzhou", "key-1")
KEY = ExternalKey(CMK, "arn", "kst-1", None, KeyState.ENABLED, "EXTERNAL")
FAILURES = (
    None,
    Reason.IMPORT_TOKEN_EXPIRED,
    Reason.WRAPPED_KEY_MATERIAL_REFUSED,
    Reason.KMS_THROTTLED,
    Reason.KMS_ACCESS_DENIED,
)
OPEN_ROWS = tuple(
    Row(state.PREPARED, 1, (VALID,), VALID, open_, first=first, restored=restored)
    for open_, first, restored in product((0, 1, MANY), (False, True), (False, True))
)
ROWS = (Row(state.CLAIMED), Row(state.CLAIMED, restored=True), *OPEN_ROWS, Row(state.ACCEPTED, 1, (VALID,), VALID, 1))


@dataclass(frozen=True)
class Case:
    row: Row
    seen: Seen
    means: Means

    def allowed(self) -> frozenset[str]:
        """The moves of a process in the model's states that look so to it."""
        return _allowed(replace(self, means=replace(self.means, may_retry=False, may_rewrap=False)))

    def look_alikes(self) -> frozenset[str]:
        own = (1,) if self.row.material and not self.means.disproved else ()
        bound = (*own, FOREIGN) if self.seen.sight is Sight.BOUND else (state.UNBOUND,)
        return frozenset(move.name for material in bound for move in self._moves(material))

    def _moves(self, bound: int) -> Iterator[decisions.Move]:
        means, age = self.means, OVER if self.seen.expired else VALID
        options = Options(
            name="tie",
            materials=3,
            blob_stored=means.blob,
            proves=means.may_prove or means.disproved,
            asserts_sole=means.sole_importer,
        )
        row = self.row._replace(pairs=(age,), blob=age) if self.row.pairs else self.row
        hand = MATERIAL if means.material else BLOB if means.blob and row.material else EMPTY_HAND
        process = Process(0, row, hand=hand, sight=self._sight(), settling=state.SETTLED if self.seen.settled else 0)
        world = initial(options)
        ledger = world.ledger._replace(rows=(row,), forgotten=age if means.after_restore else NO_PAIR)
        shown = SEEN if bound else state.UNSEEN
        world = world._replace(bound=bound, shown=shown, ledger=ledger, processes=(process,), owners=(0,))
        return decisions.moves(options, world, 0)

    def _sight(self) -> int:
        if self.seen.sight is not Sight.BOUND:
            return state.NOTHING
        return state.REFUSED_SINCE if self.seen.resend_refused else state.BOUND


@cache
def _allowed(case: Case) -> frozenset[str]:
    return case.look_alikes()


def _seen() -> Iterator[Seen]:
    for sight, expired, settled, refused in product(Sight, *[(False, True)] * 3):
        if not settled or (expired and sight in {Sight.PENDING, Sight.GONE}):
            yield Seen(sight, expired, settled, refused)


def _means() -> Iterator[Means]:
    for flags in product((False, True), repeat=8):
        means = Means(*flags)
        holds_what_it_needs = means.blob if means.material else not means.may_rewrap
        if holds_what_it_needs and (not means.disproved or (means.material and not means.may_prove)):
            yield means


def cases() -> Iterator[Case]:
    for row, seen, means in product(ROWS, _seen(), _means()):
        if means.after_restore or not row.restored:
            yield Case(row, seen, means)


def _decided(case: Case) -> set[Step]:
    attempts = [attempt_of(case.row, failure) for failure in FAILURES]
    return {protocol.decide(attempt, case.seen, case.means) for attempt in attempts}


def steps_not_allowed() -> list[tuple[Case, Step]]:
    return [
        (case, step)
        for case in cases()
        for step in _decided(case) - {Step.LOOK}
        if NAMES[step] not in case.allowed() and not _is_of_a_deleted_cmk(case, step)
    ]


def _is_of_a_deleted_cmk(case: Case, step: Step) -> bool:
    """The model has no deletion. A CMK that is gone for good has no material, whatever it had."""
    return case.seen.sight is Sight.GONE and case.seen.settled and step is Step.FINISH_NOT_IMPORTED


def decisions_never_made() -> dict[tuple[str, bool, bool, bool], set[str]]:
    made, allowed = defaultdict(set), defaultdict(set)
    for case in cases():
        where = (case.row.state, case.row.open == 0, case.row.restored, case.seen.sight is Sight.BOUND)
        made[where] |= {NAMES[step] for step in _decided(case) - {Step.LOOK}}
        allowed[where] |= case.allowed() & set(NAMES.values())
        if case.row.state == state.CLAIMED:
            allowed[where].discard(NAMES[Step.REWRAP])  # the first pair is fetched by the use case that claimed
    return {where: names - made[where] for where, names in allowed.items() if names - made[where]}


def test_decide_every_row_and_sight_takes_a_step_of_the_model() -> None:
    assert steps_not_allowed() == []


def test_decide_over_all_rows_makes_every_decision_of_the_model() -> None:
    assert decisions_never_made() == {}


def attempt_of(row: Row, failure: Reason | None = None) -> Attempt:
    sends = {0: 1, 1: 1, MANY: 4}[row.open] if row.pairs else 0
    return Attempt(
        record_id="r",
        caller="c",
        request_id="q",
        kind=Kind.IMPORT,
        request_digest=b"",
        region="cn-hangzhou",
        dkms_instance_id="kst-1",
        state=State(row.state),
        cmk=CMK,
        first=row.first,
        restored=row.restored,
        material_id=str(row.material or ""),
        sends=sends,
        refused=sends if row.open == 0 else 0,
        pair_expiries=tuple(map(expiry, row.pairs)),
        import_token=str(row.blob) if row.blob != NO_PAIR else "",
        wrapped_key_material=b"w" if row.blob != NO_PAIR else b"",
        check_value=b"v" if row.material else b"",
        failure=None if failure is None else Failure(failure.value, ""),
    )


def expiry(status: int) -> datetime:
    """Every status has its own."""
    return NOW + timedelta(days=status)

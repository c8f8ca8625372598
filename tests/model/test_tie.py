"""Ties keybroker/domain/import_protocol.py to the model, both ways: steps, and what each does to the row."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
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
from tests.model.ledger import Move
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

    def _moves(self, bound: int) -> Iterator[Move]:
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
    for sight, *flags in product(Sight, *[(False, True)] * (len(fields(Seen)) - 1)):
        seen = Seen(sight, *flags)
        if not seen.settled or (seen.expired and sight in {Sight.PENDING, Sight.GONE}):
            yield seen


def _means() -> Iterator[Means]:
    for flags in product((False, True), repeat=len(fields(Means))):
        means = Means(*flags)
        if means.awaits_caller and (means.material or means.sole_importer):
            continue  # a caller's own material: never in hand, and the first attempt with it has had a pair handed out
        holds_what_it_needs = means.blob if means.material else not means.may_rewrap
        if holds_what_it_needs and (not means.disproved or (means.material and not means.may_prove)):
            yield means


def cases() -> Iterator[Case]:
    for row, seen, means in product(ROWS, _seen(), _means()):
        if means.after_restore or not row.restored:
            yield Case(row, seen, means)


@cache
def _table() -> tuple[tuple[Case, frozenset[str]], ...]:
    return tuple((case, case.allowed()) for case in cases())


@cache
def _attempts(row: Row) -> tuple[Attempt, ...]:
    return tuple(attempt_of(row, failure) for failure in FAILURES)


def _decided(case: Case) -> set[Step]:
    return {protocol.decide(attempt, case.seen, case.means) for attempt in _attempts(case.row)} - {Step.LOOK}


def steps_not_allowed() -> list[tuple[Case, Step]]:
    return [
        (case, step)
        for case, allowed in _table()
        for step in _decided(case)
        if NAMES[step] not in allowed and not _is_of_a_deleted_cmk(case, step)
    ]


def _is_of_a_deleted_cmk(case: Case, step: Step) -> bool:
    """The model has no deletion. A CMK that is gone for good has no material, whatever it had."""
    return case.seen.sight is Sight.GONE and case.seen.settled and step is Step.FINISH_NOT_IMPORTED


def decisions_never_made() -> dict[tuple[str, bool, bool, bool], set[str]]:
    made, possible = defaultdict(set), defaultdict(set)
    for case, allowed in _table():
        where = (case.row.state, case.row.open == 0, case.row.restored, case.seen.sight is Sight.BOUND)
        made[where] |= {NAMES[step] for step in _decided(case)}
        possible[where] |= allowed & set(NAMES.values())
        if case.row.state == state.CLAIMED:
            possible[where].discard(NAMES[Step.REWRAP])  # the first pair is fetched by the use case that claimed
    return {where: names - made[where] for where, names in possible.items() if names - made[where]}


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


def row_of(attempt: Attempt, statuses: dict[datetime, int]) -> Row:
    """What the model sees of an attempt."""
    ended = attempt.state.value in state.TERMINAL
    imported = attempt.state is State.IMPORTED
    keeps = attempt.state.value in {state.PREPARED, state.ACCEPTED}
    return Row(
        state=attempt.state.value,
        material=int(attempt.material_id or 0) if keeps or imported else 0,
        pairs=tuple(sorted({statuses[at] for at in attempt.pair_expiries})) if keeps else (),
        blob=int(attempt.import_token) if attempt.import_token else NO_PAIR,
        open=min(MANY, attempt.open_sends) if keeps else 0,
        first=attempt.first if not ended and attempt.state is not State.RELEASED else False,
        restored=attempt.restored,
        evidence=attempt.evidence.value if attempt.evidence else state.NO_EVIDENCE,
    )


def _wrapped(row: Row) -> Wrapped:
    return Wrapped(str(row.blob), b"w", expiry(row.blob), "RSAES_OAEP_SHA_256")


Change = Callable[[Attempt, Row], Attempt]
NO_FAILURE = Failure(Reason.NOT_IMPORTED.value, "")
CHANGES: dict[str, Change] = {
    "claims": lambda before, after: protocol.claimed(before, CMK, first=after.first),
    "prepares": lambda before, after: protocol.prepared(
        before, _wrapped(after), material_id=str(after.material), check_value=b"v", parameters="fetched"
    ),
    "resends": lambda before, _: protocol.resent(before),
    "rewraps": lambda before, after: protocol.rewrapped(before, _wrapped(after)),
    "records the success": lambda before, _: protocol.accepted(
        before, kms_request_id="k", at=NOW, public_key_digest=b""
    ),
    "records the refusal": lambda before, _: protocol.refused(before, NO_FAILURE),
    "proves": lambda before, _: protocol.imported(before, Evidence.PROVED, KEY),
    "finishes ACCEPTED": lambda before, _: protocol.imported(before, Evidence.ACCEPTED, KEY),
    "finishes SOLE_IMPORTER": lambda before, _: protocol.imported(before, Evidence.SOLE_IMPORTER, KEY),
    "finishes UNATTRIBUTED": lambda before, _: protocol.unattributed(before),
    "finishes NOT_IMPORTED": lambda before, _: protocol.not_imported(before, NO_FAILURE),
    "finishes ALREADY_BOUND": lambda before, _: protocol.already_bound(before),
    "releases": lambda before, _: protocol.released(before, None),
    "releases a claim left behind": lambda before, _: protocol.released(before, None),
    "ends a claim left behind": lambda before, after: (
        protocol.already_bound(before) if after.state == state.ALREADY_BOUND else protocol.unattributed(before)
    ),
}
WALKED = (
    Options(name="tie", passing=1, asserts_sole=True, requests=2),
    Options(name="tie, restored", restore=True, crashes=0),
    Options(name="tie, wrapped", reading=Reading(newest_only=True), hand_out=True, wrapped=True, passing=1),
)
STATUSES = {expiry(status): status for status in range(5)}


@cache
def walked() -> frozenset[tuple[Row, str, Row]]:
    return frozenset(change for options in WALKED for change in transitions(options))


def changes_that_differ() -> list[tuple[Row, str, Row]]:
    return [
        (before, name, after)
        for before, name, after in walked()
        if row_of(CHANGES[name](_before(before), after), STATUSES) != after
    ]


def _before(row: Row) -> Attempt:
    """A row that is not there yet is one that was claimed with nothing before."""
    return attempt_of(row if row.state else row._replace(state=state.RELEASED))


def test_transitions_of_the_model_are_what_the_code_writes() -> None:
    assert changes_that_differ() == []


def test_transitions_of_the_code_are_all_made_by_the_model() -> None:
    assert {name for _, name, _ in walked()} == set(CHANGES)


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        (Step.LOOK, Step.FINISH_NOT_IMPORTED),
        (Step.RESEND, Step.REWRAP),
        (Step.RESEND, Step.RELEASE),
        (Step.FINISH_UNATTRIBUTED, Step.FINISH_SOLE_IMPORTER),
        (Step.FINISH_ALREADY_BOUND, Step.FINISH_UNATTRIBUTED),
    ],
)
def test_tie_with_a_wrong_step_seeded_notices(monkeypatch: pytest.MonkeyPatch, given: Step, wrong: Step) -> None:
    decide = protocol.decide
    already = set(steps_not_allowed())

    def seeded(attempt: Attempt, seen: Seen, means: Means) -> Step:
        step = decide(attempt, seen, means)
        return wrong if step is given else step

    monkeypatch.setattr(protocol, "decide", seeded)
    assert set(steps_not_allowed()) - already


@pytest.mark.parametrize("step", list(NAMES))
def test_tie_with_a_step_never_taken_notices(monkeypatch: pytest.MonkeyPatch, step: Step) -> None:
    decide = protocol.decide

    def seeded(attempt: Attempt, seen: Seen, means: Means) -> Step:
        decided = decide(attempt, seen, means)
        return Step.LOOK if decided is step else decided

    monkeypatch.setattr(protocol, "decide", seeded)
    assert decisions_never_made()


@pytest.mark.parametrize(
    "change",
    [
        ("resent", lambda attempt: attempt),
        ("released", lambda attempt, _: replace(attempt, state=State.RELEASED)),
        ("unattributed", lambda attempt: replace(attempt, state=State.IMPORTED)),
        ("accepted", lambda attempt, **_: attempt),
    ],
    ids=lambda change: change[0],
)
def test_tie_with_a_wrong_transition_seeded_notices(
    monkeypatch: pytest.MonkeyPatch, change: tuple[str, Callable[..., Attempt]]
) -> None:
    monkeypatch.setattr(protocol, *change)
    assert changes_that_differ()

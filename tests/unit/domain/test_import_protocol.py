"""The decision table of the import protocol, row by row, and every way in which a ledger row changes."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from keybroker.domain import import_protocol as protocol
from keybroker.domain.attempt import HOLDS_CMK, TERMINAL, UNFINISHED, Attempt, Evidence, Failure, Kind, State
from keybroker.domain.errors import REASONS, Reason
from keybroker.domain.external_key import CmkName, ExternalKey, KeyState
from keybroker.domain.import_protocol import (
    BOND_REFUSALS,
    LATE_COMMIT,
    SETTLING,
    SIGHTS,
    Means,
    Seen,
    Sight,
    Step,
    Wrapped,
    decide,
)
from keybroker.domain.key_spec import AES_256

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CMK = CmkName("1540355698840000", "cn-hangzhou", "key-1")
THROTTLED = Failure("KMS_THROTTLED", "Slow down.")
DENIED = Failure("KMS_ACCESS_DENIED", "Denied.")
EXPIRED = Failure("IMPORT_TOKEN_EXPIRED", "Too late.")


def row(state: State, **changes: object) -> Attempt:
    made = Attempt(
        record_id="8a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4e",
        caller="a caller",
        request_id="8a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d",
        kind=Kind.IMPORT,
        request_digest=b"",
        region="cn-hangzhou",
        dkms_instance_id="kst-example",
        state=state,
        version=7,
        cmk=CMK,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


CLAIMED = row(State.CLAIMED)
OPEN = row(
    State.PREPARED,
    first=True,
    sends=1,
    pair_expiries=(NOW,),
    import_token="a-token",
    wrapped_key_material=b"blob",
    check_value=b"abc",
    material_id="m",
)
ACCEPTED = replace(OPEN, state=State.ACCEPTED)
HALF_OPEN = replace(OPEN, sends=2, refused=1, failure=DENIED)
REFUSED = replace(OPEN, refused=1)

NOTHING, PENDING, BOUND = Seen(), Seen(Sight.PENDING), Seen(Sight.BOUND)
GONE, OTHER = Seen(Sight.GONE), Seen(Sight.OTHER)
SETTLED = Seen(Sight.PENDING, expired=True, settled=True)
NO_MEANS, BLOB = Means(), Means(blob=True)
HAND = Means(blob=True, material=True, may_retry=True, may_rewrap=True)
ALL = replace(HAND, may_prove=True, sole_importer=True)

TABLE: dict[str, tuple[Attempt, Seen, Means, Step]] = {
    "claimed, bound": (CLAIMED, BOUND, NO_MEANS, Step.FINISH_ALREADY_BOUND),
    "claimed, bound, after a restore (R8)": (CLAIMED, BOUND, Means(after_restore=True), Step.FINISH_UNATTRIBUTED),
    "claimed, not looked": (CLAIMED, NOTHING, NO_MEANS, Step.RELEASE),
    "claimed, pending": (CLAIMED, PENDING, NO_MEANS, Step.RELEASE),
    "claimed, gone": (CLAIMED, GONE, NO_MEANS, Step.RELEASE),
    # open sends, not expired, blob or material at hand, Enabled or not: the identical blob again
    "open, not looked": (OPEN, NOTHING, BLOB, Step.RESEND),
    "open, pending": (OPEN, PENDING, BLOB, Step.RESEND),
    "open, bound": (OPEN, BOUND, BLOB, Step.RESEND),
    "open, bound, resend before proof and assertion": (OPEN, BOUND, ALL, Step.RESEND),
    "half open is open (R1)": (HALF_OPEN, PENDING, BLOB, Step.RESEND),
    "open, being deleted": (OPEN, OTHER, BLOB, Step.LOOK),
    "open, gone, not expired": (OPEN, GONE, BLOB, Step.LOOK),
    "open, pending, resend refused": (OPEN, replace(PENDING, resend_refused=True), BLOB, Step.LOOK),
    "open, nothing to resend, not looked": (OPEN, NOTHING, NO_MEANS, Step.LOOK),
    "open, nothing to resend, pending": (OPEN, PENDING, NO_MEANS, Step.LOOK),
    # open sends, Enabled, and no resend left
    "open, bound, resend refused, proof": (OPEN, replace(BOUND, resend_refused=True), ALL, Step.PROVE),
    "open, bound, resend refused, assertion": (
        OPEN,
        replace(BOUND, resend_refused=True),
        replace(ALL, may_prove=False),
        Step.FINISH_SOLE_IMPORTER,
    ),
    "open, bound, resend refused, neither": (
        OPEN,
        replace(BOUND, resend_refused=True),
        HAND,
        Step.FINISH_UNATTRIBUTED,
    ),
    "open, bound, nothing to resend": (OPEN, BOUND, NO_MEANS, Step.FINISH_UNATTRIBUTED),
    "open, bound, nothing to resend, assertion": (OPEN, BOUND, Means(sole_importer=True), Step.FINISH_SOLE_IMPORTER),
    "open, bound, expired": (OPEN, replace(BOUND, expired=True), BLOB, Step.FINISH_UNATTRIBUTED),
    "open, bound, expired, proof": (OPEN, replace(BOUND, expired=True), ALL, Step.PROVE),
    "open, bound, proof without material": (
        OPEN,
        BOUND,
        Means(may_prove=True),
        Step.FINISH_UNATTRIBUTED,
    ),
    "open, bound, assertion but not the first attempt": (
        replace(OPEN, first=False),
        BOUND,
        Means(sole_importer=True),
        Step.FINISH_UNATTRIBUTED,
    ),
    "open, bound, assertion but disproved": (
        OPEN,
        BOUND,
        Means(material=True, sole_importer=True, disproved=True),
        Step.FINISH_UNATTRIBUTED,
    ),
    "open, bound, assertion but a restored row (R8)": (
        replace(OPEN, restored=True),
        BOUND,
        Means(sole_importer=True),
        Step.FINISH_UNATTRIBUTED,
    ),
    "open, bound, assertion but a restored ledger (R8)": (
        OPEN,
        BOUND,
        Means(sole_importer=True, after_restore=True),
        Step.FINISH_UNATTRIBUTED,
    ),
    # expired, and settled or not (R7)
    "open, expired, pending, not settled": (OPEN, Seen(Sight.PENDING, expired=True), BLOB, Step.LOOK),
    "open, settled but not expired": (OPEN, Seen(Sight.PENDING, settled=True), NO_MEANS, Step.LOOK),
    "open, expired and settled": (OPEN, SETTLED, BLOB, Step.FINISH_NOT_IMPORTED),
    "open, expired and settled, with all means": (OPEN, SETTLED, ALL, Step.FINISH_NOT_IMPORTED),
    "open, gone, expired and settled": (OPEN, replace(SETTLED, sight=Sight.GONE), BLOB, Step.FINISH_NOT_IMPORTED),
    "open, being deleted, expired and settled": (OPEN, replace(SETTLED, sight=Sight.OTHER), BLOB, Step.LOOK),
    # restored rows: open sends count as unknown (R8)
    "restored, pending": (replace(OPEN, restored=True), PENDING, BLOB, Step.LOOK),
    "restored, not looked": (replace(OPEN, restored=True), NOTHING, BLOB, Step.LOOK),
    "restored, bound": (replace(OPEN, restored=True), BOUND, BLOB, Step.RESEND),
    "restored, all refused": (replace(REFUSED, restored=True, failure=DENIED), PENDING, BLOB, Step.LOOK),
    "restored, expired and settled": (replace(OPEN, restored=True), SETTLED, BLOB, Step.FINISH_NOT_IMPORTED),
    # no open send: judged on the row (R1, R2)
    "refused for good": (replace(REFUSED, failure=DENIED), NOTHING, HAND, Step.FINISH_NOT_IMPORTED),
    "refused for good, bound by somebody else": (
        replace(REFUSED, failure=DENIED),
        BOUND,
        ALL,
        Step.FINISH_NOT_IMPORTED,
    ),
    "refused without a reason on record": (REFUSED, NOTHING, HAND, Step.FINISH_NOT_IMPORTED),
    "refused for now, time left": (replace(REFUSED, failure=THROTTLED), NOTHING, HAND, Step.RESEND),
    "refused for now, no time left": (replace(REFUSED, failure=THROTTLED), NOTHING, BLOB, Step.RELEASE),
    "refused for now, nothing to resend": (
        replace(REFUSED, failure=THROTTLED),
        NOTHING,
        Means(may_retry=True),
        Step.RELEASE,
    ),
    "refused for now, bound by somebody else": (replace(REFUSED, failure=THROTTLED), BOUND, HAND, Step.RELEASE),
    "token refused, material in hand (R6)": (replace(REFUSED, failure=EXPIRED), NOTHING, HAND, Step.REWRAP),
    "token refused, bound by somebody else": (
        replace(REFUSED, failure=EXPIRED),
        BOUND,
        HAND,
        Step.FINISH_NOT_IMPORTED,
    ),
    "token refused, material gone": (replace(REFUSED, failure=EXPIRED), NOTHING, BLOB, Step.FINISH_NOT_IMPORTED),
    "token refused again": (
        replace(REFUSED, failure=EXPIRED),
        NOTHING,
        replace(HAND, may_rewrap=False),
        Step.FINISH_NOT_IMPORTED,
    ),
    "token refused, another send open: no new pair (R6)": (
        replace(HALF_OPEN, failure=EXPIRED),
        NOTHING,
        HAND,
        Step.RESEND,
    ),
    # the KMS said that it accepted
    "accepted, bound": (ACCEPTED, BOUND, NO_MEANS, Step.FINISH_ACCEPTED),
    "accepted, bound, proof": (ACCEPTED, BOUND, ALL, Step.PROVE),
    "accepted, bound, disproved: the garbage case": (
        ACCEPTED,
        BOUND,
        Means(material=True, disproved=True),
        Step.FINISH_UNATTRIBUTED,
    ),
    "accepted, not looked": (ACCEPTED, NOTHING, BLOB, Step.LOOK),
    "accepted, pending": (ACCEPTED, PENDING, BLOB, Step.LOOK),
    "accepted, pending, expired and settled": (ACCEPTED, SETTLED, BLOB, Step.LOOK),
    "accepted, being deleted": (ACCEPTED, OTHER, BLOB, Step.LOOK),
    "accepted, gone": (ACCEPTED, GONE, BLOB, Step.LOOK),
    "accepted, gone, expired and settled": (
        ACCEPTED,
        replace(SETTLED, sight=Sight.GONE),
        BLOB,
        Step.FINISH_NOT_IMPORTED,
    ),
}

_BOOLS = (False, True)
SIGHTINGS = [Seen(sight, *flags) for sight in Sight for flags in product(_BOOLS, repeat=3)]
MEANS = [Means(*flags) for flags in product(_BOOLS, repeat=8)]


@pytest.mark.parametrize(("attempt", "seen", "means", "step"), TABLE.values(), ids=TABLE.keys())
def test_decide_is_the_table(attempt: Attempt, seen: Seen, means: Means, step: Step) -> None:
    assert decide(attempt, seen, means) is step


@pytest.mark.parametrize("state", sorted(set(State) - {State.CLAIMED, State.PREPARED, State.ACCEPTED}))
def test_decide_has_nothing_to_say_of_other_states(state: State) -> None:
    with pytest.raises(ValueError, match=state.value):
        decide(row(state), NOTHING, NO_MEANS)


def test_open_send_is_never_told_as_not_imported_before_it_is_expired_and_settled() -> None:
    """S2, S3: over everything that can be seen and done."""
    for seen, means in product(SIGHTINGS, MEANS):
        if seen.expired and seen.settled:
            continue
        for attempt in (OPEN, HALF_OPEN, replace(REFUSED, restored=True), ACCEPTED):
            assert decide(attempt, seen, means) not in {Step.FINISH_NOT_IMPORTED, Step.RELEASE, Step.REWRAP}


def test_imported_is_never_said_unless_the_cmk_was_seen_bound() -> None:
    """S1, S5."""
    imported = {Step.FINISH_ACCEPTED, Step.FINISH_SOLE_IMPORTER, Step.PROVE}
    for seen, means, attempt in product(SIGHTINGS, MEANS, (CLAIMED, OPEN, HALF_OPEN, REFUSED, ACCEPTED)):
        if decide(attempt, seen, means) in imported:
            assert seen.sight is Sight.BOUND
            assert attempt.state is not State.CLAIMED


def test_nothing_is_sent_that_is_not_at_hand_or_whose_every_token_is_dead() -> None:
    for seen, means, attempt in product(SIGHTINGS, MEANS, (OPEN, HALF_OPEN)):
        if decide(attempt, seen, means) is Step.RESEND:
            assert means.blob
            assert not seen.expired


def test_already_bound_is_never_said_after_something_was_generated() -> None:
    for seen, means, attempt in product(SIGHTINGS, MEANS, (OPEN, HALF_OPEN, REFUSED, ACCEPTED)):
        assert decide(attempt, seen, means) is not Step.FINISH_ALREADY_BOUND


@pytest.mark.parametrize("reason", Reason)
def test_refusal_for_good_is_final_and_a_passing_one_is_not(reason: Reason) -> None:
    refused = replace(REFUSED, failure=Failure(reason.value, "No."))
    step = Step.RELEASE if REASONS[reason].retryable else Step.FINISH_NOT_IMPORTED
    assert decide(refused, NOTHING, BLOB) is step


def test_every_state_of_a_cmk_is_a_sight() -> None:
    assert set(SIGHTS) == set(KeyState)
    assert {state for state, sight in SIGHTS.items() if sight is Sight.BOUND} == {KeyState.ENABLED, KeyState.DISABLED}


def test_refusals_that_hang_on_the_bond_do_not_pass() -> None:
    assert not any(REASONS[reason].retryable for reason in BOND_REFUSALS)


@pytest.mark.parametrize(
    ("expiries", "at", "expired"),
    [
        ((NOW,), NOW + LATE_COMMIT, False),
        ((NOW,), NOW + LATE_COMMIT + timedelta(seconds=1), True),
        ((NOW + timedelta(hours=1), NOW), NOW + LATE_COMMIT + timedelta(seconds=1), False),
        ((NOW, NOW + timedelta(hours=1)), NOW + timedelta(hours=1, seconds=1) + LATE_COMMIT, True),
        ((NOW,), None, False),
        ((), NOW, False),
    ],
    ids=["within the margin", "past it", "the latest pair counts", "all past it", "no Date", "no pair"],
)
def test_expired_is_five_minutes_past_every_pair(
    expiries: tuple[datetime, ...], at: datetime | None, *, expired: bool
) -> None:
    assert protocol.is_expired(replace(OPEN, pair_expiries=expiries), at) is expired


def test_margins_are_those_of_the_design() -> None:
    assert timedelta(minutes=5) == LATE_COMMIT
    assert timedelta(seconds=60) < SETTLING <= timedelta(seconds=62)


# Every transition

WRAPPED = Wrapped("another token", b"another blob", NOW + timedelta(hours=24), "RSAES_OAEP_SHA_256", b"another key")
KEY = ExternalKey(CMK, "arn", "kst-example", AES_256, KeyState.ENABLED, "EXTERNAL")
FULL = replace(OPEN, refused=1, failure=DENIED, kms_request_id="a-request")


def test_claimed_forgets_what_an_earlier_start_left() -> None:
    again = protocol.claimed(replace(FULL, state=State.RELEASED, cmk=None), CMK, first=False)
    assert again == row(State.CLAIMED, first=False)  # nor what CreateKey was answered


def test_prepared_records_the_first_send_before_it_leaves() -> None:
    ready = protocol.prepared(CLAIMED, WRAPPED, material_id="m2", check_value=b"xyz", parameters="fetched")
    assert (ready.state, ready.sends, ready.refused, ready.open_sends) == (State.PREPARED, 1, 0, 1)
    assert (ready.material_id, ready.check_value, ready.parameters) == ("m2", b"xyz", "fetched")
    assert (ready.import_token, ready.wrapped_key_material) == ("another token", b"another blob")
    assert ready.pair_expiries == (WRAPPED.expires_at,)
    assert ready.algorithm == "RSAES_OAEP_SHA_256"


def test_resent_counts_a_send_of_the_same() -> None:
    assert protocol.resent(OPEN) == replace(OPEN, sends=2)


def test_rewrapped_counts_a_send_and_keeps_every_expiry_and_the_material() -> None:
    again = protocol.rewrapped(replace(REFUSED, wrapping_public_key_digest=b"the first key"), WRAPPED)
    assert (again.sends, again.refused, again.state) == (2, 1, State.PREPARED)
    assert again.pair_expiries == (NOW, WRAPPED.expires_at)
    assert (again.material_id, again.check_value) == (OPEN.material_id, OPEN.check_value)
    assert (again.import_token, again.wrapped_key_material) == ("another token", b"another blob")
    assert again.wrapping_public_key_digest == b"another key"


def test_refused_closes_one_send_only() -> None:
    closed = protocol.refused(replace(OPEN, sends=3), THROTTLED)
    assert (closed.open_sends, closed.failure, closed.state) == (2, THROTTLED, State.PREPARED)


def test_accepted_keeps_the_requests_id_and_time_and_the_public_key_of_the_send_that_was_accepted() -> None:
    rewrapped = replace(OPEN, wrapping_public_key_digest=b"second")
    accepted = protocol.accepted(rewrapped, kms_request_id="their-request", at=NOW, public_key_digest=b"first")
    answer = {"kms_request_id": "their-request", "accepted_at": NOW, "wrapping_public_key_digest": b"first"}
    assert accepted == replace(rewrapped, state=State.ACCEPTED, **answer)  # type: ignore[arg-type]


def test_receipt_is_for_imported_rows_only() -> None:
    assert protocol.receipted(row(State.IMPORTED), "a-receipt") == row(State.IMPORTED, receipt="a-receipt")
    for state in set(State) - {State.IMPORTED}:
        with pytest.raises(ValueError, match="gets no receipt"):
            protocol.receipted(row(state), "a-receipt")


@pytest.mark.parametrize("evidence", Evidence)
def test_imported_keeps_the_check_value(evidence: Evidence) -> None:
    ended = protocol.imported(FULL, evidence, KEY)
    assert (ended.state, ended.evidence, ended.key, ended.check_value) == (State.IMPORTED, evidence, KEY, b"abc")
    assert ended.failure is None


ENDS = {
    "imported": protocol.imported(FULL, Evidence.ACCEPTED, KEY),
    "unattributed": protocol.unattributed(FULL),
    "not imported": protocol.not_imported(FULL, DENIED),
    "already bound": protocol.already_bound(CLAIMED),
    "released": protocol.released(FULL, THROTTLED),
}


@pytest.mark.parametrize("ended", ENDS.values(), ids=ENDS.keys())
def test_ended_attempt_holds_no_token_and_no_wrapped_material(ended: Attempt) -> None:
    assert (ended.import_token, ended.wrapped_key_material) == ("", b"")
    assert (ended.caller, ended.request_id, ended.version) == (FULL.caller, FULL.request_id, FULL.version)


@pytest.mark.parametrize("name", set(ENDS) - {"imported"})
def test_ended_without_evidence_has_no_check_value(name: str) -> None:
    assert ENDS[name].check_value == b""
    assert ENDS[name].evidence is None


def test_ended_states_hold_the_cmk_only_where_it_is_bound() -> None:
    assert {name: ended.state for name, ended in ENDS.items()} == {
        "imported": State.IMPORTED,
        "unattributed": State.ENABLED_UNATTRIBUTED,
        "not imported": State.NOT_IMPORTED,
        "already bound": State.ALREADY_BOUND,
        "released": State.RELEASED,
    }
    assert {name for name, ended in ENDS.items() if ended.state in HOLDS_CMK} == {"imported", "unattributed"}
    assert {name for name, ended in ENDS.items() if ended.state in TERMINAL} == set(ENDS) - {"released"}
    assert TERMINAL.isdisjoint(UNFINISHED)


def test_failure_is_kept_where_it_is_the_answer() -> None:
    assert {name: ended.failure for name, ended in ENDS.items()} == {
        "imported": None,
        "unattributed": None,
        "not imported": DENIED,
        "already bound": None,
        "released": THROTTLED,
    }

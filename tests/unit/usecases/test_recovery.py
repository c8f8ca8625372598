"""What the recovery makes of each unfinished row, when it looks, and what it counts."""

from dataclasses import replace
from datetime import timedelta

import pytest

from keybroker.assembly import Choices
from keybroker.domain.attempt import Attempt, Evidence, HandedOut, State
from keybroker.domain.errors import BrokerError, Reason
from keybroker.domain.external_key import KeyReference, KeyState, NewKey
from keybroker.domain.import_protocol import Sight, Wrapped, rewrapped
from keybroker.domain.key_check_value import key_check_value
from keybroker.domain.key_spec import AES_256
from keybroker.domain.wrapping import RSAES_OAEP_SHA_256, RSAES_PKCS1_V1_5
from keybroker.usecases.settling import Settling
from tests.builders import FakeClock, World, lost_reply, refusal
from tests.unit.usecases.support import (
    REQUEST,
    Killed,
    create,
    create_error,
    given,
    known,
    lose_replies,
    parameters_for,
    reason_of,
    restart,
    run,
    run_wrapped,
    stop_at,
)

DAY = 24 * 3600.0
EXPIRED = DAY + 301


def crashed(place: str, **options: object) -> tuple[World, str]:
    """An import whose process died at `place`, and a new process."""
    world = World()
    key_id = world.kms.add_key()
    stop_at(world, place)
    with pytest.raises(Killed):
        run(world, key_id, request_id=REQUEST, **options)
    restart(world)
    return world, key_id


def passes(world: World, *seconds: float) -> None:
    """A pass of the recovery after each of these waits."""
    for wait in seconds:
        world.clock.advance(wait)
        world.recovery.run_due()


def test_claimed_is_let_go_only_when_no_call_can_still_work_on_it() -> None:
    world, key_id = crashed("pair: in hand")
    passes(world, 0, 30)
    assert known(world).state is State.CLAIMED
    passes(world, 31)
    assert known(world).state is State.RELEASED
    assert world.resolved_late == []
    assert run(world, key_id).evidence is Evidence.ACCEPTED


@pytest.mark.parametrize("place", ["prepare: after", "send: before", "send: accepted", "acceptance: before"])
def test_prepared_is_sent_again_and_ends_imported_counted_once(place: str) -> None:
    world, key_id = crashed(place)
    passes(world, 0, 5, 60, 600)
    row = known(world)
    assert (row.state, row.evidence) == (State.IMPORTED, Evidence.ACCEPTED)
    assert row.check_value == key_check_value(world.kms.bound_material(key_id) or b"").value
    assert [late.request_id for late in world.resolved_late] == [REQUEST]
    assert world.import_key(KeyReference(key_id), request_id=REQUEST).replayed
    assert len(world.resolved_late) == 1
    assert len(world.entropy.filled) == 1


@pytest.mark.parametrize("place", ["acceptance: after", "finish: before"])
def test_accepted_ends_imported_once_enabled_is_seen_and_sends_nothing(place: str) -> None:
    world, _ = crashed(place)
    sent = world.kms.calls["ImportKeyMaterial"]
    passes(world, 0)
    assert known(world).evidence is Evidence.ACCEPTED
    assert world.kms.calls["ImportKeyMaterial"] == sent
    assert len(world.resolved_late) == 1


def test_accepted_waits_for_enabled_however_late() -> None:
    world = World()
    world.kms.enabled_lag_seconds = 2 * DAY
    key_id = world.kms.add_key()
    assert reason_of(world, key_id, request_id=REQUEST) is Reason.IMPORT_UNRESOLVED
    passes(world, *[3600.0] * 40)
    assert known(world).state is State.ACCEPTED
    passes(world, *[3600.0] * 10)
    assert known(world).evidence is Evidence.ACCEPTED


def test_refusal_that_was_not_recorded_leaves_the_send_open_until_it_is_settled() -> None:
    world = World()
    key_id = world.kms.add_key()
    world.kms.fail_next("ImportKeyMaterial", refusal(Reason.KMS_ACCESS_DENIED), times=20)
    stop_at(world, "refusal: before")
    with pytest.raises(Killed):
        run(world, key_id, request_id=REQUEST)
    restart(world)
    passes(world, 0)
    assert known(world).state is State.PREPARED
    passes(world, EXPIRED, 61, 61)
    assert known(world).state is State.NOT_IMPORTED


def test_pkcs1_after_a_crash_waits_until_it_is_expired_and_settled() -> None:
    world, key_id = crashed("send: before", algorithm=RSAES_PKCS1_V1_5)
    passes(world, 0, 60, 3600)
    assert known(world).state is State.PREPARED
    passes(world, EXPIRED, 61)
    row = known(world)
    assert row.state is State.NOT_IMPORTED
    assert [late.state for late in world.resolved_late] == [State.NOT_IMPORTED]
    assert world.kms.calls["ImportKeyMaterial"] == 0
    assert reason_of(world, key_id, algorithm=RSAES_PKCS1_V1_5, request_id=REQUEST) is Reason.NOT_IMPORTED


def test_pkcs1_after_a_crash_and_bound_is_unattributed() -> None:
    world, _ = crashed("send: accepted", algorithm=RSAES_PKCS1_V1_5)
    passes(world, 0)
    assert known(world).state is State.ENABLED_UNATTRIBUTED
    assert [late.state for late in world.resolved_late] == [State.ENABLED_UNATTRIBUTED]


def test_attempt_whose_resends_keep_failing_still_ends_after_its_expiry() -> None:
    world = World()
    key_id = world.kms.add_key()
    world.kms.fail_next("ImportKeyMaterial", lost_reply(), times=99)
    assert reason_of(world, key_id, request_id=REQUEST) is Reason.IMPORT_UNRESOLVED
    passes(world, 60)
    assert known(world).state is State.PREPARED
    passes(world, EXPIRED, 61, 61)
    assert known(world).state is State.NOT_IMPORTED


def test_creating_is_looked_for_and_the_request_goes_on_with_what_was_found() -> None:
    world = World()
    world.kms.tag_filter_lag_seconds = 60.0
    world.kms.fail_next("CreateKey", lost_reply(), when="after")
    assert reason_of(world, NewKey(AES_256), request_id=REQUEST) is Reason.CREATE_OUTCOME_UNKNOWN
    passes(world, 0)
    assert known(world).state is State.CREATING
    passes(world, 60)
    row = known(world)
    assert row.creation is not None
    assert (row.state, row.creation.key_id) == (State.RELEASED, world.kms.key_ids[0])
    assert run(world, NewKey(AES_256), request_id=REQUEST).evidence is Evidence.ACCEPTED
    assert world.kms.calls["CreateKey"] == 1


def test_creating_is_given_up_after_a_day_and_looked_for_again_by_a_repeat() -> None:
    world = World()
    world.kms.tag_filter_lag_seconds = 2 * DAY
    world.kms.fail_next("CreateKey", lost_reply(), when="after")
    assert create_error(world, NewKey(AES_256), request_id=REQUEST).reason is Reason.CREATE_OUTCOME_UNKNOWN
    passes(world, DAY + 60)
    lists = world.kms.calls["ListKeys"]
    passes(world, DAY)
    assert world.kms.calls["ListKeys"] == lists
    assert create(world, NewKey(AES_256), request_id=REQUEST).attempt.state is State.CREATED


def test_recovery_makes_nothing() -> None:
    world = World()
    world.kms.fail_next("CreateKey", lost_reply())
    create_error(world, NewKey(AES_256))
    lose_replies(world)
    reason_of(world, world.kms.add_key())
    before = (world.kms.calls["CreateKey"], world.kms.calls["GetParametersForImport"], len(world.entropy.filled))
    passes(world, 0, 60, EXPIRED, 61, 61)
    after = (world.kms.calls["CreateKey"], world.kms.calls["GetParametersForImport"], len(world.entropy.filled))
    assert after == before


def test_cmk_that_a_call_works_on_is_left_alone() -> None:
    world, key_id = crashed("send: before")
    before = known(world)
    with world.claims.hold(world.cmk(key_id), deadline=world.deadline()):
        passes(world, 0)
    assert known(world) == before
    passes(world, 60)
    assert known(world).state is State.IMPORTED


def test_row_of_an_instance_that_is_configured_no_more_is_left_alone() -> None:
    world, _ = crashed("send: before")
    world.kms.region = "cn-beijing"
    restart(world)
    before = known(world)
    passes(world, 0, 60)
    assert known(world) == before


def test_rows_are_looked_at_less_and_less_often() -> None:
    world, key_id = crashed("send: before", algorithm=RSAES_PKCS1_V1_5)
    looked = []
    for _ in range(60):
        looked.append(world.recovery.run_due())
        world.clock.advance(1.0)
    assert looked[:8] == [1, 1, 0, 1, 0, 0, 0, 1]
    assert looked[20:].count(1) == 4
    world.kms.bind_foreign(key_id)
    world.clock.advance(10)
    assert world.recovery.run_due() == 1


def test_failing_kms_ends_no_pass() -> None:
    world, _ = crashed("send: before", algorithm=RSAES_PKCS1_V1_5)
    world.kms.fail_next("DescribeKey", refusal(Reason.KMS_ACCESS_DENIED), times=2)
    assert world.recovery.run_due() == 1
    assert known(world).state is State.PREPARED


def test_failing_ledger_ends_no_pass() -> None:
    world, _ = crashed("send: before")

    def unreadable() -> list[Attempt]:
        raise BrokerError(Reason.LEDGER_UNAVAILABLE, "No.")

    world.ledger.unfinished = unreadable  # type: ignore[method-assign]
    assert world.recovery.run_due() == 0


def test_ledger_that_fails_in_the_middle_of_a_row_leaves_it_for_later() -> None:
    world, _ = crashed("send: before")

    def at(place: str) -> None:
        if place == "acceptance: before":
            raise BrokerError(Reason.LEDGER_UNAVAILABLE, "No.")

    world.at = at
    passes(world, 0)
    assert known(world).state is State.PREPARED
    world.at = lambda _: None
    passes(world, 60)
    assert known(world).state is State.IMPORTED
    assert len(world.resolved_late) == 1


# Rule R7: expired by the KMS's Date, and two DescribeKeys 60 s apart by it


def waiting() -> World:
    """Material may be under way that nobody can send again."""
    return crashed("send: before", algorithm=RSAES_PKCS1_V1_5)[0]


def test_local_clock_alone_expires_nothing() -> None:
    world = waiting()
    world.kms.ahead = timedelta(days=-2)
    passes(world, 2 * DAY - 60, 61, 61)
    assert known(world).state is State.PREPARED


def test_clock_of_the_kms_alone_expires() -> None:
    world = waiting()
    world.kms.ahead = timedelta(seconds=EXPIRED)
    passes(world, 1, 61)
    assert known(world).state is State.NOT_IMPORTED


def test_five_minutes_after_the_expiry_belong_to_late_commits() -> None:
    world = waiting()
    world.kms.ahead = timedelta(seconds=DAY + 170)
    passes(world, 1, 61, 61)
    assert known(world).state is State.PREPARED
    passes(world, 61, 61)
    assert known(world).state is State.NOT_IMPORTED


def test_two_looks_are_a_minute_apart_by_the_clock_of_the_kms() -> None:
    world = waiting()
    world.kms.ahead = timedelta(seconds=EXPIRED)
    passes(world, 1)
    for _ in range(5):
        world.kms.ahead -= timedelta(seconds=62)  # its Date stands still
        passes(world, 62)
    assert known(world).state is State.PREPARED
    world.kms.ahead += timedelta(seconds=62)
    passes(world, 62)
    assert known(world).state is State.NOT_IMPORTED


def test_reply_without_a_date_expires_nothing() -> None:
    world = waiting()
    world.kms.dated = False
    passes(world, EXPIRED, 61, 61)
    assert known(world).state is State.PREPARED


def test_bound_between_the_two_looks_is_not_told_as_not_imported() -> None:
    world = World()
    key_id = world.kms.add_key()
    lose_replies(world, "checked")
    world.kms.fail_next("ImportKeyMaterial", lost_reply(), times=9)
    reason_of(world, key_id, request_id=REQUEST)
    passes(world, EXPIRED)
    world.kms.land_late()
    passes(world, 61, 61)
    assert known(world).state is State.ENABLED_UNATTRIBUTED


@pytest.mark.parametrize(
    ("looks", "settled"),
    [
        ([("PENDING", 0, True), ("PENDING", 0, True), ("PENDING", 61, True)], True),
        ([("PENDING", 0, True), ("PENDING", 0, True), ("PENDING", 60, True)], False),
        ([("PENDING", 0, True), ("PENDING", 61, True)], False),
        ([("PENDING", 0, False), ("PENDING", 0, False), ("PENDING", 61, True)], False),
        ([("PENDING", 0, True), ("PENDING", 0, True), ("BOUND", 30, True), ("PENDING", 61, True)], False),
        ([("PENDING", 0, True), ("PENDING", 0, True), ("GONE", 61, True)], False),
        ([("GONE", 0, True), ("GONE", 0, True), ("GONE", 61, True)], True),
        ([("OTHER", 0, True), ("OTHER", 0, True), ("OTHER", 61, True)], False),
        ([("PENDING", 0, True), ("PENDING", 0, True), ("PENDING", None, True), ("PENDING", 61, True)], False),
    ],
    ids=[
        "two a minute apart",
        "a second short",
        "the one that taught the expiry does not count",
        "not expired at the first",
        "bound between",
        "gone between",
        "gone",
        "being deleted",
        "one without a date between",
    ],
)
def test_settling(looks: list[tuple[str, float | None, bool]], settled: bool) -> None:  # noqa: FBT001
    settling, start = Settling(), FakeClock().now()
    results = [
        settling.observe("a row", Sight[sight], None if at is None else start + timedelta(seconds=at), expired=expired)
        for sight, at, expired in looks
    ]
    assert results == [False] * (len(looks) - 1) + [settled]


def test_settling_of_one_row_says_nothing_of_another() -> None:
    settling, start = Settling(), FakeClock().now()
    for what, seconds in (("one", 0), ("one", 0), ("other", 61)):
        assert not settling.observe(what, Sight.PENDING, start + timedelta(seconds=seconds), expired=True)
    assert settling.is_settling("one")
    assert not settling.is_settling("other")


def test_cmk_that_is_disabled_while_unresolved_counts_as_bound() -> None:
    world, key_id = crashed("send: accepted", algorithm=RSAES_PKCS1_V1_5)
    world.kms.set_state(key_id, KeyState.DISABLED)
    passes(world, 0)
    assert known(world).state is State.ENABLED_UNATTRIBUTED


# What another process did meanwhile, and what a caller can still bring


def test_what_was_seen_does_not_count_for_pairs_of_another_process() -> None:
    world = World()
    key_id = world.kms.add_key()
    lose_replies(world)
    reason_of(world, key_id, request_id=REQUEST)
    passes(world, EXPIRED, 1, 1)

    def wrap_again(place: str) -> None:
        if place == "finish: before":
            world.at = lambda _: None
            pair = world.kms.get_parameters_for_import(world.cmk(key_id), RSAES_OAEP_SHA_256, deadline=world.deadline())
            newer = Wrapped(pair.import_token, bytes(256), pair.expires_at, pair.algorithm.kms_name)
            world.ledger.update(rewrapped(known(world), newer))

    world.at = wrap_again
    passes(world, 62, 62)
    assert world.at is not wrap_again, "no pass came so far"
    assert known(world).state is State.PREPARED


def test_wrapped_material_that_is_not_stored_waits_for_the_repeat_that_brings_it() -> None:
    world = World()
    key_id = world.kms.add_key()
    what = given(parameters_for(world, key_id, RSAES_PKCS1_V1_5))
    stop_at(world, "send: accepted")
    with pytest.raises(Killed):
        run_wrapped(world, key_id, what, request_id=REQUEST)
    restart(world)
    passes(world, 1, 10, 10)
    assert known(world).state is State.PREPARED
    assert run_wrapped(world, key_id, what, request_id=REQUEST).attempt.evidence is Evidence.ACCEPTED


def test_wrapped_material_that_nobody_brings_again_is_unattributed_after_its_expiry() -> None:
    world = World()
    key_id = world.kms.add_key()
    what = given(parameters_for(world, key_id, RSAES_PKCS1_V1_5))
    stop_at(world, "send: accepted")
    with pytest.raises(Killed):
        run_wrapped(world, key_id, what, request_id=REQUEST)
    restart(world)
    passes(world, EXPIRED, 10)
    assert known(world).state is State.ENABLED_UNATTRIBUTED


def test_sole_importer_is_not_said_once_a_pair_was_handed_out_meanwhile() -> None:
    world = World(choices=Choices(sole_importer=True))
    world.kms.same_material_reimport = False
    key_id = world.kms.add_key()
    world.kms.fail_next("ImportKeyMaterial", lost_reply(), when="after")

    def hand_out(place: str) -> None:
        if place == "send: before":
            world.at = lambda _: None
            expires_at = world.clock.now() + timedelta(days=1)
            world.ledger.hand_out(HandedOut(b"x" * 32, world.cmk(key_id), "RSAES_OAEP_SHA_256", expires_at))

    world.at = hand_out
    assert reason_of(world, key_id, request_id=REQUEST) is Reason.ENABLED_UNATTRIBUTED


def test_repeat_that_waited_while_its_claim_was_let_go_is_told_to_come_again() -> None:
    """Not that the request has ended: nothing final is recorded."""
    world, key_id = crashed("pair: in hand")
    claims, find = world.claims, world.ledger.find
    asked: list[int] = []

    def find_then_let_go(caller: str, request_id: str) -> Attempt | None:
        row = find(caller, request_id)
        asked.append(1)
        if len(asked) == 1 and row is not None:
            world.clock.advance(61)
            world.recovery.run_due()
        return row

    world.ledger.find = find_then_let_go  # type: ignore[method-assign]
    assert reason_of(world, key_id, request_id=REQUEST) is Reason.IMPORT_IN_PROGRESS
    world.ledger.find = find  # type: ignore[method-assign]
    assert claims is world.claims
    assert run(world, key_id, request_id=REQUEST).evidence is Evidence.ACCEPTED


def test_reply_to_material_of_an_earlier_start_says_nothing_of_the_next() -> None:
    """Another process has let go and begun anew while the reply was under way: its row is not this reply's."""
    world = World()
    key_id = world.kms.add_key()

    def begin_anew(place: str) -> None:
        if place == "acceptance: before":
            world.at = lambda _: None
            world.ledger.update(replace(known(world), material_id="of another process", sends=2))

    world.at = begin_anew
    assert reason_of(world, key_id, request_id=REQUEST) is Reason.IMPORT_UNRESOLVED
    row = known(world)
    assert (row.state, row.material_id) == (State.PREPARED, "of another process")

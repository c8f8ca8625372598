"""The audit trail where something else fails or changes too: the ledger, an alias, another process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from uuid import uuid4

import pytest

from keybroker.domain.audit import AuditEvent, Change, CmkChange
from keybroker.domain.errors import BrokerError, Reason
from keybroker.domain.external_key import CmkName, KeyReference, NewKey
from keybroker.domain.key_spec import AES_256
from keybroker.usecases import trail
from keybroker.usecases.answers import Answer
from keybroker.usecases.asked import Asked
from keybroker.usecases.trail import Trail
from tests.builders import FakeAuditLog, World, lost_reply, refusal

FULL = BrokerError(Reason.AUDIT_UNAVAILABLE, "The audit log can't be written.")
BUSY = BrokerError(Reason.LEDGER_UNAVAILABLE, "The ledger can't be written.")
ASKED_FOR = NewKey(AES_256, alias="alias/payments")
HEAD = "ab" * 32


def audited() -> tuple[World, FakeAuditLog]:
    log = FakeAuditLog()
    return World(audit=log), log


def schedule(world: World, key_id: str) -> None:
    world.manage.schedule_deletion(
        world.kms,
        Asked("a caller", str(uuid4())),
        KeyReference(key_id),
        pending_window=timedelta(days=7),
        deadline=world.deadline(),
    )


def repeated(world: World, key_id: str, request_id: str) -> Answer:
    """Until it is answered."""
    while True:
        with suppress(BrokerError):
            return world.import_key(KeyReference(key_id), request_id=request_id)


def test_alias_of_a_cmk_that_a_repeat_found_is_announced_too() -> None:
    world, log = audited()
    request_id = str(uuid4())
    world.kms.fail_next("CreateAlias", refusal(Reason.KMS_ACCESS_DENIED))
    with pytest.raises(BrokerError):
        world.import_key(ASKED_FOR, request_id=request_id)
    assert log.told("change", "outcome", "reason", "refusal_kms_request_id")[-1] == (
        "create_alias",
        "REFUSED",
        "KMS_ACCESS_DENIED",
        "a-request",
    )
    sent = world.kms.calls["CreateAlias"]
    log.failure = FULL
    with pytest.raises(BrokerError) as caught:
        world.import_key(ASKED_FOR, request_id=request_id)
    assert caught.value.reason is Reason.AUDIT_UNAVAILABLE
    assert world.kms.calls["CreateAlias"] == sent
    log.failure = None
    world.import_key(ASKED_FOR, request_id=request_id)
    assert ("create_alias", "DONE") in log.told("change", "outcome")


def test_alias_whose_answer_is_lost_is_done_if_it_is_there_and_unknown_if_not() -> None:
    world, log = audited()
    world.kms.fail_next("CreateAlias", lost_reply(), when="after")
    world.import_key(ASKED_FOR)
    assert ("create_alias", "DONE") in log.told("change", "outcome")
    world.kms.fail_next("CreateAlias", lost_reply())
    with pytest.raises(BrokerError):
        world.import_key(NewKey(AES_256, alias="alias/others"))
    assert log.told("change", "outcome", "reason")[-1] == ("create_alias", "UNKNOWN", "CHANGE_OUTCOME_UNKNOWN")


def test_deletion_whose_outcome_the_ledger_could_not_take_holds_changes_until_it_is_told() -> None:
    world, log = audited()
    key_id = world.kms.add_key()
    put = world.ledger.put_audit_due

    def fails(event: AuditEvent, *, held: bool = False) -> None:
        raise BUSY

    world.kms.before("ScheduleKeyDeletion", lambda: setattr(world.ledger, "put_audit_due", fails))
    schedule(world, key_id)
    assert log.told("event") == [("before",)]
    with pytest.raises(BrokerError) as caught:
        world.import_key(KeyReference(world.kms.add_key()))
    assert caught.value.reason is Reason.LEDGER_UNAVAILABLE
    world.ledger.put_audit_due = put  # type: ignore[method-assign]
    world.import_key(KeyReference(world.kms.add_key()))
    told = log.told("event", "change", "outcome")
    assert told.index(("after", "schedule_deletion", "DONE")) < told.index(("before", "import", None))
    world.trail.tidy()
    assert world.ledger.audit_due() == []


def test_import_that_began_while_nothing_was_audited_is_announced_before_its_material_is_sent_again() -> None:
    world = World()
    key_id, request_id = world.kms.add_key(), str(uuid4())
    world.kms.fail_next("ImportKeyMaterial", lost_reply(), times=20)
    with pytest.raises(BrokerError):
        world.import_key(KeyReference(key_id), request_id=request_id)
    world.audit = log = FakeAuditLog()
    world.restart()
    sent = world.kms.calls["ImportKeyMaterial"]
    log.failure = FULL
    with pytest.raises(BrokerError) as caught:
        world.import_key(KeyReference(key_id), request_id=request_id)
    assert caught.value.reason is Reason.IMPORT_UNRESOLVED
    assert world.kms.calls["ImportKeyMaterial"] == sent
    log.failure = None
    assert repeated(world, key_id, request_id).attempt.audit_line
    assert log.told("event", "change", "key_id") == [("before", "import", key_id)]


def test_start_that_generates_nothing_tells_nothing_of_the_material_of_an_earlier_one() -> None:
    world, log = audited()
    key_id, request_id = world.kms.add_key(), str(uuid4())
    world.kms.fail_next("ImportKeyMaterial", refusal(Reason.KMS_THROTTLED), times=20)
    with pytest.raises(BrokerError):
        world.import_key(KeyReference(key_id), request_id=request_id)
    assert log.told("outcome", "entropy_source")[-1] == ("RELEASED", "os")
    world.cache.drop_all(world.cmk(key_id))
    world.kms.fail_next("GetParametersForImport", refusal(Reason.KMS_ACCESS_DENIED))
    with pytest.raises(BrokerError):
        world.import_key(KeyReference(key_id), request_id=request_id)
    assert log.told("outcome", "entropy_source", "wrapping_algorithm", "sends")[-1] == ("RELEASED", None, None, 0)


def test_outcome_that_replaces_one_which_another_process_told_as_unknown_is_told_too() -> None:
    world, log = audited()
    other = Trail(outbox=world.ledger, log=log)

    tidy, deliver = other.tidy, world.trail.deliver
    other.tidy = lambda: None  # type: ignore[method-assign]
    world.kms.before("ScheduleKeyDeletion", lambda: other.take_over(HEAD))
    world.trail.deliver = tidy  # type: ignore[method-assign]  # between the outcome that is put and its telling
    schedule(world, world.kms.add_key())
    deliver()
    assert log.told("event", "outcome") == [("before", None), ("after", "UNKNOWN"), ("after", "DONE")]


def test_ledger_has_the_head_of_a_log_that_was_only_begun_and_of_an_announcement_without_outcome() -> None:
    world, log = audited()
    world.trail.take_over(HEAD)
    assert world.ledger.audit_head() == HEAD
    world.kms.fail_next("ImportKeyMaterial", lost_reply(), times=20)
    with pytest.raises(BrokerError):
        world.import_key(KeyReference(world.kms.add_key()))
    assert log.told("event") == [("before",)]
    world.trail.catch_up()
    assert world.ledger.audit_head() == f"{1:064x}"


def test_log_that_failed_is_found_to_work_again_without_a_change() -> None:
    world, log = audited()
    log.failure = FULL
    world.trail.take_over("")
    assert world.trail.failing
    world.trail.catch_up()
    assert world.trail.failing
    log.failure = None
    world.trail.catch_up()
    assert not world.trail.failing


def test_events_that_wait_for_the_log_are_counted() -> None:
    world, log = audited()

    def full_once_sent(place: str) -> None:
        if place == "send: accepted":
            log.failure = FULL

    world.at = full_once_sent
    world.import_key(KeyReference(world.kms.add_key()))
    assert (world.trail.waiting, world.trail.failing) == (1, True)
    log.failure = None
    world.trail.catch_up()
    assert (world.trail.waiting, world.trail.failing) == (0, False)


CHANGE = CmkChange(Change.CANCEL_DELETION, "", "", "", "", CmkName("", "", ""), "")


@contextmanager
def hanging(world: World, log: FakeAuditLog) -> Iterator[None]:
    """Meanwhile a write is under way that does not end."""
    hangs, goes_on = threading.Event(), threading.Event()

    def hang(events: object) -> str:
        hangs.set()
        goes_on.wait(10)
        return HEAD

    log.write = hang  # type: ignore[method-assign]
    writer = threading.Thread(target=lambda: world.trail.before(CHANGE.before("one")))
    writer.start()
    assert hangs.wait(10)
    try:
        yield
    finally:
        goes_on.set()
        writer.join()


def test_log_that_hangs_holds_neither_the_recovery_s_thread_nor_a_stop() -> None:
    world, log = audited()
    world.trail.take_over(HEAD)
    with hanging(world, log):
        caught_up = threading.Thread(target=world.trail.catch_up, daemon=True)
        caught_up.start()
        caught_up.join(5)
        held = caught_up.is_alive()
    assert not held


def test_log_that_hangs_is_told_as_failing_once_a_change_has_waited_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trail, "_TURN_SECONDS", 0.01)
    world, log = audited()
    world.trail.take_over(HEAD)
    with hanging(world, log):
        world.trail.deliver()
        failing_at_first = world.trail.failing
        with pytest.raises(BrokerError) as caught:
            world.trail.before(CHANGE.before("another"))
        failing = world.trail.failing
    world.trail.catch_up()
    assert caught.value.reason is Reason.AUDIT_UNAVAILABLE
    assert (failing_at_first, failing, world.trail.failing) == (False, True, False)


def test_row_that_a_dead_process_left_prepared_and_announced_is_not_announced_again() -> None:
    world, log = audited()
    key_id, request_id = world.kms.add_key(), str(uuid4())
    world.kms.fail_next("ImportKeyMaterial", lost_reply(), times=20)
    with pytest.raises(BrokerError):
        world.import_key(KeyReference(key_id), request_id=request_id)
    world.restart()
    repeated(world, key_id, request_id)
    assert log.told("event", "outcome") == [("before", None), ("after", "IMPORTED")]

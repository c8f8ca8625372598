"""The audit trail: no change without an event before it, and the event after it is never lost."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from keybroker.domain.attempt import State
from keybroker.domain.audit import AuditEvent
from keybroker.domain.errors import BrokerError, Reason
from keybroker.domain.external_key import KeyReference, KeyState, NewKey
from keybroker.domain.key_spec import AES_256
from keybroker.usecases.asked import Asked
from tests.builders import FakeAuditLog, World, lost_reply, refusal

FULL = BrokerError(Reason.AUDIT_UNAVAILABLE, "The audit log can't be written.")
HEAD = "ab" * 32
WEEK = timedelta(days=7)
ASKED_FOR = NewKey(AES_256, alias="alias/payments")


def audited(**options: object) -> tuple[World, FakeAuditLog]:
    log = FakeAuditLog()
    return World(audit=log, **options), log  # type: ignore[arg-type]


def test_import_is_announced_before_and_told_after_it() -> None:
    world, log = audited()
    key_id = world.kms.add_key(spec=AES_256)
    answer = world.import_key(KeyReference(key_id))
    row = answer.attempt
    announced, told = log.events
    assert announced.fields == {
        "event": "before",
        "change": "import",
        "record_id": row.record_id,
        "caller": "a caller",
        "request_id": row.request_id,
        "region": row.region,
        "dkms_instance_id": row.dkms_instance_id,
        "key_id": key_id,
        "account": row.cmk.account if row.cmk else "",
        "arn": row.key.arn if row.key else "",
        "key_spec": "Aliyun_AES_256",
        "wrapping_algorithm": "RSAES_OAEP_SHA_256",
        "entropy_source": "os",
    }
    assert told.fields == {
        **{name: value for name, value in announced.fields.items() if name != "key_spec"},
        "event": "after",
        "outcome": "IMPORTED",
        "evidence": "ACCEPTED",
        "check_value": f"cmac-aes:{row.check_value.hex()}",
        "kms_request_id": row.kms_request_id,
        "sends": 1,
        "refused": 0,
        "at": row.updated_at.isoformat() if row.updated_at else "",
    }
    assert announced.id != told.id
    assert row.audit_line == f"{1:064x}"


def test_announcement_comes_before_anything_is_fetched_or_sent() -> None:
    calls: list[tuple[str, int]] = []
    world, log = audited(at=lambda place: calls.append((place, len(log.events))))
    world.import_key(KeyReference(world.kms.add_key()))
    assert ("claim: after", 0) in calls
    assert ("pair: in hand", 1) in calls
    assert ("send: before", 1) in calls


def test_announcement_that_fails_changes_nothing_and_a_repeat_starts_over() -> None:
    world, log = audited()
    key_id, request_id = world.kms.add_key(), str(uuid4())
    log.failure = FULL
    with pytest.raises(BrokerError) as caught:
        world.import_key(KeyReference(key_id), request_id=request_id)
    assert caught.value.reason is Reason.AUDIT_UNAVAILABLE
    assert set(world.kms.calls) == {"DescribeKey"}
    assert world.entropy.filled == []
    log.failure = None
    world.import_key(KeyReference(key_id), request_id=request_id)
    assert log.told("event", "outcome") == [("before", None), ("after", "IMPORTED")]


def test_failing_log_lets_nothing_pile_up_in_the_ledger() -> None:
    world, log = audited()
    key_id = world.kms.add_key()
    log.failure = FULL
    for _ in range(3):
        with pytest.raises(BrokerError):
            world.import_key(KeyReference(key_id))
        with pytest.raises(BrokerError):
            world.import_key(ASKED_FOR)
    assert world.ledger.audit_due() == []


def test_log_that_fails_after_the_send_keeps_the_outcome_told_and_holds_new_imports_until_it_is_written() -> None:
    world, log = audited()

    def full_once_sent(place: str) -> None:
        if place == "send: accepted":
            log.failure = FULL

    world.at = full_once_sent
    answer = world.import_key(KeyReference(world.kms.add_key()))
    assert answer.attempt.state is State.IMPORTED
    assert log.told("event") == [("before",)]
    with pytest.raises(BrokerError) as caught:
        world.import_key(KeyReference(world.kms.add_key()))
    assert caught.value.reason is Reason.AUDIT_UNAVAILABLE
    log.failure, world.at = None, lambda _: None
    world.import_key(KeyReference(world.kms.add_key()))
    assert log.told("event", "outcome") == [
        ("before", None),
        ("after", "IMPORTED"),
        ("before", None),
        ("after", "IMPORTED"),
    ]


def test_event_after_is_written_by_the_next_process_if_this_one_died_before() -> None:
    world, log = audited()
    world.at = dies_at("finish: after")
    with pytest.raises(SystemExit):
        world.import_key(KeyReference(world.kms.add_key()))
    assert log.told("event") == [("before",)]
    world.at = lambda _: None
    world.restart()
    world.trail.take_over(HEAD)
    assert log.told("event", "outcome") == [("before", None), ("after", "IMPORTED")]


def test_replay_changes_nothing_and_is_no_event() -> None:
    world, log = audited()
    key_id, request_id = world.kms.add_key(), str(uuid4())
    world.import_key(KeyReference(key_id), request_id=request_id)
    log.failure = FULL
    assert world.import_key(KeyReference(key_id), request_id=request_id).replayed
    assert len(log.events) == 2


def test_unresolved_import_is_told_by_whoever_resolves_it() -> None:
    world, log = audited()
    world.kms.fail_next("ImportKeyMaterial", lost_reply(), times=20)
    with pytest.raises(BrokerError) as caught:
        world.import_key(KeyReference(world.kms.add_key()))
    assert caught.value.reason is Reason.IMPORT_UNRESOLVED
    assert log.told("event") == [("before",)]
    while len(log.events) < 2:
        world.clock.advance(20)
        world.recovery.run_due()
    assert log.told("event", "outcome", "evidence") == [("before", None, None), ("after", "IMPORTED", "ACCEPTED")]


def test_refused_import_tells_why_and_the_kms_request_id_of_the_refusal() -> None:
    world, log = audited()
    world.kms.fail_next("ImportKeyMaterial", refusal(Reason.KMS_ACCESS_DENIED))
    with pytest.raises(BrokerError):
        world.import_key(KeyReference(world.kms.add_key()))
    fields = log.events[-1].fields
    assert (fields["outcome"], fields["reason"]) == ("NOT_IMPORTED", "KMS_ACCESS_DENIED")
    assert "check_value" not in fields


def test_unattributed_import_tells_no_check_value() -> None:
    world, log = audited()
    world.kms.same_material_reimport = False
    world.kms.fail_next("ImportKeyMaterial", lost_reply(), when="after")
    with pytest.raises(BrokerError) as caught:
        world.import_key(KeyReference(world.kms.add_key()))
    assert caught.value.reason is Reason.ENABLED_UNATTRIBUTED
    assert log.events[-1].fields["outcome"] == "ENABLED_UNATTRIBUTED"
    assert "check_value" not in log.events[-1].fields


def test_new_key_is_told_of_by_its_creation_and_by_its_import() -> None:
    world, log = audited()
    answer = world.import_key(ASKED_FOR)
    assert log.told("event", "change", "outcome") == [
        ("before", "create", None),
        ("after", "create", "CREATED"),
        ("before", "create_alias", None),
        ("after", "create_alias", "DONE"),
        ("before", "import", None),
        ("after", "import", "IMPORTED"),
    ]
    key_id = answer.attempt.cmk.key_id if answer.attempt.cmk else ""
    assert [fields.get("key_id") for fields in map(_fields, log.events)] == [None, *[key_id] * 5]
    assert log.told("alias") == [
        ("alias/payments",),
        (None,),
        ("alias/payments",),
        ("alias/payments",),
        (None,),
        (None,),
    ]


def test_create_that_can_not_be_announced_is_not_sent() -> None:
    world, log = audited()
    log.failure = FULL
    with pytest.raises(BrokerError) as caught:
        world.import_key(ASKED_FOR)
    assert caught.value.reason is Reason.AUDIT_UNAVAILABLE
    assert "CreateKey" not in world.kms.calls
    assert world.clock.slept == []  # whether the log works again is for a repeat to find out


def test_nothing_is_kept_for_a_log_that_there_is_not() -> None:
    world = World()
    world.import_key(KeyReference(world.kms.add_key()))
    world.import_key(ASKED_FOR)
    assert world.ledger.audit_due() == []


def test_ledger_forgets_what_the_log_has_and_keeps_its_head() -> None:
    world, log = audited()
    world.import_key(KeyReference(world.kms.add_key()))
    assert len(world.ledger.audit_due()) == 1
    world.trail.tidy()
    assert world.ledger.audit_due() == []
    assert world.ledger.audit_head() == f"{len(log.events):064x}"


def test_claim_that_a_dead_process_had_announced_is_announced_again() -> None:
    world, log = audited()
    key_id, request_id = world.kms.add_key(), str(uuid4())
    world.at = dies_at("pair: in hand")
    with pytest.raises(SystemExit):
        world.import_key(KeyReference(key_id), request_id=request_id)
    row = world.row(request_id)
    assert row is not None
    world.ledger.update(replace(row, state=State.CLAIMED))
    world.at = lambda _: None
    world.restart()
    world.import_key(KeyReference(key_id), request_id=request_id)
    assert log.told("event", "outcome")[-2:] == [("before", None), ("after", "IMPORTED")]


@pytest.mark.parametrize("change", ["schedule_deletion", "cancel_deletion"])
def test_deletion_is_announced_before_and_told_after_it(change: str) -> None:
    world, log = audited()
    key_id = world.kms.add_key()
    if change == "cancel_deletion":
        world.kms.set_state(key_id, KeyState.PENDING_DELETION)
    operation = {"schedule_deletion": "ScheduleKeyDeletion", "cancel_deletion": "CancelKeyDeletion"}[change]
    seen: list[int] = []
    world.kms.before(operation, lambda: seen.append(len(log.events)))
    reply = delete(world, key_id, change)
    assert seen == [1]
    assert log.told("event", "change", "key_id", "outcome", "kms_request_id") == [
        ("before", change, key_id, None, None),
        ("after", change, key_id, "DONE", reply),
    ]
    assert log.events[0].fields["record_id"] == log.events[1].fields["record_id"]


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [(lost_reply(), "UNKNOWN"), (refusal(Reason.KMS_ACCESS_DENIED), "REFUSED"), (RuntimeError(), "UNKNOWN")],
    ids=["lost", "refused", "unforeseen"],
)
def test_deletion_that_fails_tells_whether_it_may_have_happened(failure: Exception, outcome: str) -> None:
    world, log = audited()
    key_id = world.kms.add_key()

    def fail() -> None:
        raise failure

    world.kms.before("ScheduleKeyDeletion", fail)
    with pytest.raises(type(failure) if outcome != "UNKNOWN" else Exception):  # three kinds
        delete(world, key_id)
    assert log.told("event", "outcome") == [("before", None), ("after", outcome)]


def test_deletion_that_can_not_be_announced_is_not_sent() -> None:
    world, log = audited()
    log.failure = FULL
    with pytest.raises(BrokerError) as caught:
        delete(world, world.kms.add_key())
    assert caught.value.reason is Reason.AUDIT_UNAVAILABLE
    assert "ScheduleKeyDeletion" not in world.kms.calls
    world.restart()
    world.trail.take_over(HEAD)
    assert world.ledger.audit_due() == []


def test_deletion_that_a_process_died_in_is_told_as_unknown_by_the_next() -> None:
    world, log = audited()

    def die() -> None:
        log.failure = FULL  # nothing that the dying process does later reaches the log
        world.ledger.put_audit_due = lambda *_, **__: None  # type: ignore[method-assign]
        raise SystemExit

    world.kms.before("ScheduleKeyDeletion", die)
    with pytest.raises(SystemExit):
        delete(world, world.kms.add_key())
    log.failure = None
    world.restart()
    world.trail.take_over(HEAD)
    assert log.told("event", "outcome") == [("before", None), ("after", "UNKNOWN")]


def test_orphan_that_is_deleted_is_told_as_that_and_as_nothing_else() -> None:
    world, log = audited()
    world.kms.fail_next("GetParametersForImport", refusal(Reason.KMS_ACCESS_DENIED))
    with pytest.raises(BrokerError) as caught:
        world.import_key(ASKED_FOR)
    key_id = world.kms.key_ids[-1]
    assert caught.value.reason is Reason.KMS_ACCESS_DENIED
    before = len(log.events)
    world.assembly.orphans.delete(
        world.kms, asked(), KeyReference(key_id), pending_window=WEEK, deadline=world.deadline()
    )
    assert log.told("event", "change", "outcome")[before:] == [
        ("before", "delete_orphan", None),
        ("after", "delete_orphan", "DONE"),
    ]


def delete(world: World, key_id: str, change: str = "schedule_deletion") -> str:
    """The RequestId of the KMS's answer."""
    options = {"pending_window": WEEK} if change == "schedule_deletion" else {}
    _, reply = getattr(world.manage, change)(
        world.kms, asked(), KeyReference(key_id), deadline=world.deadline(), **options
    )
    return str(reply.request_id)


def asked() -> Asked:
    return Asked("a caller", str(uuid4()))


def dies_at(place: str) -> Callable[[str], None]:
    def die(here: str) -> None:
        if here == place:
            raise SystemExit

    return die


def _fields(event: AuditEvent) -> dict[str, object]:
    return dict(event.fields)

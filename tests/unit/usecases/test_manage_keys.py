"""Reading CMKs and deleting them."""

from datetime import timedelta

import pytest

from keybroker.domain.errors import BrokerError, Reason
from keybroker.domain.external_key import ExternalKey, KeyReference, KeyState
from keybroker.ports import KmsReply
from keybroker.usecases.asked import Asked
from tests.builders import World, lost_reply, refusal

ASKED = Asked("a caller", "0b5f6f0e-3c53-4d5a-9d5c-6f1f0d2b7a11")
WEEK = timedelta(days=7)


def _schedule(world: World, reference: KeyReference) -> tuple[ExternalKey, KmsReply]:
    return world.manage.schedule_deletion(world.kms, ASKED, reference, pending_window=WEEK, deadline=world.deadline())


def test_schedule_and_cancel_deletion_show_the_state_after() -> None:
    world = World()
    reference = KeyReference(world.kms.add_key())
    key, reply = world.manage.schedule_deletion(
        world.kms, ASKED, reference, pending_window=WEEK, deadline=world.deadline()
    )
    assert key.state is KeyState.PENDING_DELETION
    assert key.delete_at is not None
    assert reply.request_id
    key, _ = world.manage.cancel_deletion(world.kms, ASKED, reference, deadline=world.deadline())
    assert key.state is KeyState.PENDING_IMPORT


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"origin": "Aliyun_KMS"}, Reason.KEY_ORIGIN_NOT_EXTERNAL),
        ({"dkms_instance_id": "kst-other"}, Reason.KEY_NOT_ON_INSTANCE),
    ],
)
def test_schedule_deletion_of_a_cmk_that_is_not_ours_is_refused(options: dict[str, str], reason: Reason) -> None:
    world = World()
    reference = KeyReference(world.kms.add_key(state=KeyState.ENABLED, **options))  # type: ignore[arg-type]
    with pytest.raises(BrokerError) as caught:
        _schedule(world, reference)
    assert caught.value.reason is reason
    assert world.kms.calls["ScheduleKeyDeletion"] == 0


def test_schedule_deletion_twice_is_a_state_conflict() -> None:
    world = World()
    reference = KeyReference(world.kms.add_key())
    _schedule(world, reference)
    with pytest.raises(BrokerError) as caught:
        _schedule(world, reference)
    assert caught.value.reason is Reason.KEY_STATE_CONFLICT


@pytest.mark.parametrize("when", ["before", "after"])
def test_schedule_deletion_reply_lost_is_outcome_unknown_and_sent_once(when: str) -> None:
    world = World()
    world.kms.fail_next("ScheduleKeyDeletion", lost_reply(), when=when)  # type: ignore[arg-type]
    reference = KeyReference(world.kms.add_key())
    with pytest.raises(BrokerError) as caught:
        _schedule(world, reference)
    assert caught.value.reason is Reason.CHANGE_OUTCOME_UNKNOWN
    assert world.kms.calls["ScheduleKeyDeletion"] == 1


def test_schedule_deletion_unreadable_afterwards_is_outcome_unknown_with_the_kms_request_id() -> None:
    world = World()
    key_id = world.kms.add_key()
    schedule = world.kms.schedule_key_deletion

    def then_unreadable(*args: object, **options: object) -> object:
        world.kms.fail_next("DescribeKey", refusal(Reason.KMS_UNAVAILABLE))
        return schedule(*args, **options)  # type: ignore[arg-type]

    world.kms.schedule_key_deletion = then_unreadable  # type: ignore[method-assign,assignment]
    with pytest.raises(BrokerError) as caught:
        world.manage.schedule_deletion(
            world.kms, ASKED, KeyReference(key_id), pending_window=WEEK, deadline=world.deadline()
        )
    assert caught.value.reason is Reason.CHANGE_OUTCOME_UNKNOWN
    assert caught.value.metadata["kms_request_id"]

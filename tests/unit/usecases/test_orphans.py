"""CMKs that were made for a request which nobody goes on with: found by their tag, deleted only if surely nobody's."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from keybroker.domain.attempt import Kind, State
from keybroker.domain.errors import BrokerError, Reason
from keybroker.domain.external_key import KeyReference, KeyState, NewKey
from keybroker.domain.key_spec import AES_128, AES_256
from keybroker.usecases.asked import Asked
from keybroker.usecases.create_safely import REQUEST_TAG
from tests.builders import World, lost_reply, refusal
from tests.unit.usecases.support import (
    REQUEST,
    create,
    create_error,
    known,
    lose_replies,
    parameters_for,
    reason_of,
    run,
)

NEW = NewKey(AES_256)
OPERATOR = Asked("an operator", REQUEST)


def left_over(world: World) -> str:
    """A CMK whose import failed before anything was generated."""
    world.kms.fail_next("GetParametersForImport", refusal(Reason.KMS_ACCESS_DENIED))
    assert reason_of(world, NEW, request_id=REQUEST) is Reason.KMS_ACCESS_DENIED
    return world.kms.key_ids[-1]


def listed(world: World) -> dict[str, bool]:
    """Key ids with whether they may be deleted."""
    page, more = world.assembly.orphans.page(world.kms, 1, deadline=world.deadline())
    assert not more
    return {orphan.key.name.key_id: orphan.deletable for orphan in page}


def delete(world: World, key_id: str, asked: Asked = OPERATOR) -> None:
    world.assembly.orphans.delete(
        world.kms, asked, KeyReference(key_id), pending_window=timedelta(days=7), deadline=world.deadline()
    )


def refused(world: World, key_id: str) -> Reason:
    with pytest.raises(BrokerError) as caught:
        delete(world, key_id)
    assert world.kms.calls["ScheduleKeyDeletion"] == 0
    return caught.value.reason


def test_orphan_is_listed_with_its_request_and_age() -> None:
    world = World()
    key_id = left_over(world)
    world.clock.advance(3600)
    world.kms.add_key()
    ((orphan,), _) = world.assembly.orphans.page(world.kms, 1, deadline=world.deadline())
    assert orphan.key.name.key_id == key_id
    assert orphan.origin is not None
    assert (orphan.origin.caller, orphan.origin.request_id) == ("a caller", REQUEST)
    assert orphan.age is not None
    assert timedelta(hours=1) <= orphan.age <= timedelta(hours=1, seconds=5)
    assert orphan.deletable


def test_orphan_is_deleted_and_its_cmk_is_free_of_claims_after() -> None:
    world = World()
    key_id = left_over(world)
    delete(world, key_id)
    assert world.kms.true_state(key_id) is KeyState.PENDING_DELETION
    row = known(world, REQUEST, "an operator")
    assert (row.kind, row.state) == (Kind.DELETE_ORPHAN, State.RELEASED)
    assert world.ledger.holder(world.cmk(key_id)) is None
    assert listed(world) == {}


def test_orphan_is_held_while_its_deletion_is_scheduled() -> None:
    world = World()
    key_id = left_over(world)
    told: list[Reason] = []

    def interfere() -> None:
        told.append(reason_of(world, key_id))
        told.append(reason_of(world, NEW, request_id=REQUEST))
        with pytest.raises(BrokerError) as caught:
            parameters_for(world, key_id)
        told.append(caught.value.reason)

    world.kms.before("ScheduleKeyDeletion", interfere)
    delete(world, key_id)
    assert told == [Reason.IMPORT_IN_PROGRESS] * 3
    assert world.entropy.filled == []


def test_orphan_whose_deletion_fails_is_let_go_of() -> None:
    world = World()
    key_id = left_over(world)
    world.kms.fail_next("ScheduleKeyDeletion", refusal(Reason.KMS_ACCESS_DENIED))
    with pytest.raises(BrokerError) as caught:
        delete(world, key_id)
    assert caught.value.reason is Reason.KMS_ACCESS_DENIED
    assert run(world, NEW, request_id=REQUEST).state is State.IMPORTED


def world_says(world: World, key_id: str) -> str:
    with pytest.raises(BrokerError) as caught:
        delete(world, key_id)
    return caught.value.message


def _enabled(world: World) -> str:
    return run(world, NEW, request_id=REQUEST).cmk.key_id  # type: ignore[union-attr]


def _unresolved(world: World) -> str:
    lose_replies(world)
    reason_of(world, NEW, request_id=REQUEST)
    return world.kms.key_ids[-1]


def _still_looked_for(world: World) -> str:
    world.kms.tag_filter_lag_seconds = 60.0
    world.kms.fail_next("CreateKey", lost_reply(), when="after")
    create_error(world, NEW, request_id=REQUEST)
    return world.kms.key_ids[-1]


def _foreign(world: World) -> str:
    return world.kms.add_key()


def _forged_tag(world: World) -> str:
    return world.kms.add_key(tags={REQUEST_TAG: "0" * 64})


def _copied_tag(world: World) -> str:
    left_over(world)
    return world.kms.add_key(tags={REQUEST_TAG: world.ledger.tag("a caller", REQUEST)})


def _copied_tag_and_another_spec(world: World) -> str:
    left_over(world)
    return world.kms.add_key(spec=AES_128, tags={REQUEST_TAG: world.ledger.tag("a caller", REQUEST)})


NO_ORPHANS: dict[str, tuple[Callable[[World], str], Reason]] = {
    "imported": (_enabled, Reason.KEY_MATERIAL_ALREADY_BOUND),
    "unresolved": (_unresolved, Reason.IMPORT_IN_PROGRESS),
    "its request still looks for it": (_still_looked_for, Reason.NOT_AN_ORPHAN),
    "without a tag": (_foreign, Reason.NOT_AN_ORPHAN),
    "with a tag that the ledger never made": (_forged_tag, Reason.NOT_AN_ORPHAN),
    "with a copied tag": (_copied_tag, Reason.NOT_AN_ORPHAN),
    "with a copied tag and another spec": (_copied_tag_and_another_spec, Reason.NOT_AN_ORPHAN),
}


@pytest.mark.parametrize(("make", "reason"), NO_ORPHANS.values(), ids=NO_ORPHANS.keys())
def test_what_is_no_orphan_is_not_deleted(make: Callable[[World], str], reason: Reason) -> None:
    world = World()
    key_id = make(world)
    assert refused(world, key_id) is reason
    assert "still looking" in world_says(world, key_id) or make is not _still_looked_for
    assert not listed(world).get(key_id, False)


def test_orphan_that_was_imported_into_between_the_looks_is_not_deleted() -> None:
    world = World()
    key_id = left_over(world)
    world.kms.before("ListResourceTags", lambda: world.kms.bind_foreign(key_id))
    assert refused(world, key_id) is Reason.NOT_AN_ORPHAN


def test_second_cmk_of_a_request_that_made_two_is_an_orphan() -> None:
    world = World()
    world.kms.fail_next("CreateKey", lost_reply(), when="late")
    create_error(world, NEW, request_id=REQUEST)
    kept = create(world, NEW, request_id=REQUEST, allow_second_key=True).attempt
    world.kms.land_late()
    (other,) = set(world.kms.key_ids) - {kept.key.name.key_id if kept.key else ""}
    assert listed(world)[other]
    delete(world, other)
    assert world.kms.true_state(other) is KeyState.PENDING_DELETION


def test_pages_are_of_a_hundred() -> None:
    world = World()
    for _ in range(101):
        create(world, NEW)
    page, more = world.assembly.orphans.page(world.kms, 1, deadline=world.deadline())
    assert (len(page), more) == (100, True)
    page, more = world.assembly.orphans.page(world.kms, 2, deadline=world.deadline())
    assert (len(page), more) == (1, False)


def test_ignored_filters_list_no_cmk_without_a_tag() -> None:
    world = World()
    world.kms.tag_filters_ignored = True
    key_id = left_over(world)
    world.kms.add_key()
    world.kms.add_key(state=KeyState.ENABLED)
    assert set(listed(world)) == {key_id}


def test_cmk_that_is_listed_and_gone_is_left_out() -> None:
    world = World()
    world.kms.fail_next("ImportKeyMaterial", refusal(Reason.KMS_THROTTLED), times=99)
    with pytest.raises(BrokerError):
        world.import_key(NewKey(AES_256))
    world.kms.fail_next("DescribeKey", refusal(Reason.KEY_NOT_FOUND))
    assert world.assembly.orphans.page(world.kms, 1, deadline=world.deadline()) == ([], False)
    [orphan], _ = world.assembly.orphans.page(world.kms, 1, deadline=world.deadline())
    assert orphan.deletable

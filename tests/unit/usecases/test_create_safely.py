"""A CMK for a request: made once, found again by its tag, never somebody else's; its alias; a second one by consent."""

from dataclasses import replace
from datetime import timedelta

import pytest

from keybroker.assembly import Choices
from keybroker.domain.attempt import State
from keybroker.domain.errors import BrokerError, KmsError, Reason
from keybroker.domain.external_key import KeyState, NewKey
from keybroker.domain.key_spec import AES_128, AES_256
from keybroker.usecases.create_safely import REQUEST_TAG
from keybroker.usecases.progress import Progress
from tests.builders import World, lost_reply, refusal
from tests.unit.usecases.support import (
    REQUEST,
    Killed,
    create,
    create_error,
    known,
    restart,
    stop_at,
)

NEW = NewKey(AES_256)
ALIASED = NewKey(AES_256, alias="alias/payments")


def creation_lost(world: World, when: str = "after") -> None:
    """CreateKey goes unanswered, and the call does not find out what came of it."""
    lag, world.kms.tag_filter_lag_seconds = world.kms.tag_filter_lag_seconds, 3600.0
    world.kms.fail_next("CreateKey", lost_reply(), when=when)  # type: ignore[arg-type]
    assert create_error(world, NEW, request_id=REQUEST).reason is Reason.CREATE_OUTCOME_UNKNOWN
    world.kms.tag_filter_lag_seconds = lag


def tag_of(world: World) -> str:
    return world.ledger.tag("a caller", REQUEST)


def test_create_gives_description_tags_and_alias() -> None:
    world = World()
    row = create(world, NewKey(AES_128, "for payments", "alias/payments", {"team": "blue"}), request_id=REQUEST).attempt
    (key_id,) = world.kms.key_ids
    assert row.state is State.CREATED
    assert row.key is not None
    assert row.key.state is KeyState.PENDING_IMPORT
    assert world.kms.description(key_id) == "for payments"
    assert world.kms.tags(key_id) == {"team": "blue", REQUEST_TAG: tag_of(world)}
    assert world.kms.aliases(key_id) == ["alias/payments"]


def test_create_without_alias_makes_one_call() -> None:
    world = World()
    create(world, NEW)
    assert world.kms.calls == {"CreateKey": 1}


def test_create_taken_alias_creates_nothing() -> None:
    world = World()
    create(world, ALIASED)
    world.kms.calls.clear()
    assert create_error(world, ALIASED).reason is Reason.ALIAS_ALREADY_EXISTS
    assert world.kms.calls == {"DescribeKey": 1}


def test_replay_names_the_same_cmk_and_creates_none() -> None:
    world = World()
    first = create(world, NEW, request_id=REQUEST)
    world.kms.calls.clear()
    second = create(world, NEW, request_id=REQUEST)
    assert (first.replayed, second.replayed) == (False, True)
    assert second.attempt == first.attempt
    assert world.kms.calls == {}


def test_tag_tells_nothing_of_the_request_and_differs_by_caller_request_and_ledger() -> None:
    world, other = World(), World()
    tags = {
        world.ledger.tag("a caller", REQUEST),
        world.ledger.tag("somebody else", REQUEST),
        world.ledger.tag("a caller", REQUEST.replace("8", "9")),
        world.ledger.tag("a caller" + REQUEST[0], REQUEST[1:]),
        other.ledger.tag("a caller", REQUEST),
    }
    assert len(tags) == 5
    assert {len(tag) for tag in tags} == {64}


# A lost answer


@pytest.mark.parametrize("lag_seconds", [0.0, 4.0], ids=["at once", "tags are found late"])
def test_lost_reply_finds_the_cmk_within_the_settle_window(lag_seconds: float) -> None:
    world = World()
    world.kms.tag_filter_lag_seconds = lag_seconds
    world.kms.fail_next("CreateKey", lost_reply(), when="after")
    row = create(world, NEW).attempt
    assert row.cmk is None
    assert row.key is not None
    assert row.key.name.key_id == world.kms.key_ids[0]
    assert world.kms.calls["CreateKey"] == 1


def test_lost_reply_is_given_up_when_the_settle_window_is_over() -> None:
    world = World(choices=Choices(create_settle_seconds=5.0))
    world.kms.fail_next("CreateKey", lost_reply())
    before = world.clock.monotonic()
    assert create_error(world, NEW).reason is Reason.CREATE_OUTCOME_UNKNOWN
    assert 2.5 < world.clock.monotonic() - before <= 5.0
    assert world.kms.calls["CreateKey"] == 1


def test_lost_reply_is_looked_for_again_by_the_repeat() -> None:
    world = World()
    creation_lost(world)
    row = create(world, NEW, request_id=REQUEST).attempt
    assert row.creation is not None
    assert row.creation.key_id == world.kms.key_ids[0]
    assert world.kms.calls["CreateKey"] == 1


def test_crash_after_create_key_finds_the_cmk_again() -> None:
    world = World()
    stop_at(world, "create: accepted")
    with pytest.raises(Killed):
        create(world, NEW, request_id=REQUEST)
    restart(world)
    create(world, NEW, request_id=REQUEST)
    assert len(world.kms.key_ids) == 1


def test_crash_before_create_key_was_sent_creates_none_on_its_own() -> None:
    world = World()
    stop_at(world, "create: after")
    with pytest.raises(Killed):
        create(world, NEW, request_id=REQUEST)
    restart(world)
    assert create_error(world, NEW, request_id=REQUEST).reason is Reason.CREATE_OUTCOME_UNKNOWN
    assert world.kms.key_ids == []


def test_failing_search_counts_as_not_found_yet() -> None:
    world = World()
    world.kms.fail_next("CreateKey", lost_reply(), when="after")
    world.kms.fail_next("ListKeys", refusal(Reason.KMS_THROTTLED), times=2)
    create(world, NEW)
    assert len(world.kms.key_ids) == 1


# The tag filter is ignored


def test_ignored_filter_with_few_keys_adopts_by_the_tag_itself() -> None:
    world = World()
    world.kms.tag_filters_ignored = True
    for _ in range(5):
        world.kms.add_key(tags={REQUEST_TAG: "somebody's"})
    world.kms.fail_next("CreateKey", lost_reply(), when="after")
    row = create(world, NEW).attempt
    assert row.key is not None
    assert row.key.name.key_id == world.kms.key_ids[5]


def test_ignored_filter_with_few_keys_and_none_ours_adopts_none() -> None:
    world = World()
    world.kms.tag_filters_ignored = True
    for _ in range(5):
        world.kms.add_key(tags={REQUEST_TAG: "somebody's"})
    world.kms.fail_next("CreateKey", lost_reply())
    assert create_error(world, NEW).reason is Reason.CREATE_OUTCOME_UNKNOWN


def test_ignored_filter_with_many_keys_goes_through_none_of_them() -> None:
    world = World()
    world.kms.tag_filters_ignored = True
    for _ in range(20):
        world.kms.add_key()
    world.kms.fail_next("CreateKey", lost_reply(), when="after")
    assert create_error(world, NEW).reason is Reason.CREATE_OUTCOME_UNKNOWN
    assert world.kms.calls["ListKeys"] == 1  # looking again would show no more, and take a second CreateKey its time
    assert world.kms.calls["ListResourceTags"] == 0
    assert world.kms.calls["CreateKey"] == 1


# A tag can be copied by others

UNFIT: dict[str, dict[str, object]] = {
    "another spec": {"spec": AES_128},
    "another origin": {"origin": "Aliyun_KMS", "state": KeyState.ENABLED},
    "another instance": {"dkms_instance_id": "kst-other"},
}


@pytest.mark.parametrize("options", UNFIT.values(), ids=UNFIT.keys())
def test_copied_tag_on_another_cmk_is_not_adopted(options: dict[str, object]) -> None:
    world = World()
    creation_lost(world, "before")
    world.kms.add_key(tags={REQUEST_TAG: tag_of(world)}, **options)  # type: ignore[arg-type]
    assert create_error(world, NEW, request_id=REQUEST).reason is Reason.CREATE_OUTCOME_UNKNOWN


def test_copied_tag_on_a_cmk_of_before_the_request_is_not_adopted() -> None:
    world = World()
    old = world.kms.add_key()
    world.clock.advance(3600)
    creation_lost(world, "before")
    world.kms.set_tags(old, {REQUEST_TAG: tag_of(world)})
    assert create_error(world, NEW, request_id=REQUEST).reason is Reason.CREATE_OUTCOME_UNKNOWN


def test_age_is_judged_by_the_clock_of_the_kms() -> None:
    world = World()
    world.kms.ahead = timedelta(hours=-3)
    world.kms.fail_next("CreateKey", lost_reply(), when="after")
    assert create(world, NEW).attempt.state is State.CREATED


def test_copied_tag_on_a_younger_cmk_loses_against_the_one_that_was_made() -> None:
    world = World()
    creation_lost(world)
    world.clock.advance(60)
    world.kms.add_key(tags={REQUEST_TAG: tag_of(world)})
    row = create(world, NEW, request_id=REQUEST).attempt
    assert row.key is not None
    assert row.key.name.key_id == world.kms.key_ids[0]


# A second CMK


def test_consent_given_with_the_first_call_is_no_consent_to_a_second_cmk() -> None:
    world = World()
    world.kms.fail_next("CreateKey", lost_reply())
    error = create_error(world, NEW, request_id=REQUEST, allow_second_key=True)
    assert error.reason is Reason.CREATE_OUTCOME_UNKNOWN
    assert world.kms.calls["CreateKey"] == 1


def test_consent_on_a_repeat_makes_a_second_cmk() -> None:
    world = World()
    creation_lost(world, "late")
    assert create_error(world, NEW, request_id=REQUEST).reason is Reason.CREATE_OUTCOME_UNKNOWN
    assert world.kms.calls["CreateKey"] == 1
    row = create(world, NEW, request_id=REQUEST, allow_second_key=True).attempt
    assert world.kms.calls["CreateKey"] == 2
    assert row.creation is not None
    assert row.creation.sends == 2
    world.kms.land_late()
    assert create(world, NEW, request_id=REQUEST).attempt == row


def test_consent_is_not_needed_where_the_first_one_is_found() -> None:
    world = World()
    creation_lost(world)
    create(world, NEW, request_id=REQUEST, allow_second_key=True)
    assert world.kms.calls["CreateKey"] == 1


# Refusals


def test_passing_refusal_is_tried_again_and_not_counted_as_a_cmk() -> None:
    world = World()
    world.kms.fail_next("CreateKey", refusal(Reason.KMS_THROTTLED), times=2)
    row = create(world, NEW).attempt
    assert row.creation is not None
    assert row.creation.sends == 1
    assert world.kms.calls["CreateKey"] == 3


def test_refusal_for_good_frees_the_request() -> None:
    world = World()
    world.kms.fail_next("CreateKey", refusal(Reason.KMS_QUOTA_EXCEEDED))
    assert create_error(world, NEW, request_id=REQUEST).reason is Reason.KMS_QUOTA_EXCEEDED
    row = known(world)
    assert (row.state, row.creation and row.creation.sends) == (State.RELEASED, 0)
    assert not create(world, NEW, request_id=REQUEST).replayed


def test_ledger_that_fails_after_create_key_is_found_again_by_the_tag() -> None:
    world = World()

    def at(place: str) -> None:
        if place == "created: before":
            raise BrokerError(Reason.LEDGER_UNAVAILABLE, "No.")

    world.at = at
    assert create_error(world, NEW, request_id=REQUEST).reason is Reason.LEDGER_UNAVAILABLE
    restart(world)
    create(world, NEW, request_id=REQUEST)
    assert len(world.kms.key_ids) == 1


# The alias


def test_alias_whose_answer_was_lost_but_points_to_the_cmk_is_success() -> None:
    world = World()
    world.kms.fail_next("CreateAlias", lost_reply(), when="after")
    assert create(world, ALIASED).attempt.state is State.CREATED


def test_alias_that_exists_and_points_to_the_cmk_is_success() -> None:
    world = World()
    world.kms.fail_next("CreateAlias", lost_reply(), when="late")
    assert create_error(world, ALIASED, request_id=REQUEST).reason is Reason.CHANGE_OUTCOME_UNKNOWN
    world.kms.land_late()
    assert create(world, ALIASED, request_id=REQUEST).attempt.state is State.CREATED
    assert world.kms.calls["CreateKey"] == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (refusal(Reason.ALIAS_ALREADY_EXISTS), Reason.ALIAS_ALREADY_EXISTS),
        (lost_reply(), Reason.CHANGE_OUTCOME_UNKNOWN),
        (refusal(Reason.KMS_ACCESS_DENIED), Reason.KMS_ACCESS_DENIED),
    ],
    ids=lambda value: value.value if isinstance(value, Reason) else "",
)
def test_alias_that_fails_after_the_cmk_exists_names_the_cmk(error: KmsError, reason: Reason) -> None:
    world = World()
    world.kms.fail_next("CreateAlias", error)
    progress = Progress()
    assert create_error(world, ALIASED, progress=progress).reason is reason
    assert progress.created_key_id == world.kms.key_ids[0]


def test_alias_taken_by_another_cmk_meanwhile_is_told_with_its_field() -> None:
    world = World()

    def take() -> None:
        other = world.kms.add_key()
        world.kms.create_alias(other, "alias/payments", deadline=world.deadline())

    world.kms.after("CreateKey", take)
    error = create_error(world, ALIASED, request_id=REQUEST)
    assert error.reason is Reason.ALIAS_ALREADY_EXISTS
    assert error.metadata["field"] == "new_key.alias"
    assert known(world).state is State.RELEASED


def test_alias_is_tried_again_by_a_repeat_and_the_cmk_is_the_same() -> None:
    world = World()
    world.kms.fail_next("CreateAlias", refusal(Reason.KMS_ACCESS_DENIED))
    assert create_error(world, ALIASED, request_id=REQUEST).reason is Reason.KMS_ACCESS_DENIED
    create(world, ALIASED, request_id=REQUEST)
    assert world.kms.calls["CreateKey"] == 1
    assert world.kms.aliases(world.kms.key_ids[0]) == ["alias/payments"]


def test_caller_can_not_set_the_tag_of_requests() -> None:
    world = World()
    create(world, replace(NEW, tags={REQUEST_TAG: "mine"}), request_id=REQUEST)
    assert world.kms.tags(world.kms.key_ids[0]) == {REQUEST_TAG: tag_of(world)}


def not_sent() -> KmsError:
    error = refusal(Reason.KMS_UNAVAILABLE)
    error.fails_fast, error.retry_after_seconds = True, 1.5
    return error


def test_create_key_that_the_broker_does_not_send_fails_at_once() -> None:
    world = World()
    world.kms.fail_next("CreateKey", not_sent(), times=9)
    error = create_error(world, NEW)
    assert (error.reason, error.retry_after_seconds) == (Reason.KMS_UNAVAILABLE, 1.5)
    assert (world.kms.calls["CreateKey"], world.clock.slept) == (1, [])


def test_create_key_is_tried_five_times_at_most_and_says_when_to_come_again() -> None:
    world = World()
    world.kms.fail_next("CreateKey", refusal(Reason.KMS_THROTTLED), times=99)
    error = create_error(world, NEW)
    assert (error.reason, error.retry_after_seconds) == (Reason.KMS_THROTTLED, 1.0)
    assert world.kms.calls["CreateKey"] == 5


def test_clock_that_is_steadily_wrong_does_not_hide_the_cmk() -> None:
    world = World()
    world.kms.ahead = timedelta(minutes=-30)
    creation_lost(world)
    world.clock.advance(60)
    assert create(world, NEW, request_id=REQUEST).attempt.state is State.CREATED
    assert world.kms.calls["CreateKey"] == 1

"""The same request again: the same answer and nothing sent. Others: their own requests, and nothing learnt."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from keybroker.adapters.ledger.sealing import random_keyring
from keybroker.domain.attempt import State
from keybroker.domain.errors import BrokerError, Reason
from keybroker.domain.external_key import KeyReference, NewKey
from keybroker.domain.key_check_value import key_check_value
from keybroker.domain.key_spec import AES_128, AES_256
from keybroker.domain.wrapping import RSAES_PKCS1_V1_5
from keybroker.usecases.asked import Asked
from tests.builders import World, lost_reply, refusal
from tests.unit.usecases.support import (
    REQUEST,
    FileLedger,
    create,
    error_of,
    given,
    known,
    lose_replies,
    parameters_for,
    reason_of,
    run,
    run_wrapped,
)


def get(world: World, caller: str = "a caller", request_id: str = REQUEST) -> State:
    return world.assembly.get_import.run(Asked(caller, request_id)).state


def get_reason(world: World, caller: str, request_id: str = REQUEST) -> Reason:
    with pytest.raises(BrokerError) as caught:
        get(world, caller, request_id)
    return caught.value.reason


@pytest.mark.parametrize("again", ["at once", "after a restart"])
def test_replay_of_an_import_gives_the_same_answer_and_sends_nothing(again: str) -> None:
    world = World()
    key_id = world.kms.add_key()
    first = world.import_key(KeyReference(key_id), request_id=REQUEST)
    if again == "after a restart":
        world.restart()
    world.kms.calls.clear()
    second = world.import_key(KeyReference(key_id), request_id=REQUEST)
    assert (first.replayed, second.replayed) == (False, True)
    assert second.attempt == first.attempt
    assert world.kms.calls == {}


def test_replay_of_a_failure_gives_the_same_error_marked_as_replayed() -> None:
    world = World()
    key_id = world.kms.add_key()
    world.kms.fail_next("ImportKeyMaterial", refusal(Reason.KMS_ACCESS_DENIED))
    first = error_of(world, key_id, request_id=REQUEST)
    world.kms.calls.clear()
    second = error_of(world, key_id, request_id=REQUEST)
    assert "replayed" not in first.metadata
    assert second.metadata == first.metadata | {"replayed": "true"}
    assert (second.reason, second.message) == (first.reason, first.message)
    assert world.kms.calls == {}


def test_replay_of_an_unattributed_end_is_the_same() -> None:
    world = World()
    world.kms.same_material_reimport = False
    key_id = world.kms.add_key()
    world.kms.fail_next("ImportKeyMaterial", lost_reply(), when="after")
    first = error_of(world, key_id, request_id=REQUEST)
    world.kms.calls.clear()
    second = error_of(world, key_id, request_id=REQUEST)
    assert (first.reason, second.reason) == (Reason.ENABLED_UNATTRIBUTED,) * 2
    assert second.metadata["replayed"] == "true"
    assert world.kms.calls == {}


def test_replay_by_the_arn_is_the_same_request() -> None:
    world = World()
    key_id = world.kms.add_key()
    world.import_key(KeyReference(key_id), request_id=REQUEST)
    assert world.import_key(KeyReference(key_id, account=world.kms.account), request_id=REQUEST).replayed


def test_replay_of_a_new_cmk_names_it_and_creates_none() -> None:
    world = World()
    first = world.import_key(NewKey(AES_256), request_id=REQUEST)
    second = world.import_key(NewKey(AES_256), request_id=REQUEST)
    assert second.replayed
    assert second.attempt.cmk == first.attempt.cmk
    assert len(world.kms.key_ids) == 1


OTHER_CONTENT: dict[str, Callable[[World, str], object]] = {
    "another key": lambda world, key_id: run(world, world.kms.add_key(), request_id=REQUEST),
    "another algorithm": lambda world, key_id: run(world, key_id, algorithm=RSAES_PKCS1_V1_5, request_id=REQUEST),
    "a new key": lambda world, key_id: run(world, NewKey(AES_256), request_id=REQUEST),
    "another kind": lambda world, key_id: create(world, NewKey(AES_256), request_id=REQUEST),
    "wrapped": lambda world, key_id: run_wrapped(
        world, key_id, given(parameters_for(world, world.kms.add_key())), request_id=REQUEST
    ),
}


@pytest.mark.parametrize("ended", [True, False], ids=["ended", "unresolved"])
@pytest.mark.parametrize("content", OTHER_CONTENT)
def test_same_request_id_with_other_content_is_refused_and_nothing_is_sent(content: str, ended: bool) -> None:  # noqa: FBT001
    world = World()
    key_id = world.kms.add_key()
    if ended:
        run(world, key_id, request_id=REQUEST)
    else:
        lose_replies(world)
        reason_of(world, key_id, request_id=REQUEST)
    before = known(world)
    sent = world.kms.calls["ImportKeyMaterial"] + world.kms.calls["CreateKey"]
    with pytest.raises(BrokerError) as caught:
        OTHER_CONTENT[content](world, key_id)
    assert caught.value.reason is Reason.REQUEST_ID_REUSED
    assert world.kms.calls["ImportKeyMaterial"] + world.kms.calls["CreateKey"] == sent
    assert known(world) == before


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (NewKey(AES_256), NewKey(AES_128)),
        (NewKey(AES_256), NewKey(AES_256, description="x")),
        (NewKey(AES_256), NewKey(AES_256, alias="alias/x")),
        (NewKey(AES_256, tags={"a": "b"}), NewKey(AES_256, tags={"a": "c"})),
        (NewKey(AES_256, tags={"a": "b"}), NewKey(AES_256, tags={"ab": ""})),
    ],
    ids=["spec", "description", "alias", "tag value", "tag boundary"],
)
def test_same_request_id_for_another_new_cmk_is_refused(one: NewKey, other: NewKey) -> None:
    world = World()
    run(world, one, request_id=REQUEST)
    assert reason_of(world, other, request_id=REQUEST) is Reason.REQUEST_ID_REUSED


def test_another_caller_with_the_same_request_id_starts_its_own_and_learns_nothing() -> None:
    world = World()
    mine, theirs = world.kms.add_key(), world.kms.add_key()
    first = run(world, mine, request_id=REQUEST)
    assert get_reason(world, "somebody else") is Reason.REQUEST_NOT_FOUND
    error = error_of(world, mine, request_id=REQUEST, caller="somebody else")
    assert error.reason is Reason.KEY_MATERIAL_ALREADY_BOUND
    assert set(error.metadata) == {"key_id"}
    second = world.import_key(KeyReference(theirs), request_id=REQUEST, caller="somebody else")
    assert not second.replayed
    assert second.attempt.check_value != first.check_value
    assert get(world) is State.IMPORTED


def test_another_caller_with_the_request_id_of_an_unresolved_import_is_told_only_that_one_is_under_way() -> None:
    world = World()
    key_id = world.kms.add_key()
    lose_replies(world)
    reason_of(world, key_id, request_id=REQUEST)
    error = error_of(world, key_id, request_id=REQUEST, caller="somebody else")
    assert error.reason is Reason.IMPORT_IN_PROGRESS
    assert error.metadata == {"key_id": key_id}
    assert world.row(REQUEST, "somebody else") is None


def test_failure_before_anything_was_generated_leaves_the_request_id_free() -> None:
    world = World()
    key_id = world.kms.add_key()
    world.kms.fail_next("GetParametersForImport", refusal(Reason.KMS_THROTTLED))
    assert reason_of(world, key_id, request_id=REQUEST) is Reason.KMS_THROTTLED
    assert get(world) is State.RELEASED
    assert not world.import_key(KeyReference(key_id), request_id=REQUEST).replayed


def test_refusal_before_the_claim_leaves_no_row() -> None:
    world = World()
    assert reason_of(world, "key-nowhere", request_id=REQUEST) is Reason.KEY_NOT_FOUND
    assert world.row(REQUEST) is None


def test_fifty_requests_for_one_cmk_at_once_import_exactly_one_material() -> None:
    """The losers hear that the CMK is bound only once that was seen, and is on record."""
    world = World()
    world.kms.enabled_lag_seconds = 0.5
    key_id = world.kms.add_key()
    all_there, somebody_lost = threading.Barrier(50), threading.Event()
    world.kms.before("ImportKeyMaterial", lambda: somebody_lost.wait(20))

    def ask(_: int) -> tuple[Reason | None, State | None]:
        all_there.wait()
        try:
            run(world, key_id, request_id=str(uuid4()))
        except BrokerError as error:
            somebody_lost.set()
            holder = world.ledger.holder(world.cmk(key_id))
            return error.reason, holder.state if holder else None
        return None, State.IMPORTED

    with ThreadPoolExecutor(50) as pool:
        outcomes = list(pool.map(ask, range(50)))
    reasons = [reason for reason, _ in outcomes]
    assert reasons.count(None) == 1
    assert set(reasons) <= {None, Reason.IMPORT_IN_PROGRESS, Reason.KEY_MATERIAL_ALREADY_BOUND}
    assert Reason.IMPORT_IN_PROGRESS in reasons
    told_bound = {state for reason, state in outcomes if reason is Reason.KEY_MATERIAL_ALREADY_BOUND}
    assert told_bound <= {State.IMPORTED}
    assert len(world.kms.unwrapped) == 1
    assert world.kms.calls["ImportKeyMaterial"] == 1
    holder = world.ledger.holder(world.cmk(key_id))
    assert holder is not None
    assert holder.check_value == key_check_value(world.kms.unwrapped[0]).value


def test_fifty_repeats_of_one_request_at_once_import_once_and_all_get_the_answer() -> None:
    world = World()
    key_id = world.kms.add_key()
    all_there = threading.Barrier(50)

    def ask(_: int) -> tuple[bytes, bool]:
        all_there.wait()
        answer = world.import_key(KeyReference(key_id), request_id=REQUEST)
        return answer.attempt.check_value, answer.replayed

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(ask, range(50)))
    assert {check_value for check_value, _ in answers} == {key_check_value(world.kms.unwrapped[0]).value}
    assert [replayed for _, replayed in answers].count(False) == 1
    assert world.kms.calls["ImportKeyMaterial"] == 1


# GetImport


def test_get_import_of_an_unknown_request_is_not_found() -> None:
    assert get_reason(World(), "a caller") is Reason.REQUEST_NOT_FOUND


def test_get_import_reads_and_does_not_act() -> None:
    world = World()
    key_id = world.kms.add_key()
    lose_replies(world, "after")
    reason_of(world, key_id, request_id=REQUEST)
    before = known(world)
    world.kms.calls.clear()
    assert get(world) is State.PREPARED
    assert world.kms.calls == {}
    assert known(world) == before


# Quarantine


@pytest.fixture
def quarantined(tmp_path: Path) -> tuple[World, str, str]:
    """A CMK whose row can't be read any more, and another one without a row."""
    world = World()
    files = FileLedger(world, tmp_path)
    held, free = world.kms.add_key(), world.kms.add_key()
    lose_replies(world)
    reason_of(world, held, request_id=REQUEST)
    files.open(keyring=random_keyring())
    world.kms.calls.clear()
    return world, held, free


def test_unreadable_record_lets_nothing_be_sent_for_its_cmk(quarantined: tuple[World, str, str]) -> None:
    world, held, _ = quarantined
    assert reason_of(world, held) is Reason.LEDGER_RECORD_UNREADABLE
    assert reason_of(world, held, request_id=REQUEST) is Reason.LEDGER_RECORD_UNREADABLE
    with pytest.raises(BrokerError) as caught:
        parameters_for(world, held)
    assert caught.value.reason is Reason.LEDGER_RECORD_UNREADABLE
    world.recovery.run_due()
    assert set(world.kms.calls) <= {"DescribeKey"}


def test_unreadable_record_is_told_by_get_import_as_such(quarantined: tuple[World, str, str]) -> None:
    world, _, _ = quarantined
    assert get_reason(world, "a caller") is Reason.LEDGER_RECORD_UNREADABLE


def test_unreadable_record_leaves_other_cmks_alone(quarantined: tuple[World, str, str]) -> None:
    world, _, free = quarantined
    assert run(world, free).state is State.IMPORTED

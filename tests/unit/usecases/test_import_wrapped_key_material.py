"""Material that a caller wrapped: tokens, refusals, repetition."""

import secrets
from datetime import timedelta

import pytest

from keybroker.domain.attempt import Evidence, State
from keybroker.domain.errors import BrokerError, Reason
from keybroker.domain.external_key import KeyReference, KeyState
from keybroker.domain.wrapping import RSAES_OAEP_SHA_256, RSAES_PKCS1_V1_5, WrappingAlgorithm
from keybroker.usecases.import_wrapped_key_material import Given
from tests.builders import World, lost_reply, refusal
from tests.unit.usecases.support import (
    REQUEST,
    SENDS_OF_ONE_CALL,
    Killed,
    given,
    known,
    lose_replies,
    parameters_for,
    restart,
    run_wrapped,
    stop_at,
    wrapped_reason,
)


def garbage(token: str) -> Given:
    return Given(secrets.token_bytes(256), token)


@pytest.mark.parametrize("algorithm", [RSAES_OAEP_SHA_256, RSAES_PKCS1_V1_5], ids=lambda a: a.kms_name)
def test_import_wrapped_with_handed_out_parameters_binds_it(algorithm: WrappingAlgorithm) -> None:
    world = World()
    key_id = world.kms.add_key()
    parameters = parameters_for(world, key_id, algorithm)
    material = secrets.token_bytes(32)
    row = run_wrapped(world, key_id, given(parameters, material)).attempt
    assert (row.state, row.evidence) == (State.IMPORTED, Evidence.ACCEPTED)
    assert (row.algorithm, row.check_value) == (algorithm.kms_name, b"")
    assert world.kms.bound_material(key_id) == material
    assert world.import_wrapped.algorithm_of(parameters.import_token) is algorithm


def test_import_wrapped_foreign_token_is_refused_before_any_call() -> None:
    world = World()
    key_id = world.kms.add_key()
    foreign = world.kms.get_parameters_for_import(world.cmk(key_id), RSAES_OAEP_SHA_256, deadline=world.deadline())
    world.kms.calls.clear()
    assert wrapped_reason(world, key_id, given(foreign)) is Reason.IMPORT_TOKEN_UNKNOWN
    assert world.kms.calls == {}


def test_import_wrapped_foreign_token_is_taken_where_allowed() -> None:
    world = World(allow_foreign_tokens=True)
    key_id = world.kms.add_key()
    foreign = world.kms.get_parameters_for_import(world.cmk(key_id), RSAES_OAEP_SHA_256, deadline=world.deadline())
    assert run_wrapped(world, key_id, given(foreign)).attempt.evidence is Evidence.ACCEPTED


def test_import_wrapped_token_of_another_cmk_is_refused_before_any_call() -> None:
    world = World()
    one, other = world.kms.add_key(), world.kms.add_key()
    parameters = parameters_for(world, one)
    world.kms.calls.clear()
    assert wrapped_reason(world, other, given(parameters)) is Reason.IMPORT_TOKEN_UNKNOWN
    assert world.kms.calls == {}


def test_import_wrapped_expired_token_is_told_and_not_refreshed() -> None:
    world = World(expiry_margin_seconds=0)
    key_id = world.kms.add_key()
    parameters = parameters_for(world, key_id)
    world.kms.calls.clear()
    world.kms.fail_next("ImportKeyMaterial", refusal(Reason.IMPORT_TOKEN_EXPIRED))
    assert wrapped_reason(world, key_id, given(parameters)) is Reason.IMPORT_TOKEN_EXPIRED
    assert world.kms.calls["GetParametersForImport"] == 0


@pytest.mark.parametrize("length", [16, 24, 31, 33])
def test_import_wrapped_wrong_length_has_the_one_reason(length: int) -> None:
    world = World()
    key_id = world.kms.add_key()
    parameters = parameters_for(world, key_id)
    wrong = given(parameters, secrets.token_bytes(length))
    assert wrapped_reason(world, key_id, wrong) is Reason.WRAPPED_KEY_MATERIAL_REFUSED


def test_import_wrapped_after_ten_refusals_sends_no_more_within_the_token_life() -> None:
    world = World()
    key_id = world.kms.add_key()
    parameters = parameters_for(world, key_id)
    for _ in range(10):
        assert wrapped_reason(world, key_id, garbage(parameters.import_token)) is Reason.WRAPPED_KEY_MATERIAL_REFUSED
    world.kms.calls.clear()
    with pytest.raises(BrokerError) as caught:
        run_wrapped(world, key_id, given(parameters))
    assert caught.value.reason is Reason.UNWRAP_REFUSALS_EXHAUSTED
    assert caught.value.retry_after_seconds == pytest.approx(24 * 3600)
    assert world.kms.calls == {}
    world.clock.advance(24 * 3600 + 1)
    fresh = parameters_for(world, key_id)
    assert run_wrapped(world, key_id, given(fresh)).attempt.evidence is Evidence.ACCEPTED


def test_import_wrapped_refusals_are_counted_for_each_cmk_apart() -> None:
    world = World()
    noisy, quiet = world.kms.add_key(), world.kms.add_key()
    noisy_parameters, quiet_parameters = parameters_for(world, noisy), parameters_for(world, quiet)
    for _ in range(10):
        wrapped_reason(world, noisy, garbage(noisy_parameters.import_token))
    assert run_wrapped(world, quiet, given(quiet_parameters)).attempt.evidence is Evidence.ACCEPTED


def test_import_wrapped_foreign_refusals_are_counted_too() -> None:
    world = World(allow_foreign_tokens=True)
    key_id = world.kms.add_key()
    foreign = world.kms.get_parameters_for_import(world.cmk(key_id), RSAES_OAEP_SHA_256, deadline=world.deadline())
    for _ in range(10):
        wrapped_reason(world, key_id, garbage(foreign.import_token))
    assert wrapped_reason(world, key_id, given(foreign)) is Reason.UNWRAP_REFUSALS_EXHAUSTED


def test_import_wrapped_reply_lost_sends_the_identical_material_again_within_the_call() -> None:
    world = World()
    key_id = world.kms.add_key()
    world.kms.fail_next("ImportKeyMaterial", lost_reply())
    row = run_wrapped(world, key_id, given(parameters_for(world, key_id))).attempt
    assert (row.evidence, row.sends) == (Evidence.ACCEPTED, 2)


def test_import_wrapped_unresolved_lets_only_its_own_request_through() -> None:
    world = World()
    key_id = world.kms.add_key()
    parameters = parameters_for(world, key_id)
    mine = given(parameters)
    lose_replies(world)
    assert wrapped_reason(world, key_id, mine, request_id=REQUEST) is Reason.IMPORT_UNRESOLVED
    assert wrapped_reason(world, key_id, given(parameters)) is Reason.IMPORT_IN_PROGRESS
    assert wrapped_reason(world, key_id, mine) is Reason.IMPORT_IN_PROGRESS
    assert run_wrapped(world, key_id, mine, request_id=REQUEST).attempt.evidence is Evidence.ACCEPTED


def test_import_wrapped_same_request_with_other_material_is_refused() -> None:
    world = World()
    key_id = world.kms.add_key()
    parameters = parameters_for(world, key_id)
    run_wrapped(world, key_id, given(parameters), request_id=REQUEST)
    world.kms.calls.clear()
    assert wrapped_reason(world, key_id, given(parameters), request_id=REQUEST) is Reason.REQUEST_ID_REUSED
    assert world.kms.calls == {}


def test_import_wrapped_refused_later_does_not_resolve_the_first_send() -> None:
    world = World()
    key_id = world.kms.add_key()
    mine = given(parameters_for(world, key_id))
    world.kms.fail_next("ImportKeyMaterial", lost_reply())
    world.kms.fail_next("ImportKeyMaterial", refusal(Reason.KMS_THROTTLED), times=SENDS_OF_ONE_CALL - 1)
    assert wrapped_reason(world, key_id, mine, request_id=REQUEST) is Reason.IMPORT_UNRESOLVED
    assert known(world).open_sends == 1
    assert wrapped_reason(world, key_id, mine) is Reason.IMPORT_IN_PROGRESS


def test_import_wrapped_pkcs1_is_not_stored_and_goes_on_with_what_the_caller_brings_again() -> None:
    world = World()
    key_id = world.kms.add_key()
    mine = given(parameters_for(world, key_id, RSAES_PKCS1_V1_5))
    lose_replies(world)
    assert wrapped_reason(world, key_id, mine, request_id=REQUEST) is Reason.IMPORT_UNRESOLVED
    assert known(world).wrapped_key_material == b""
    world.restart()
    assert run_wrapped(world, key_id, mine, request_id=REQUEST).attempt.evidence is Evidence.ACCEPTED


def test_import_wrapped_left_claimed_by_a_process_that_died_is_let_go_and_starts_over() -> None:
    world = World()
    key_id = world.kms.add_key()
    mine = given(parameters_for(world, key_id))
    stop_at(world, "prepare: before")
    with pytest.raises(Killed):
        run_wrapped(world, key_id, mine, request_id=REQUEST)
    restart(world)
    assert known(world).state is State.CLAIMED
    assert wrapped_reason(world, key_id, mine, request_id=REQUEST) is Reason.IMPORT_IN_PROGRESS
    assert run_wrapped(world, key_id, mine, request_id=REQUEST).attempt.evidence is Evidence.ACCEPTED


def test_import_wrapped_of_an_enabled_cmk_is_already_bound_for_another_request() -> None:
    world = World()
    key_id = world.kms.add_key()
    mine = given(parameters_for(world, key_id))
    run_wrapped(world, key_id, mine)
    assert wrapped_reason(world, key_id, mine) is Reason.KEY_MATERIAL_ALREADY_BOUND


def test_import_wrapped_foreign_token_without_a_known_expiry_is_taken_for_a_whole_life_from_now() -> None:
    world = World(allow_foreign_tokens=True)
    key_id = world.kms.add_key()
    foreign = world.kms.get_parameters_for_import(world.cmk(key_id), RSAES_OAEP_SHA_256, deadline=world.deadline())
    world.clock.advance(3600)
    lose_replies(world)
    assert wrapped_reason(world, key_id, given(foreign), request_id=REQUEST) is Reason.IMPORT_UNRESOLVED
    (expiry,) = known(world).pair_expiries
    assert expiry >= foreign.expires_at + timedelta(minutes=59)


def test_validate_checks_token_and_cmk_and_sends_nothing() -> None:
    world = World()
    key_id = world.kms.add_key()
    mine = given(parameters_for(world, key_id))
    reference = KeyReference(key_id)
    key = world.import_wrapped.validate(world.kms, reference, mine, deadline=world.deadline())
    assert key.state is KeyState.PENDING_IMPORT
    assert world.kms.calls["ImportKeyMaterial"] == 0
    with pytest.raises(BrokerError, match="did not hand out"):
        world.import_wrapped.validate(world.kms, reference, garbage("unknown"), deadline=world.deadline())


def test_validate_of_a_cmk_that_an_unresolved_import_holds_is_in_progress() -> None:
    world = World()
    key_id = world.kms.add_key()
    mine = given(parameters_for(world, key_id))
    lose_replies(world)
    assert wrapped_reason(world, key_id, mine) is Reason.IMPORT_UNRESOLVED
    with pytest.raises(BrokerError) as caught:
        world.import_wrapped.validate(world.kms, KeyReference(key_id), mine, deadline=world.deadline())
    assert caught.value.reason is Reason.IMPORT_IN_PROGRESS

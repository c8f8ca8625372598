"""Material that a caller wrapped: tokens, refusals, repetition."""

import secrets
from contextlib import nullcontext

import pytest
from cryptography.hazmat.primitives.serialization import load_der_public_key

from keybroker.domain.errors import BrokerError, Reason
from keybroker.domain.external_key import KeyReference, KeyState
from keybroker.domain.import_parameters import ImportParameters
from keybroker.domain.wrapping import RSAES_OAEP_SHA_256, RSAES_PKCS1_V1_5, WrappingAlgorithm
from tests.builders import World, lost_reply, refusal


def parameters_for(world: World, key_id: str, algorithm: WrappingAlgorithm = RSAES_OAEP_SHA_256) -> ImportParameters:
    return world.hand_out.run(world.kms, KeyReference(key_id), algorithm, deadline=world.deadline())


def wrapped(parameters: ImportParameters, material: bytes | None = None) -> bytes:
    key = load_der_public_key(parameters.wrapping_public_key_der)
    return key.encrypt(material or secrets.token_bytes(32), parameters.algorithm.padding)  # type: ignore[union-attr]


def run(world: World, key_id: str, blob: bytes, token: str) -> KeyState:
    delivered = world.import_wrapped.run(
        world.kms,
        KeyReference(key_id),
        wrapped_key_material=blob,
        import_token=token,
        deadline=world.deadline(),
    )
    return delivered.key.state


def reason_of(world: World, key_id: str, blob: bytes, token: str) -> Reason:
    with pytest.raises(BrokerError) as caught:
        run(world, key_id, blob, token)
    return caught.value.reason


@pytest.mark.parametrize("algorithm", [RSAES_OAEP_SHA_256, RSAES_PKCS1_V1_5], ids=lambda a: a.kms_name)
def test_import_wrapped_with_handed_out_parameters_binds_it(algorithm: WrappingAlgorithm) -> None:
    world = World()
    key_id = world.kms.add_key()
    parameters = parameters_for(world, key_id, algorithm)
    material = secrets.token_bytes(32)
    assert run(world, key_id, wrapped(parameters, material), parameters.import_token) is KeyState.ENABLED
    assert world.kms.bound_material(key_id) == material
    assert world.import_wrapped.algorithm_of(parameters.import_token) is algorithm


def test_import_wrapped_foreign_token_is_refused_before_any_call() -> None:
    world = World()
    key_id = world.kms.add_key()
    foreign = world.kms.get_parameters_for_import(world.cmk(key_id), RSAES_OAEP_SHA_256, deadline=world.deadline())
    world.kms.calls.clear()
    assert reason_of(world, key_id, wrapped(foreign), foreign.import_token) is Reason.IMPORT_TOKEN_UNKNOWN
    assert world.kms.calls == {}


def test_import_wrapped_foreign_token_is_taken_where_allowed() -> None:
    world = World(allow_foreign_tokens=True)
    key_id = world.kms.add_key()
    foreign = world.kms.get_parameters_for_import(world.cmk(key_id), RSAES_OAEP_SHA_256, deadline=world.deadline())
    assert run(world, key_id, wrapped(foreign), foreign.import_token) is KeyState.ENABLED


def test_import_wrapped_token_of_another_cmk_is_refused_before_any_call() -> None:
    world = World()
    one, other = world.kms.add_key(), world.kms.add_key()
    parameters = parameters_for(world, one)
    world.kms.calls.clear()
    assert reason_of(world, other, wrapped(parameters), parameters.import_token) is Reason.IMPORT_TOKEN_UNKNOWN
    assert world.kms.calls == {}


def test_import_wrapped_expired_token_is_told_and_not_refreshed() -> None:
    world = World(expiry_margin_seconds=0)
    key_id = world.kms.add_key()
    parameters = parameters_for(world, key_id)
    world.kms.calls.clear()
    world.kms.fail_next("ImportKeyMaterial", refusal(Reason.IMPORT_TOKEN_EXPIRED))
    assert reason_of(world, key_id, wrapped(parameters), parameters.import_token) is Reason.IMPORT_TOKEN_EXPIRED
    assert world.kms.calls["GetParametersForImport"] == 0


@pytest.mark.parametrize("length", [16, 24, 31, 33])
def test_import_wrapped_wrong_length_has_the_one_reason(length: int) -> None:
    world = World()
    key_id = world.kms.add_key()
    parameters = parameters_for(world, key_id)
    blob = wrapped(parameters, secrets.token_bytes(length))
    assert reason_of(world, key_id, blob, parameters.import_token) is Reason.WRAPPED_KEY_MATERIAL_REFUSED


def test_import_wrapped_after_ten_refusals_sends_no_more_within_the_token_life() -> None:
    world = World()
    key_id = world.kms.add_key()
    parameters = parameters_for(world, key_id)
    for _ in range(10):
        blob = secrets.token_bytes(256)
        assert reason_of(world, key_id, blob, parameters.import_token) is Reason.WRAPPED_KEY_MATERIAL_REFUSED
    world.kms.calls.clear()
    with pytest.raises(BrokerError) as caught:
        run(world, key_id, wrapped(parameters), parameters.import_token)
    assert caught.value.reason is Reason.UNWRAP_REFUSALS_EXHAUSTED
    assert caught.value.retry_after_seconds == pytest.approx(24 * 3600)
    assert world.kms.calls == {}
    world.clock.advance(24 * 3600 + 1)
    fresh = parameters_for(world, key_id)
    assert run(world, key_id, wrapped(fresh), fresh.import_token) is KeyState.ENABLED


def test_import_wrapped_refusals_are_counted_for_each_cmk_apart() -> None:
    world = World()
    noisy, quiet = world.kms.add_key(), world.kms.add_key()
    noisy_parameters, quiet_parameters = parameters_for(world, noisy), parameters_for(world, quiet)
    for _ in range(10):
        reason_of(world, noisy, secrets.token_bytes(256), noisy_parameters.import_token)
    assert run(world, quiet, wrapped(quiet_parameters), quiet_parameters.import_token) is KeyState.ENABLED


def test_import_wrapped_foreign_refusals_are_counted_too() -> None:
    world = World(allow_foreign_tokens=True)
    key_id = world.kms.add_key()
    foreign = world.kms.get_parameters_for_import(world.cmk(key_id), RSAES_OAEP_SHA_256, deadline=world.deadline())
    for _ in range(10):
        reason_of(world, key_id, secrets.token_bytes(256), foreign.import_token)
    assert reason_of(world, key_id, wrapped(foreign), foreign.import_token) is Reason.UNWRAP_REFUSALS_EXHAUSTED


def test_import_wrapped_reply_lost_lets_only_the_identical_blob_through() -> None:
    world = World()
    key_id = world.kms.add_key()
    parameters = parameters_for(world, key_id)
    blob = wrapped(parameters)
    world.kms.fail_next("ImportKeyMaterial", lost_reply())
    assert reason_of(world, key_id, blob, parameters.import_token) is Reason.IMPORT_UNRESOLVED
    other = wrapped(parameters)
    assert reason_of(world, key_id, other, parameters.import_token) is Reason.IMPORT_IN_PROGRESS
    assert run(world, key_id, blob, parameters.import_token) is KeyState.ENABLED


def test_import_wrapped_identical_blob_refused_later_does_not_resolve_the_first_send() -> None:
    world = World()
    key_id = world.kms.add_key()
    parameters = parameters_for(world, key_id)
    blob = wrapped(parameters)
    world.kms.fail_next("ImportKeyMaterial", lost_reply())
    world.kms.fail_next("ImportKeyMaterial", refusal(Reason.KMS_THROTTLED))
    assert reason_of(world, key_id, blob, parameters.import_token) is Reason.IMPORT_UNRESOLVED
    assert reason_of(world, key_id, blob, parameters.import_token) is Reason.KMS_THROTTLED
    other = wrapped(parameters)
    assert reason_of(world, key_id, other, parameters.import_token) is Reason.IMPORT_IN_PROGRESS


def test_import_wrapped_enabled_cmk_is_already_bound() -> None:
    world = World()
    key_id = world.kms.add_key()
    parameters = parameters_for(world, key_id)
    blob = wrapped(parameters)
    run(world, key_id, blob, parameters.import_token)
    assert reason_of(world, key_id, blob, parameters.import_token) is Reason.KEY_MATERIAL_ALREADY_BOUND


def test_validate_checks_token_and_cmk_and_sends_nothing() -> None:
    world = World()
    key_id = world.kms.add_key()
    parameters = parameters_for(world, key_id)
    reference = KeyReference(key_id)
    blob = wrapped(parameters)
    key = world.import_wrapped.validate(
        world.kms,
        reference,
        wrapped_key_material=blob,
        import_token=parameters.import_token,
        deadline=world.deadline(),
    )
    assert key.state is KeyState.PENDING_IMPORT
    assert world.kms.calls["ImportKeyMaterial"] == 0
    with pytest.raises(BrokerError, match="did not hand out"):
        world.import_wrapped.validate(
            world.kms, reference, wrapped_key_material=blob, import_token="unknown", deadline=world.deadline()
        )


def test_validate_lets_the_identical_blob_of_an_unresolved_import_through_as_run_does() -> None:
    world = World()
    key_id = world.kms.add_key()
    parameters = parameters_for(world, key_id)
    blob = wrapped(parameters)
    world.kms.fail_next("ImportKeyMaterial", lost_reply())
    reason_of(world, key_id, blob, parameters.import_token)
    for candidate, refused in ((blob, False), (wrapped(parameters), True)):
        with pytest.raises(BrokerError) if refused else nullcontext():
            world.import_wrapped.validate(
                world.kms,
                KeyReference(key_id),
                wrapped_key_material=candidate,
                import_token=parameters.import_token,
                deadline=world.deadline(),
            )

"""What an import does with its source of randomness: records it, and stops before anything is sent if it fails."""

from uuid import uuid4

import pytest

from keybroker.adapters.entropy.checked import CheckedEntropy
from keybroker.adapters.entropy.failures import unavailable
from keybroker.domain.attempt import TESTS_PASSED, Attempt, State
from keybroker.domain.errors import BrokerError, Reason
from keybroker.domain.external_key import KeyReference, NewKey
from keybroker.domain.key_spec import AES_256
from keybroker.usecases.asked import Asked
from tests.builders import World, lost_reply
from tests.unit.entropy.doubles import Switched, stuck
from tests.unit.usecases.support import SENDS_OF_ONE_CALL, error_of, given, parameters_for, run

FAILURE = unavailable("os", "does not answer")


def recorded(world: World, request_id: str) -> Attempt:
    row = world.row(request_id)
    assert row is not None
    return row


def test_import_records_the_source_of_its_material() -> None:
    world = World()
    world.entropy.name = "pkcs11"
    request_id = str(uuid4())
    run(world, world.kms.add_key(), request_id=request_id)
    assert recorded(world, request_id).entropy_source == "pkcs11"


def test_source_is_recorded_before_the_material_is_sent() -> None:
    world = World()
    world.kms.fail_next("ImportKeyMaterial", lost_reply(), times=SENDS_OF_ONE_CALL)
    request_id = str(uuid4())
    error_of(world, world.kms.add_key(), request_id=request_id)
    row = recorded(world, request_id)
    assert (row.state, row.entropy_source) == (State.PREPARED, "os")


def test_import_of_material_that_the_caller_wrapped_records_no_source() -> None:
    world = World()
    key_id = world.kms.add_key()
    request_id = str(uuid4())
    world.entropy.failure = FAILURE  # nor does it ask for one
    world.import_wrapped.run(
        world.kms,
        Asked("a caller", request_id),
        KeyReference(key_id),
        given(parameters_for(world, key_id)),
        deadline=world.deadline(),
    )
    row = recorded(world, request_id)
    assert (row.state, row.entropy_source) == (State.IMPORTED, "")


def test_known_failure_stops_an_import_before_a_cmk_is_made_or_anything_is_asked() -> None:
    world = World()
    world.entropy.failure = FAILURE
    request_id = str(uuid4())
    for target in (NewKey(AES_256), world.kms.add_key()):
        assert error_of(world, target, request_id=request_id).reason is Reason.ENTROPY_UNAVAILABLE
    assert world.kms.calls == {}
    assert world.row(request_id) is None


def test_failure_while_material_is_generated_releases_the_cmk_and_the_same_request_starts_over() -> None:
    world = World()
    world.entropy.failure, world.entropy.fails_late = FAILURE, True
    key_id, request_id = world.kms.add_key(), str(uuid4())
    error = error_of(world, key_id, request_id=request_id)
    assert error.reason is Reason.ENTROPY_UNAVAILABLE
    assert world.kms.calls["ImportKeyMaterial"] == 0
    row = recorded(world, request_id)
    assert (row.state, row.sends, row.entropy_source) == (State.RELEASED, 0, "")
    assert row.failure is not None
    assert row.failure.reason == "ENTROPY_UNAVAILABLE"
    world.entropy.failure = None
    assert run(world, key_id, request_id=request_id).state is State.IMPORTED


def test_validation_finds_a_source_that_fails() -> None:
    world = World()
    world.entropy.failure = FAILURE
    key_id = world.kms.add_key()
    use_case = world.import_external_key
    with pytest.raises(BrokerError, match="does not answer"):
        use_case.validate_existing(world.kms, KeyReference(key_id), deadline=world.deadline())
    with pytest.raises(BrokerError, match="does not answer"):
        use_case.validate_new(world.kms, NewKey(AES_256), deadline=world.deadline())


def test_import_that_was_sent_is_brought_to_its_end_without_the_source() -> None:
    world = World()
    key_id, request_id = world.kms.add_key(), str(uuid4())
    world.kms.fail_next("ImportKeyMaterial", lost_reply(), when="after", times=SENDS_OF_ONE_CALL)
    error_of(world, key_id, request_id=request_id)
    world.entropy.failure = FAILURE
    assert run(world, key_id, request_id=request_id).state is State.IMPORTED
    assert world.import_key(KeyReference(key_id), request_id=request_id).replayed


def test_stuck_generator_imports_nothing_and_the_next_import_after_its_recovery_does() -> None:
    generator = Switched()
    world = World(entropy=CheckedEntropy(name="pkcs11", generator=generator))  # type: ignore[arg-type]
    key_id = world.kms.add_key()
    generator.broken = stuck
    error = error_of(world, key_id)
    assert (error.reason, "repetition count" in error.message) == (Reason.ENTROPY_UNAVAILABLE, True)
    assert world.kms.bound_material(key_id) is None
    generator.broken = None
    row = run(world, key_id)
    assert (row.entropy_source, row.entropy_tests) == ("pkcs11", TESTS_PASSED)
    assert world.kms.bound_material(key_id) == generator.given[-1]

"""The main job over a fake KMS: what is sent, what is told, and what is never done."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from keybroker.domain.errors import BrokerError, KmsError, Reason
from keybroker.domain.external_key import KeyReference, KeyState, NewKey
from keybroker.domain.key_check_value import key_check_value
from keybroker.domain.key_spec import AES_128, AES_192, AES_256, KeySpec
from keybroker.domain.wrapping import RSAES_OAEP_SHA_256, RSAES_PKCS1_V1_5, WrappingAlgorithm
from keybroker.usecases.import_external_key import Imported
from keybroker.usecases.obtain_import_parameters import ParametersSource
from keybroker.usecases.progress import Progress
from tests.builders import World, lost_reply, refusal


def run(
    world: World,
    target: str | NewKey,
    *,
    algorithm: WrappingAlgorithm = RSAES_OAEP_SHA_256,
    progress: Progress | None = None,
    seconds: float = 15.0,
) -> Imported:
    return world.import_external_key.run(
        world.kms,
        target if isinstance(target, NewKey) else KeyReference(target),
        algorithm,
        progress=progress or Progress(),
        deadline=world.deadline(seconds),
    )


def reason_of(world: World, target: str | NewKey, **options: object) -> Reason:
    with pytest.raises(BrokerError) as caught:
        run(world, target, **options)  # type: ignore[arg-type]
    return caught.value.reason


@pytest.mark.parametrize("algorithm", [RSAES_OAEP_SHA_256, RSAES_PKCS1_V1_5], ids=lambda a: a.kms_name)
@pytest.mark.parametrize("spec", [AES_128, AES_192, AES_256], ids=lambda s: s.kms_name)
def test_import_existing_cmk_binds_material_of_its_length(spec: KeySpec, algorithm: WrappingAlgorithm) -> None:
    world = World()
    key_id = world.kms.add_key(spec=spec)
    imported = run(world, key_id, algorithm=algorithm)
    bound = world.kms.bound_material(key_id)
    assert bound is not None
    assert len(bound) == spec.length_bytes
    assert imported.check_value == key_check_value(bound)
    assert imported.delivered.key.state is KeyState.ENABLED
    assert imported.delivered.sent.kms_request_id
    world.claims.check_free(world.cmk(key_id))


def test_import_cold_makes_three_reads_and_one_write() -> None:
    world = World()
    run(world, world.kms.add_key())
    assert world.kms.calls == {"DescribeKey": 2, "GetParametersForImport": 1, "ImportKeyMaterial": 1}


def test_import_warm_makes_two_reads_and_one_write() -> None:
    world = World()
    key_id = world.kms.add_key()
    world.hand_out.run(world.kms, KeyReference(key_id), RSAES_OAEP_SHA_256, deadline=world.deadline())
    world.kms.calls.clear()
    imported = run(world, key_id)
    assert imported.parameters is ParametersSource.CACHED
    assert world.kms.calls == {"DescribeKey": 2, "ImportKeyMaterial": 1}


def test_import_new_cmk_makes_two_reads_and_two_writes() -> None:
    world = World()
    progress = Progress()
    imported = run(world, NewKey(AES_192), progress=progress)
    assert world.kms.calls == {
        "CreateKey": 1,
        "GetParametersForImport": 1,
        "ImportKeyMaterial": 1,
        "DescribeKey": 1,
    }
    assert progress.created_key_id == imported.delivered.key.name.key_id


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (KeyState.ENABLED, Reason.KEY_MATERIAL_ALREADY_BOUND),
        (KeyState.DISABLED, Reason.KEY_DISABLED),
        (KeyState.PENDING_DELETION, Reason.KEY_PENDING_DELETION),
        (KeyState.UNKNOWN, Reason.KEY_STATE_CONFLICT),
    ],
)
def test_import_unfit_state_is_refused_before_a_byte_is_generated(state: KeyState, reason: Reason) -> None:
    world = World()
    assert reason_of(world, world.kms.add_key(state=state)) is reason
    assert world.kms.calls == {"DescribeKey": 1}
    assert world.entropy.filled == []


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"origin": "Aliyun_KMS", "state": KeyState.ENABLED}, Reason.KEY_ORIGIN_NOT_EXTERNAL),
        ({"spec": None}, Reason.KEY_SPEC_UNSUPPORTED),
        ({"dkms_instance_id": "kst-other"}, Reason.KEY_NOT_ON_INSTANCE),
        ({"dkms_instance_id": ""}, Reason.KEY_NOT_ON_INSTANCE),
    ],
)
def test_import_unfit_cmk_is_refused_before_a_byte_is_generated(options: dict[str, object], reason: Reason) -> None:
    world = World()
    assert reason_of(world, world.kms.add_key(**options)) is reason  # type: ignore[arg-type]
    assert world.entropy.filled == []


def test_import_unknown_cmk_is_not_found() -> None:
    assert reason_of(World(), "key-nowhere") is Reason.KEY_NOT_FOUND


def test_import_arn_of_another_account_is_not_found() -> None:
    world = World()
    key_id = world.kms.add_key()
    with pytest.raises(BrokerError) as caught:
        world.import_external_key.run(
            world.kms,
            KeyReference(key_id, account="42"),
            RSAES_OAEP_SHA_256,
            progress=Progress(),
            deadline=world.deadline(),
        )
    assert caught.value.reason is Reason.KEY_NOT_FOUND
    assert world.kms.bound_material(key_id) is None


def test_import_weak_public_key_generates_nothing() -> None:
    world = World()
    world.kms.wrapping_public_key_der = b"not a key"
    assert reason_of(world, world.kms.add_key()) is Reason.WRAPPING_PUBLIC_KEY_REJECTED
    assert world.entropy.filled == []
    assert len(world.cache) == 0


@pytest.mark.parametrize("when", ["before", "after"])
def test_import_reply_lost_is_unresolved_and_sent_once(when: str) -> None:
    world = World()
    key_id = world.kms.add_key()
    world.kms.fail_next("ImportKeyMaterial", lost_reply(), when=when)  # type: ignore[arg-type]
    assert reason_of(world, key_id) is Reason.IMPORT_UNRESOLVED
    assert world.kms.calls["ImportKeyMaterial"] == 1


def test_import_foreign_exception_during_send_is_unresolved(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    key_id = world.kms.add_key()

    def broken(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(world.kms, "import_key_material", broken)
    assert reason_of(world, key_id) is Reason.IMPORT_UNRESOLVED
    assert reason_of(world, key_id) is Reason.IMPORT_IN_PROGRESS


def test_import_after_unresolved_generates_nothing_until_the_token_is_dead() -> None:
    world = World()
    key_id = world.kms.add_key()
    world.kms.fail_next("ImportKeyMaterial", lost_reply())
    assert reason_of(world, key_id) is Reason.IMPORT_UNRESOLVED
    world.kms.calls.clear()
    world.clock.advance(24 * 3600 + 200)
    assert reason_of(world, key_id) is Reason.IMPORT_IN_PROGRESS
    assert world.kms.calls == {"DescribeKey": 1}
    assert len(world.entropy.filled) == 1
    world.clock.advance(200)
    assert run(world, key_id).delivered.key.state is KeyState.ENABLED


def test_import_unresolved_but_bound_is_told_as_bound_afterwards() -> None:
    world = World()
    key_id = world.kms.add_key()
    world.kms.fail_next("ImportKeyMaterial", lost_reply(), when="after")
    assert reason_of(world, key_id) is Reason.IMPORT_UNRESOLVED
    assert reason_of(world, key_id) is Reason.KEY_MATERIAL_ALREADY_BOUND


def test_import_other_cmk_is_free_while_one_is_unresolved() -> None:
    world = World()
    world.kms.fail_next("ImportKeyMaterial", lost_reply())
    assert reason_of(world, world.kms.add_key()) is Reason.IMPORT_UNRESOLVED
    run(world, world.kms.add_key())


@pytest.mark.parametrize("reason", [Reason.KMS_THROTTLED, Reason.KMS_ACCESS_DENIED])
def test_import_provably_refused_frees_the_cmk(reason: Reason) -> None:
    world = World()
    key_id = world.kms.add_key()
    world.kms.fail_next("ImportKeyMaterial", refusal(reason))
    assert reason_of(world, key_id) is reason
    assert world.kms.calls["ImportKeyMaterial"] == 1
    run(world, key_id)


@pytest.mark.parametrize("reason", [Reason.IMPORT_TOKEN_INVALID, Reason.IMPORT_TOKEN_EXPIRED])
def test_import_token_refused_once_wraps_the_same_material_under_a_fresh_pair(reason: Reason) -> None:
    world = World()
    key_id = world.kms.add_key()
    world.kms.fail_next("ImportKeyMaterial", refusal(reason))
    progress = Progress()
    imported = run(world, key_id, progress=progress)
    assert len(world.entropy.filled) == 1
    assert imported.check_value == key_check_value(world.kms.bound_material(key_id) or b"")
    assert world.kms.calls["GetParametersForImport"] == 2
    assert world.kms.calls["ImportKeyMaterial"] == 2
    assert progress.parameters is ParametersSource.FETCHED


def test_import_token_refused_twice_ends() -> None:
    world = World()
    world.kms.fail_next("ImportKeyMaterial", refusal(Reason.IMPORT_TOKEN_INVALID), times=9)
    assert reason_of(world, world.kms.add_key()) is Reason.IMPORT_TOKEN_INVALID
    assert world.kms.calls["ImportKeyMaterial"] == 2
    assert world.kms.calls["GetParametersForImport"] == 2
    assert len(world.cache) == 0


def test_import_token_refused_then_reply_lost_is_unresolved() -> None:
    world = World()
    world.kms.fail_next("ImportKeyMaterial", refusal(Reason.IMPORT_TOKEN_EXPIRED))
    world.kms.fail_next("ImportKeyMaterial", lost_reply())
    key_id = world.kms.add_key()
    assert reason_of(world, key_id) is Reason.IMPORT_UNRESOLVED
    assert reason_of(world, key_id) is Reason.IMPORT_IN_PROGRESS


def test_import_material_refused_because_another_was_bound_meanwhile_says_so() -> None:
    world = World()
    key_id = world.kms.add_key()
    world.kms.fail_next("ImportKeyMaterial", refusal(Reason.WRAPPED_KEY_MATERIAL_REFUSED))
    describe, states = world.kms.describe_key, iter([KeyState.PENDING_IMPORT, KeyState.ENABLED])

    def moving(name: str, **options: object) -> object:
        world.kms.set_state(key_id, next(states))
        return describe(name, **options)  # type: ignore[arg-type]

    world.kms.describe_key = moving  # type: ignore[method-assign,assignment]
    assert reason_of(world, key_id) is Reason.KEY_MATERIAL_ALREADY_BOUND


def test_import_own_material_refused_drops_the_pair_and_is_not_blamed_on_the_caller() -> None:
    world = World()
    key_id = world.kms.add_key()
    world.kms.fail_next("ImportKeyMaterial", refusal(Reason.WRAPPED_KEY_MATERIAL_REFUSED))
    with pytest.raises(BrokerError) as caught:
        run(world, key_id)
    assert caught.value.reason is Reason.GENERATED_MATERIAL_REFUSED
    assert caught.value.metadata["kms_request_id"] == "a-request"
    assert len(world.cache) == 0


def test_import_state_conflict_is_explained_by_the_state() -> None:
    world = World()
    key_id = world.kms.add_key()
    issue = world.kms.get_parameters_for_import

    def schedule_meanwhile(*args: object, **options: object) -> object:
        world.kms.set_state(key_id, KeyState.PENDING_DELETION)
        return issue(*args, **options)  # type: ignore[arg-type]

    world.kms.get_parameters_for_import = schedule_meanwhile  # type: ignore[method-assign,assignment]
    assert reason_of(world, key_id) is Reason.KEY_PENDING_DELETION


def test_import_enabled_late_is_waited_for() -> None:
    world = World()
    world.kms.show_enabled_after_describes(3)
    imported = run(world, world.kms.add_key())
    assert imported.delivered.key.state is KeyState.ENABLED
    assert world.clock.slept == [0.1, 0.2, 0.4]


def test_import_never_seen_enabled_is_unresolved_within_the_deadline() -> None:
    world = World()
    world.kms.show_enabled_after_describes(1000)
    key_id = world.kms.add_key()
    before = world.clock.monotonic()
    with pytest.raises(BrokerError) as caught:
        run(world, key_id, seconds=6.0)
    assert caught.value.reason is Reason.IMPORT_UNRESOLVED
    assert caught.value.metadata["kms_request_id"]
    assert 5.8 <= world.clock.monotonic() - before <= 6.0  # all of the time is used
    assert max(world.clock.slept) <= 2.0


def test_import_confirming_read_that_fails_is_read_again() -> None:
    world = World()
    key_id = world.kms.add_key()
    world.kms.fail_next("DescribeKey", refusal(Reason.KMS_THROTTLED), when="before", times=0)
    send = world.kms.import_key_material

    def send_then_throttle(*args: object, **options: object) -> object:
        world.kms.fail_next("DescribeKey", refusal(Reason.KMS_THROTTLED), times=2)
        return send(*args, **options)  # type: ignore[arg-type]

    world.kms.import_key_material = send_then_throttle  # type: ignore[method-assign,assignment]
    assert run(world, key_id).delivered.key.state is KeyState.ENABLED


def test_import_disabled_right_after_acceptance_is_unresolved_not_failed() -> None:
    world = World()
    key_id = world.kms.add_key()
    send = world.kms.import_key_material

    def send_then_disable(*args: object, **options: object) -> object:
        reply = send(*args, **options)  # type: ignore[arg-type]
        world.kms.set_state(key_id, KeyState.DISABLED)
        return reply

    world.kms.import_key_material = send_then_disable  # type: ignore[method-assign,assignment]
    assert reason_of(world, key_id) is Reason.IMPORT_UNRESOLVED


def test_import_deadline_too_short_to_send_sends_nothing_and_frees_the_cmk() -> None:
    world = World()
    key_id = world.kms.add_key()
    assert reason_of(world, key_id, seconds=0.2) is Reason.DEADLINE_TOO_SHORT
    assert world.kms.calls["ImportKeyMaterial"] == 0
    run(world, key_id)


@pytest.mark.parametrize(
    ("operation", "error", "reason"),
    [
        ("GetParametersForImport", refusal(Reason.KMS_THROTTLED), Reason.KMS_THROTTLED),
        ("ImportKeyMaterial", lost_reply(), Reason.IMPORT_UNRESOLVED),
        ("ImportKeyMaterial", refusal(Reason.KMS_ACCESS_DENIED), Reason.KMS_ACCESS_DENIED),
    ],
)
def test_import_new_cmk_that_fails_later_is_named(operation: str, error: KmsError, reason: Reason) -> None:
    world = World()
    world.kms.fail_next(operation, error)
    progress = Progress()
    assert reason_of(world, NewKey(AES_256), progress=progress) is reason
    assert progress.created_key_id == world.kms.key_ids[0]


def test_import_create_reply_lost_is_outcome_unknown_and_not_repeated() -> None:
    world = World()
    world.kms.fail_next("CreateKey", lost_reply(), when="after")
    assert reason_of(world, NewKey(AES_256)) is Reason.CREATE_OUTCOME_UNKNOWN
    assert world.kms.calls == {"CreateKey": 1}


def test_import_success_lets_go_of_cached_parameters() -> None:
    world = World()
    run(world, world.kms.add_key())
    assert len(world.cache) == 0


def test_validate_existing_checks_and_changes_nothing() -> None:
    world = World()
    key_id = world.kms.add_key()
    key = world.import_external_key.validate_existing(world.kms, KeyReference(key_id), deadline=world.deadline())
    assert key.state is KeyState.PENDING_IMPORT
    assert world.kms.calls == {"DescribeKey": 1}
    with pytest.raises(BrokerError, match="Enabled"):
        world.import_external_key.validate_existing(
            world.kms, KeyReference(world.kms.add_key(state=KeyState.ENABLED)), deadline=world.deadline()
        )


def test_validate_new_checks_the_alias_and_creates_nothing() -> None:
    world = World()
    new_key = NewKey(AES_128, alias="alias/free")
    world.import_external_key.validate_new(world.kms, new_key, deadline=world.deadline())
    assert world.kms.key_ids == []


def test_import_while_another_of_the_same_cmk_runs_is_refused_without_generating() -> None:
    world = World()
    key_id = world.kms.add_key()
    send = world.kms.import_key_material
    second: list[Reason] = []

    def send_and_try_again(*args: object, **options: object) -> object:
        second.append(reason_of(world, key_id))
        return send(*args, **options)  # type: ignore[arg-type]

    world.kms.import_key_material = send_and_try_again  # type: ignore[method-assign,assignment]
    assert run(world, key_id).delivered.key.state is KeyState.ENABLED
    assert second == [Reason.IMPORT_IN_PROGRESS]
    assert len(world.entropy.filled) == 1


def test_import_waits_for_parameters_that_are_being_fetched_and_uses_no_older_pair() -> None:
    """A pair that is issued after the import has its own may revoke it (rule R5)."""
    world = World()
    key_id = world.kms.add_key()
    fetching, go_on = threading.Event(), threading.Event()
    issue = world.kms.get_parameters_for_import

    def slowly(*args: object, **options: object) -> object:
        fetching.set()
        go_on.wait(5)
        return issue(*args, **options)  # type: ignore[arg-type]

    world.kms.get_parameters_for_import = slowly  # type: ignore[method-assign,assignment]
    with ThreadPoolExecutor(2) as pool:
        hand_out = pool.submit(
            world.hand_out.run, world.kms, KeyReference(key_id), RSAES_OAEP_SHA_256, deadline=world.deadline()
        )
        assert fetching.wait(5)
        importing = pool.submit(run, world, key_id)
        time.sleep(0.1)
        assert world.entropy.filled == []
        go_on.set()
        assert importing.result().parameters is ParametersSource.CACHED
        assert hand_out.result().cmk.key_id == key_id
    assert world.kms.calls["GetParametersForImport"] == 1


def test_import_under_way_lets_nobody_fetch_parameters() -> None:
    world = World()
    key_id = world.kms.add_key()
    send = world.kms.import_key_material
    told: list[Reason] = []

    def send_and_ask(*args: object, **options: object) -> object:
        with pytest.raises(BrokerError) as caught:
            world.hand_out.run(world.kms, KeyReference(key_id), RSAES_OAEP_SHA_256, deadline=world.deadline())
        told.append(caught.value.reason)
        return send(*args, **options)  # type: ignore[arg-type]

    world.kms.import_key_material = send_and_ask  # type: ignore[method-assign,assignment]
    run(world, key_id)
    assert told == [Reason.IMPORT_IN_PROGRESS]

"""The main job over a fake KMS: what is sent, what is told, and what is never done."""

import ctypes
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from keybroker.assembly import Choices
from keybroker.domain.attempt import Evidence, State
from keybroker.domain.errors import BrokerError, KmsError, Reason
from keybroker.domain.external_key import KeyReference, KeyState, NewKey
from keybroker.domain.key_check_value import key_check_value
from keybroker.domain.key_spec import AES_128, AES_192, AES_256, KeySpec
from keybroker.domain.wrapping import RSAES_OAEP_SHA_256, RSAES_PKCS1_V1_5, WrappingAlgorithm
from keybroker.usecases.asked import Asked
from keybroker.usecases.obtain_import_parameters import ParametersSource
from keybroker.usecases.progress import Progress
from tests.builders import CountingEntropy, World, lost_reply, refusal
from tests.unit.usecases.support import (
    REQUEST,
    SENDS_OF_ONE_CALL,
    error_of,
    known,
    lose_replies,
    parameters_for,
    reason_of,
    run,
)


def run_with(world: World, progress: Progress, target: str | NewKey, *, request_id: str = "") -> None:
    """As `run`, with a look at how far it came."""
    world.import_external_key.run(
        world.kms,
        Asked("a caller", request_id or str(uuid4())),
        target if isinstance(target, NewKey) else KeyReference(target),
        RSAES_OAEP_SHA_256,
        allow_second_key=False,
        progress=progress,
        deadline=world.deadline(),
    )


@pytest.mark.parametrize("algorithm", [RSAES_OAEP_SHA_256, RSAES_PKCS1_V1_5], ids=lambda a: a.kms_name)
@pytest.mark.parametrize("spec", [AES_128, AES_192, AES_256], ids=lambda s: s.kms_name)
def test_import_existing_cmk_binds_material_of_its_length(spec: KeySpec, algorithm: WrappingAlgorithm) -> None:
    world = World()
    key_id = world.kms.add_key(spec=spec)
    imported = run(world, key_id, algorithm=algorithm)
    bound = world.kms.bound_material(key_id)
    assert bound is not None
    assert len(bound) == spec.length_bytes
    assert (imported.state, imported.evidence) == (State.IMPORTED, Evidence.ACCEPTED)
    assert imported.check_value == key_check_value(bound).value
    assert imported.key is not None
    assert imported.key.state is KeyState.ENABLED
    assert imported.kms_request_id
    with world.claims.try_hold(world.cmk(key_id)) as free:
        assert free


def test_import_cold_makes_three_reads_and_one_write() -> None:
    world = World()
    run(world, world.kms.add_key())
    assert world.kms.calls == {"DescribeKey": 2, "GetParametersForImport": 1, "ImportKeyMaterial": 1}


def test_import_warm_makes_two_reads_and_one_write() -> None:
    world = World()
    key_id = world.kms.add_key()
    parameters_for(world, key_id)
    world.kms.calls.clear()
    assert run(world, key_id).parameters == "cached"
    assert world.kms.calls == {"DescribeKey": 2, "ImportKeyMaterial": 1}


def test_import_new_cmk_makes_two_reads_and_two_writes() -> None:
    world = World()
    progress = Progress()
    run_with(world, progress, NewKey(AES_192))
    assert world.kms.calls == {
        "CreateKey": 1,
        "GetParametersForImport": 1,
        "ImportKeyMaterial": 1,
        "DescribeKey": 1,
    }
    assert progress.created_key_id == world.kms.key_ids[0]


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
        world.import_key(KeyReference(key_id, account="42"))
    assert caught.value.reason is Reason.KEY_NOT_FOUND
    assert world.kms.bound_material(key_id) is None


def test_import_weak_public_key_generates_nothing() -> None:
    world = World()
    world.kms.wrapping_public_key_der = b"not a key"
    assert reason_of(world, world.kms.add_key()) is Reason.WRAPPING_PUBLIC_KEY_REJECTED
    assert world.entropy.filled == []
    assert len(world.cache) == 0


@pytest.mark.parametrize("when", ["before", "after"])
def test_import_reply_lost_sends_the_identical_material_again_within_the_call(when: str) -> None:
    world = World()
    key_id = world.kms.add_key()
    world.kms.fail_next("ImportKeyMaterial", lost_reply(), when=when)  # type: ignore[arg-type]
    sent: list[object] = []
    _record_sends(world, sent)
    imported = run(world, key_id)
    assert imported.evidence is Evidence.ACCEPTED
    assert imported.check_value == key_check_value(world.kms.bound_material(key_id) or b"").value
    assert imported.sends == 2
    assert len(sent) == 2
    assert sent[0] == sent[1]
    assert len(world.entropy.filled) == 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_import_every_reply_lost_is_unresolved_after_a_bounded_number_of_sends(when: str) -> None:
    world = World()
    key_id = world.kms.add_key()
    lose_replies(world, when)
    assert reason_of(world, key_id, request_id=REQUEST) is Reason.IMPORT_UNRESOLVED
    assert world.kms.calls["ImportKeyMaterial"] == SENDS_OF_ONE_CALL
    assert known(world).open_sends == SENDS_OF_ONE_CALL


def test_import_foreign_exception_during_send_is_unresolved(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    key_id = world.kms.add_key()

    def broken(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(world.kms, "import_key_material", broken)
    assert reason_of(world, key_id) is Reason.IMPORT_UNRESOLVED
    assert reason_of(world, key_id) is Reason.IMPORT_IN_PROGRESS


def test_import_by_another_request_after_unresolved_generates_nothing_until_it_is_settled() -> None:
    world = World()
    key_id = world.kms.add_key()
    lose_replies(world)
    world.kms.fail_next("ImportKeyMaterial", lost_reply(), times=2)  # the recovery's
    assert reason_of(world, key_id, request_id=REQUEST) is Reason.IMPORT_UNRESOLVED
    for seconds in (0, 24 * 3600, 400, 61):
        world.clock.advance(seconds)
        assert reason_of(world, key_id) is Reason.IMPORT_IN_PROGRESS
        world.recovery.run_due()
    assert len(world.entropy.filled) == 1
    assert known(world).state is State.NOT_IMPORTED
    assert run(world, key_id).evidence is Evidence.ACCEPTED


def test_import_by_another_request_is_told_that_the_cmk_is_bound_only_once_that_is_known() -> None:
    world = World()
    key_id = world.kms.add_key()
    lose_replies(world, "after")
    assert reason_of(world, key_id, request_id=REQUEST) is Reason.IMPORT_UNRESOLVED
    assert reason_of(world, key_id) is Reason.IMPORT_IN_PROGRESS
    assert run(world, key_id, request_id=REQUEST).evidence is Evidence.ACCEPTED
    assert reason_of(world, key_id) is Reason.KEY_MATERIAL_ALREADY_BOUND


def test_import_other_cmk_is_free_while_one_is_unresolved() -> None:
    world = World()
    lose_replies(world)
    assert reason_of(world, world.kms.add_key()) is Reason.IMPORT_UNRESOLVED
    run(world, world.kms.add_key())


def test_import_refused_for_a_passing_reason_is_sent_again_within_the_call() -> None:
    world = World()
    key_id = world.kms.add_key()
    world.kms.fail_next("ImportKeyMaterial", refusal(Reason.KMS_THROTTLED))
    imported = run(world, key_id)
    assert (imported.sends, imported.refused) == (2, 1)
    assert imported.check_value == key_check_value(world.kms.bound_material(key_id) or b"").value
    assert len(world.entropy.filled) == 1


def test_import_refused_for_a_passing_reason_waits_as_long_as_the_kms_says() -> None:
    world = World()
    throttled = KmsError(
        Reason.KMS_THROTTLED, "Slow down.", kms_code="refused", committed_nothing=True, retry_after_seconds=4.0
    )
    world.kms.fail_next("ImportKeyMaterial", throttled)
    run(world, world.kms.add_key())
    assert world.clock.slept == [4.0]


def test_import_refused_for_a_passing_reason_to_the_end_frees_the_cmk_and_the_request() -> None:
    world = World()
    key_id = world.kms.add_key()
    lose_replies(world, error=refusal(Reason.KMS_THROTTLED))
    assert reason_of(world, key_id, request_id=REQUEST) is Reason.KMS_THROTTLED
    assert known(world).state is State.RELEASED
    assert known(world).open_sends == 0
    assert world.ledger.holder(world.cmk(key_id)) is None
    assert run(world, key_id, request_id=REQUEST).evidence is Evidence.ACCEPTED


def test_import_refused_for_longer_than_the_call_lives_is_told_as_the_refusal() -> None:
    world = World()
    key_id = world.kms.add_key()
    throttled = KmsError(
        Reason.KMS_THROTTLED, "Slow down.", kms_code="refused", committed_nothing=True, retry_after_seconds=30.0
    )
    world.kms.fail_next("ImportKeyMaterial", throttled)
    error = error_of(world, key_id, request_id=REQUEST)
    assert (error.reason, error.retry_after_seconds) == (Reason.KMS_THROTTLED, 30.0)
    assert known(world).state is State.RELEASED
    assert world.clock.slept == []


def test_import_refused_for_good_frees_the_cmk_and_the_request_keeps_its_answer() -> None:
    world = World()
    key_id = world.kms.add_key()
    world.kms.fail_next("ImportKeyMaterial", refusal(Reason.KMS_ACCESS_DENIED))
    assert reason_of(world, key_id, request_id=REQUEST) is Reason.KMS_ACCESS_DENIED
    assert world.kms.calls["ImportKeyMaterial"] == 1
    run(world, key_id)
    assert reason_of(world, key_id, request_id=REQUEST) is Reason.KMS_ACCESS_DENIED


@pytest.mark.parametrize("reason", [Reason.IMPORT_TOKEN_INVALID, Reason.IMPORT_TOKEN_EXPIRED])
def test_import_token_refused_once_wraps_the_same_material_under_a_fresh_pair(reason: Reason) -> None:
    world = World()
    key_id = world.kms.add_key()
    world.kms.fail_next("ImportKeyMaterial", refusal(reason))
    progress = Progress()
    run_with(world, progress, key_id, request_id=REQUEST)
    assert len(world.entropy.filled) == 1
    assert known(world).check_value == key_check_value(world.kms.bound_material(key_id) or b"").value
    assert len(known(world).pair_expiries) == 2
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


def test_import_token_refused_then_reply_lost_sends_the_new_wrapping_again() -> None:
    world = World()
    key_id = world.kms.add_key()
    world.kms.fail_next("ImportKeyMaterial", refusal(Reason.IMPORT_TOKEN_EXPIRED))
    world.kms.fail_next("ImportKeyMaterial", lost_reply())
    sent: list[object] = []
    _record_sends(world, sent)
    imported = run(world, key_id)
    assert (imported.sends, imported.refused) == (3, 1)
    assert sent[0] != sent[1]
    assert sent[1] == sent[2]


def test_import_token_refused_and_no_new_pair_to_be_had_frees_the_cmk() -> None:
    world = World()
    key_id = world.kms.add_key()
    world.kms.fail_next("ImportKeyMaterial", refusal(Reason.IMPORT_TOKEN_EXPIRED))
    world.kms.before(
        "ImportKeyMaterial",
        lambda: world.kms.fail_next("GetParametersForImport", refusal(Reason.KMS_ACCESS_DENIED)),
    )
    assert reason_of(world, key_id, request_id=REQUEST) is Reason.KMS_ACCESS_DENIED
    assert known(world).state is State.RELEASED
    run(world, key_id)


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
    error = error_of(world, key_id)
    assert error.reason is Reason.GENERATED_MATERIAL_REFUSED
    assert error.metadata["kms_request_id"] == "a-request"
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
    assert imported.key is not None
    assert imported.key.state is KeyState.ENABLED
    for slept, longest in zip(world.clock.slept, (0.2, 0.4, 0.8), strict=True):
        assert longest / 2 <= slept <= longest


def test_import_never_seen_enabled_is_unresolved_within_the_deadline() -> None:
    world = World()
    world.kms.show_enabled_after_describes(1000)
    key_id = world.kms.add_key()
    before = world.clock.monotonic()
    error = error_of(world, key_id, seconds=6.0, request_id=REQUEST)
    assert error.reason is Reason.IMPORT_UNRESOLVED
    assert error.metadata["kms_request_id"]
    assert known(world).state is State.ACCEPTED
    assert 3.7 <= world.clock.monotonic() - before <= 6.0  # until no further wait fits
    assert max(world.clock.slept) <= 2.0


def test_import_confirming_read_that_fails_is_read_again() -> None:
    world = World()
    key_id = world.kms.add_key()
    send = world.kms.import_key_material

    def send_then_throttle(*args: object, **options: object) -> object:
        world.kms.fail_next("DescribeKey", refusal(Reason.KMS_THROTTLED), times=2)
        return send(*args, **options)  # type: ignore[arg-type]

    world.kms.import_key_material = send_then_throttle  # type: ignore[method-assign,assignment]
    assert run(world, key_id).evidence is Evidence.ACCEPTED


def test_import_disabled_right_after_acceptance_is_imported_for_only_a_bound_cmk_can_be_disabled() -> None:
    world = World()
    key_id = world.kms.add_key()
    send = world.kms.import_key_material

    def send_then_disable(*args: object, **options: object) -> object:
        reply = send(*args, **options)  # type: ignore[arg-type]
        world.kms.set_state(key_id, KeyState.DISABLED)
        return reply

    world.kms.import_key_material = send_then_disable  # type: ignore[method-assign,assignment]
    imported = run(world, key_id)
    assert imported.evidence is Evidence.ACCEPTED
    assert imported.key is not None
    assert imported.key.state is KeyState.DISABLED


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
        ("ImportKeyMaterial", refusal(Reason.KMS_THROTTLED), Reason.KMS_THROTTLED),
        ("ImportKeyMaterial", refusal(Reason.KMS_ACCESS_DENIED), Reason.KMS_ACCESS_DENIED),
    ],
)
def test_import_new_cmk_that_fails_later_is_named(operation: str, error: KmsError, reason: Reason) -> None:
    world = World()
    world.kms.fail_next(operation, error, times=99)
    progress = Progress()
    with pytest.raises(BrokerError) as caught:
        run_with(world, progress, NewKey(AES_256))
    assert caught.value.reason is reason
    assert progress.created_key_id == world.kms.key_ids[0]


def test_import_create_reply_lost_goes_on_with_the_cmk_that_is_found_by_its_tag() -> None:
    world = World()
    world.kms.fail_next("CreateKey", lost_reply(), when="after")
    imported = run(world, NewKey(AES_256))
    assert imported.evidence is Evidence.ACCEPTED
    assert imported.cmk == world.cmk(world.kms.key_ids[0])
    assert world.kms.calls["CreateKey"] == 1


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
    assert run(world, key_id).evidence is Evidence.ACCEPTED
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
        go_on.wait(20)
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
        assert importing.result().parameters == "cached"
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


def _record_sends(world: World, sent: list[object]) -> None:
    """Notes token and wrapped material of each ImportKeyMaterial."""
    send = world.kms.import_key_material

    def recording(*args: object, **options: object) -> object:
        sent.append((options["import_token"], options["wrapped_key_material"]))
        return send(*args, **options)  # type: ignore[arg-type]

    world.kms.import_key_material = recording  # type: ignore[method-assign,assignment]


class PlacedEntropy(CountingEntropy):
    """Knows where the bytes that it gave stand."""

    def fill(self, buffer: memoryview) -> None:
        super().fill(buffer)
        self._at = ctypes.addressof((ctypes.c_ubyte * len(buffer)).from_buffer(buffer))
        self._length = len(buffer)

    def what_is_there(self) -> bytes:
        return ctypes.string_at(self._at, self._length)


def test_material_is_wiped_once_the_kms_has_it_and_before_anything_is_waited_for() -> None:
    entropy = PlacedEntropy()
    seen: dict[str, bytes] = {}
    world = World(entropy=entropy)
    world.at = lambda place: seen.update({place: entropy.what_is_there()} if entropy.filled else {})
    run(world, world.kms.add_key(spec=AES_256))
    assert any(seen["send: before"])
    assert seen["acceptance: before"] == bytes(32)


def test_material_that_has_to_be_proved_is_kept_until_then() -> None:
    entropy = PlacedEntropy()
    seen: list[bytes] = []
    world = World(entropy=entropy, choices=Choices(prove=True))
    world.kms.before("Encrypt", lambda: seen.append(entropy.what_is_there()))
    assert run(world, world.kms.add_key(spec=AES_256)).evidence is Evidence.PROVED
    assert any(seen[0])
    assert entropy.what_is_there() == bytes(32)

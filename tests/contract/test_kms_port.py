"""What every implementation of ports.Kms does: KmsClient against the emulator, and FakeKms.

The use cases are tested over FakeKms; this suite is why that says something about the real client.
"""

import secrets
from datetime import timedelta
from typing import Protocol

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import BrokerError, KmsError, Reason
from keybroker.domain.external_key import CmkName, ExternalKey, KeyState, NewKey
from keybroker.domain.import_parameters import ImportParameters
from keybroker.domain.key_spec import AES_128, AES_192, AES_256, KeySpec
from keybroker.domain.public_key_policy import load_wrapping_public_key
from keybroker.domain.wrapping import RSAES_OAEP_SHA_256, RSAES_PKCS1_V1_5, WrappingAlgorithm
from keybroker.ports import KmsReply
from tests.contract.conftest import Subject

SPECS = [AES_128, AES_192, AES_256]
ALGORITHMS = [RSAES_OAEP_SHA_256, RSAES_PKCS1_V1_5]
ABSENT = "key-hzz0000000000000absent"
DAY_SECONDS = 24 * 3600


def name_of(subject: Subject, key_id: str) -> CmkName:
    return CmkName("1540355698840000", subject.kms.region, key_id)


def parameters(subject: Subject, key_id: str, algorithm: WrappingAlgorithm = RSAES_OAEP_SHA_256) -> ImportParameters:
    return subject.kms.get_parameters_for_import(name_of(subject, key_id), algorithm, deadline=subject.deadline())


def wrapped(material: bytes, under: ImportParameters) -> bytes:
    public_key = load_der_public_key(under.wrapping_public_key_der)
    assert isinstance(public_key, RSAPublicKey)
    return public_key.encrypt(material, under.algorithm.padding)


def send(subject: Subject, key_id: str, blob: bytes, import_token: str) -> KmsReply:
    return subject.kms.import_key_material(
        name_of(subject, key_id), wrapped_key_material=blob, import_token=import_token, deadline=subject.deadline()
    )


def import_into(subject: Subject, key_id: str, material: bytes) -> KmsReply:
    pair = parameters(subject, key_id)
    return send(subject, key_id, wrapped(material, pair), pair.import_token)


def describe(subject: Subject, key_id: str) -> ExternalKey:
    return subject.kms.describe_key(key_id, deadline=subject.deadline())


class Call(Protocol):
    def __call__(self, subject: Subject, key_id: str) -> object: ...


def refusal(call: Call, subject: Subject, key_id: str) -> KmsError:
    with pytest.raises(KmsError) as caught:
        call(subject, key_id)
    assert caught.value.committed_nothing
    return caught.value


def schedule(subject: Subject, key_id: str) -> KmsReply:
    return subject.kms.schedule_key_deletion(key_id, pending_window_days=7, deadline=subject.deadline())


def cancel(subject: Subject, key_id: str) -> KmsReply:
    return subject.kms.cancel_key_deletion(key_id, deadline=subject.deadline())


def give_alias(subject: Subject, key_id: str) -> KmsReply:
    return subject.kms.create_alias(key_id, "alias/contract", deadline=subject.deadline())


def import_garbage(subject: Subject, key_id: str) -> KmsReply:
    return send(subject, key_id, bytes(256), "bm8gdG9rZW4=")


OPERATIONS: dict[str, Call] = {
    "DescribeKey": describe,
    "GetParametersForImport": parameters,
    "ImportKeyMaterial": import_garbage,
    "ScheduleKeyDeletion": schedule,
    "CancelKeyDeletion": cancel,
    "CreateAlias": give_alias,
}


def test_instance_is_named(subject: Subject) -> None:
    kms = subject.kms
    assert (kms.name, kms.region, kms.dkms_instance_id) == ("main", "cn-hangzhou", "kst-example")


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kms_name)
def test_create_key_makes_an_external_cmk_that_waits_for_material(subject: Subject, spec: KeySpec) -> None:
    new_key = NewKey(spec, description="naïve a*b ~ c", tags={"team a": "ü", "empty": ""})
    key, reply = subject.kms.create_key(new_key, deadline=subject.deadline())
    assert key.name == name_of(subject, key.name.key_id)
    assert key.arn == f"acs:kms:cn-hangzhou:1540355698840000:key/{key.name.key_id}"
    assert (key.spec, key.state, key.origin) == (spec, KeyState.PENDING_IMPORT, "EXTERNAL")
    assert key.dkms_instance_id == "kst-example"
    assert key.created_at is not None
    assert abs(key.created_at - subject.clock.now()) < timedelta(seconds=5)
    assert key.delete_at is None
    assert reply.request_id
    assert describe(subject, key.name.key_id) == key


def test_create_key_twice_makes_two_cmks(subject: Subject) -> None:
    made = [subject.kms.create_key(NewKey(AES_256), deadline=subject.deadline())[0] for _ in range(2)]
    assert made[0].name != made[1].name


@pytest.mark.parametrize("state", [each for each in KeyState if each is not KeyState.UNKNOWN])
def test_describe_key_shows_each_state(subject: Subject, state: KeyState) -> None:
    assert describe(subject, subject.add_key(state=state)).state is state


def test_describe_key_shows_what_is_not_ours_to_import_into(subject: Subject) -> None:
    assert describe(subject, subject.add_key(spec=None)).spec is None
    assert describe(subject, subject.add_key(origin="Aliyun_KMS", state=KeyState.ENABLED)).origin == "Aliyun_KMS"
    assert describe(subject, subject.add_key(dkms_instance_id="")).dkms_instance_id == ""


def test_describe_key_by_alias_or_arn_gives_the_canonical_name(subject: Subject) -> None:
    key_id = subject.add_key()
    give_alias(subject, key_id)
    by_id = describe(subject, key_id)
    assert describe(subject, "alias/contract") == by_id
    assert describe(subject, by_id.arn) == by_id


def test_describe_key_of_an_unknown_alias_is_not_found(subject: Subject) -> None:
    error = refusal(describe, subject, "alias/nobody")
    assert (error.reason, error.kms_code) == (Reason.KEY_NOT_FOUND, "Forbidden.AliasNotFound")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_unknown_cmk_is_not_found(subject: Subject, operation: str) -> None:
    error = refusal(OPERATIONS[operation], subject, ABSENT)
    assert (error.reason, error.kms_code) == (Reason.KEY_NOT_FOUND, "Forbidden.KeyNotFound")


def test_create_alias_that_is_taken_is_refused(subject: Subject) -> None:
    give_alias(subject, subject.add_key())
    error = refusal(give_alias, subject, subject.add_key())
    assert (error.reason, error.kms_code) == (Reason.ALIAS_ALREADY_EXISTS, "AliasAlreadyExists")


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm.kms_name)
def test_import_parameters_are_a_fresh_pair_for_a_day(subject: Subject, algorithm: WrappingAlgorithm) -> None:
    key_id = subject.add_key()
    first, second = parameters(subject, key_id, algorithm), parameters(subject, key_id, algorithm)
    for pair in (first, second):
        load_wrapping_public_key(pair.wrapping_public_key_der)
        assert (pair.cmk, pair.algorithm) == (name_of(subject, key_id), algorithm)
        age = pair.expires_at - subject.clock.now()
        assert timedelta(hours=23, minutes=59) < age <= timedelta(hours=24)
    assert first.import_token != second.import_token


def test_import_parameters_for_a_cmk_of_the_kmss_own_making_are_refused(subject: Subject) -> None:
    key_id = subject.add_key(origin="Aliyun_KMS", state=KeyState.ENABLED)
    for call in (parameters, import_garbage):
        error = refusal(call, subject, key_id)
        assert (error.reason, error.kms_code) == (Reason.KEY_ORIGIN_NOT_EXTERNAL, "Unsupported.Origin")


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm.kms_name)
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kms_name)
def test_import_binds_the_material_and_enables_the_cmk(
    subject: Subject, spec: KeySpec, algorithm: WrappingAlgorithm
) -> None:
    key_id, material = subject.add_key(spec=spec), secrets.token_bytes(spec.length_bytes)
    pair = parameters(subject, key_id, algorithm)
    assert send(subject, key_id, wrapped(material, pair), pair.import_token).request_id
    assert subject.bound_material(key_id) == material
    assert describe(subject, key_id).state is KeyState.ENABLED


def test_import_may_show_late(subject: Subject) -> None:
    subject.show_enabled_after_describes(2)
    key_id = subject.add_key()
    import_into(subject, key_id, bytes(32))
    shown = [describe(subject, key_id).state for _ in range(3)]
    assert shown == [KeyState.PENDING_IMPORT, KeyState.PENDING_IMPORT, KeyState.ENABLED]


def test_same_material_again_is_accepted_and_other_material_never(subject: Subject) -> None:
    key_id, material = subject.add_key(), secrets.token_bytes(32)
    pair = parameters(subject, key_id)
    blob = wrapped(material, pair)
    send(subject, key_id, blob, pair.import_token)
    send(subject, key_id, blob, pair.import_token)
    import_into(subject, key_id, material)
    with pytest.raises(KmsError) as caught:
        import_into(subject, key_id, secrets.token_bytes(32))
    assert caught.value.reason is Reason.WRAPPED_KEY_MATERIAL_REFUSED
    assert caught.value.committed_nothing
    assert subject.bound_material(key_id) == material


def test_import_into_a_disabled_cmk_leaves_it_disabled(subject: Subject) -> None:
    key_id, material = subject.add_key(), secrets.token_bytes(32)
    import_into(subject, key_id, material)
    subject.set_state(key_id, KeyState.DISABLED)
    import_into(subject, key_id, material)
    assert describe(subject, key_id).state is KeyState.DISABLED


def foreign_token(subject: Subject, key_id: str) -> KmsReply:
    pair = parameters(subject, subject.add_key())
    return send(subject, key_id, wrapped(bytes(32), pair), pair.import_token)


def stale_token(subject: Subject, key_id: str) -> KmsReply:
    pair = parameters(subject, key_id)
    subject.advance(DAY_SECONDS + 1)
    return send(subject, key_id, wrapped(bytes(32), pair), pair.import_token)


def wrong_length(subject: Subject, key_id: str) -> KmsReply:
    return import_into(subject, key_id, bytes(16))


def wrong_padding(subject: Subject, key_id: str) -> KmsReply:
    pair = parameters(subject, key_id)
    public_key = load_der_public_key(pair.wrapping_public_key_der)
    assert isinstance(public_key, RSAPublicKey)
    return send(subject, key_id, public_key.encrypt(bytes(32), PKCS1v15()), pair.import_token)


def flipped_bit(subject: Subject, key_id: str) -> KmsReply:
    pair = parameters(subject, key_id)
    blob = bytearray(wrapped(bytes(32), pair))
    blob[100] ^= 1
    return send(subject, key_id, bytes(blob), pair.import_token)


def short_blob(subject: Subject, key_id: str) -> KmsReply:
    pair = parameters(subject, key_id)
    return send(subject, key_id, wrapped(bytes(32), pair)[:-1], pair.import_token)


BAD_IMPORTS: dict[str, tuple[Call, Reason, str]] = {
    "no token": (import_garbage, Reason.IMPORT_TOKEN_INVALID, "InvalidImportToken"),
    "token of another CMK": (foreign_token, Reason.IMPORT_TOKEN_INVALID, "InvalidImportToken"),
    "token too old": (stale_token, Reason.IMPORT_TOKEN_EXPIRED, "ExpiredImportToken"),
    "wrong length": (wrong_length, Reason.WRAPPED_KEY_MATERIAL_REFUSED, "InvalidKeyMaterial"),
    "wrong padding": (wrong_padding, Reason.WRAPPED_KEY_MATERIAL_REFUSED, "InvalidKeyMaterial"),
    "flipped bit": (flipped_bit, Reason.WRAPPED_KEY_MATERIAL_REFUSED, "InvalidKeyMaterial"),
    "short blob": (short_blob, Reason.WRAPPED_KEY_MATERIAL_REFUSED, "InvalidKeyMaterial"),
}


@pytest.mark.parametrize(("call", "reason", "kms_code"), BAD_IMPORTS.values(), ids=BAD_IMPORTS)
def test_bad_import_is_refused_and_binds_nothing(subject: Subject, call: Call, reason: Reason, kms_code: str) -> None:
    key_id = subject.add_key()
    error = refusal(call, subject, key_id)
    assert (error.reason, error.kms_code) == (reason, kms_code)
    assert subject.bound_material(key_id) is None
    assert describe(subject, key_id).state is KeyState.PENDING_IMPORT


def test_token_is_good_for_its_whole_day(subject: Subject) -> None:
    key_id = subject.add_key()
    pair = parameters(subject, key_id)
    subject.advance(DAY_SECONDS - 60)
    send(subject, key_id, wrapped(bytes(32), pair), pair.import_token)
    assert subject.bound_material(key_id) == bytes(32)


# Contract 6, for the operations in use: what a state does not allow
CONFLICTS = [
    ("ImportKeyMaterial", KeyState.PENDING_DELETION),
    ("CreateAlias", KeyState.PENDING_DELETION),
    ("ScheduleKeyDeletion", KeyState.PENDING_DELETION),
    ("CancelKeyDeletion", KeyState.ENABLED),
    ("CancelKeyDeletion", KeyState.DISABLED),
    ("CancelKeyDeletion", KeyState.PENDING_IMPORT),
]


@pytest.mark.parametrize(("operation", "state"), CONFLICTS)
def test_state_that_does_not_allow_the_operation_refuses_it(subject: Subject, operation: str, state: KeyState) -> None:
    key_id = subject.add_key(state=state)
    error = refusal(OPERATIONS[operation], subject, key_id)
    assert (error.reason, error.kms_code) == (Reason.KEY_STATE_CONFLICT, "Rejected.StateModifiedFailed")
    assert describe(subject, key_id).state is state


@pytest.mark.parametrize("state", [KeyState.ENABLED, KeyState.DISABLED, KeyState.PENDING_IMPORT])
def test_deletion_is_scheduled_with_its_date(subject: Subject, state: KeyState) -> None:
    key_id = subject.add_key(state=state)
    assert schedule(subject, key_id).request_id
    key = describe(subject, key_id)
    assert key.state is KeyState.PENDING_DELETION
    assert key.delete_at is not None
    assert abs(key.delete_at - subject.clock.now() - timedelta(days=7)) < timedelta(seconds=5)


def test_deletion_cancelled_leaves_the_cmk_as_its_material_says(subject: Subject) -> None:
    empty, full = subject.add_key(), subject.add_key()
    import_into(subject, full, bytes(32))
    for key_id in (empty, full):
        schedule(subject, key_id)
        assert cancel(subject, key_id).request_id
    assert describe(subject, empty).state is KeyState.PENDING_IMPORT
    assert describe(subject, full).state is KeyState.ENABLED
    assert describe(subject, full).delete_at is None


def test_each_call_is_one_request(subject: Subject) -> None:
    key_id = subject.add_key()
    give_alias(subject, key_id)
    describe(subject, key_id)
    import_into(subject, key_id, bytes(32))
    schedule(subject, key_id)
    cancel(subject, key_id)
    subject.kms.create_key(NewKey(AES_128), deadline=subject.deadline())
    assert subject.calls() == dict.fromkeys([*OPERATIONS, "CreateKey"], 1)


def test_refused_call_is_one_request_too(subject: Subject) -> None:
    refusal(import_garbage, subject, ABSENT)
    assert subject.calls() == {"ImportKeyMaterial": 1}


@pytest.mark.parametrize("seconds", [0.0, 0.01])
def test_deadline_too_short_sends_nothing(subject: Subject, seconds: float) -> None:
    key_id = subject.add_key()
    too_short = Deadline.after(seconds, monotonic=subject.clock.monotonic)
    with pytest.raises(BrokerError) as caught:
        subject.kms.describe_key(key_id, deadline=too_short)
    assert caught.value.reason is Reason.DEADLINE_TOO_SHORT
    assert not isinstance(caught.value, KmsError)
    assert subject.calls() == {}


def test_import_token_is_not_shown(subject: Subject) -> None:
    pair = parameters(subject, subject.add_key())
    assert pair.import_token not in repr(pair)

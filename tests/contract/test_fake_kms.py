"""What FakeKms can do beyond the port: fail when told to, and be looked into."""

import time

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import KmsError, Reason
from keybroker.domain.external_key import CmkName, KeyState, NewKey
from keybroker.domain.key_spec import AES_128
from keybroker.domain.wrapping import RSAES_OAEP_SHA_256
from tests.contract.conftest import MovableClock
from tests.contract.fake_kms import FakeKms, shared_wrapping_pair, spki_der

LOST = KmsError(Reason.KMS_UNAVAILABLE, "Lost.", kms_code="timeout", committed_nothing=False)


@pytest.fixture
def kms() -> FakeKms:
    return FakeKms(clock=MovableClock())


def deadline() -> Deadline:
    return Deadline.after(5, monotonic=time.monotonic)


def test_failure_before_changes_nothing_and_is_counted(kms: FakeKms) -> None:
    kms.fail_next("CreateKey", LOST)
    with pytest.raises(KmsError, match="Lost"):
        kms.create_key(NewKey(AES_128), deadline=deadline())
    assert kms.key_ids == []
    assert kms.calls == {"CreateKey": 1}


def test_failure_after_has_taken_effect(kms: FakeKms) -> None:
    kms.fail_next("CreateKey", LOST, when="after")
    with pytest.raises(KmsError, match="Lost"):
        kms.create_key(NewKey(AES_128), deadline=deadline())
    assert len(kms.key_ids) == 1


def test_failures_come_in_order_as_often_as_told_then_end(kms: FakeKms) -> None:
    other = KmsError(Reason.KMS_THROTTLED, "Other.", kms_code="Throttling", committed_nothing=True)
    key_id = kms.add_key()
    kms.fail_next("DescribeKey", LOST, times=2)
    kms.fail_next("DescribeKey", other)
    for expected in ("Lost", "Lost", "Other"):
        with pytest.raises(KmsError, match=expected):
            kms.describe_key(key_id, deadline=deadline())
    assert kms.describe_key(key_id, deadline=deadline()).name.key_id == key_id


def test_failure_of_one_operation_leaves_others_alone(kms: FakeKms) -> None:
    kms.fail_next("ImportKeyMaterial", LOST)
    kms.describe_key(kms.add_key(), deadline=deadline())


def test_what_was_created_and_unwrapped_can_be_looked_at(kms: FakeKms) -> None:
    new_key = NewKey(AES_128, description="a key", tags={"team": "x"})
    key, _ = kms.create_key(new_key, deadline=deadline())
    kms.create_alias(key.name.key_id, "alias/x", deadline=deadline())
    pair = kms.get_parameters_for_import(key.name, RSAES_OAEP_SHA_256, deadline=deadline())
    blob = shared_wrapping_pair().public_key().encrypt(b"m" * 16, RSAES_OAEP_SHA_256.padding)
    kms.import_key_material(key.name, wrapped_key_material=blob, import_token=pair.import_token, deadline=deadline())
    assert kms.unwrapped == [b"m" * 16]
    assert kms.bound_material(key.name.key_id) == b"m" * 16
    assert kms.tags(key.name.key_id) == {"team": "x"}
    assert kms.description(key.name.key_id) == "a key"
    assert kms.aliases(key.name.key_id) == ["alias/x"]


def test_enabled_cmk_has_somebody_elses_material(kms: FakeKms) -> None:
    assert kms.bound_material(kms.add_key(spec=AES_128, state=KeyState.ENABLED)) is not None
    assert kms.bound_material(kms.add_key()) is None


def test_wrapping_public_key_can_be_swapped(kms: FakeKms) -> None:
    kms.wrapping_public_key_der = spki_der(generate_private_key(public_exponent=65537, key_size=1024))
    cmk = CmkName(kms.account, kms.region, kms.add_key())
    pair = kms.get_parameters_for_import(cmk, RSAES_OAEP_SHA_256, deadline=deadline())
    assert pair.wrapping_public_key_der == kms.wrapping_public_key_der

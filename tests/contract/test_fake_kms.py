"""What FakeKms can do beyond the port: fail when told to, and be looked into."""

import threading
import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import KmsError, Reason
from keybroker.domain.external_key import CmkName, KeyState, NewKey
from keybroker.domain.key_spec import AES_128
from keybroker.domain.wrapping import RSAES_OAEP_SHA_256
from keybroker.ports import KmsReply
from tests.contract.conftest import MovableClock
from tests.contract.fake_kms import FakeKms, shared_wrapping_pair, spki_der
from tests.contract.kms_script import When

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


# Hooks


def test_hook_runs_once_before_the_effect_or_after_it(kms: FakeKms) -> None:
    seen: list[int] = []
    kms.before("CreateKey", lambda: seen.append(len(kms.key_ids)))
    kms.after("CreateKey", lambda: seen.append(len(kms.key_ids)))
    for _ in range(2):
        kms.create_key(NewKey(AES_128), deadline=deadline())
    assert seen == [0, 1]


def test_hook_of_another_operation_does_not_run(kms: FakeKms) -> None:
    kms.before("CreateKey", lambda: pytest.fail("it ran"))
    kms.describe_key(kms.add_key(), deadline=deadline())


def test_hook_runs_outside_the_lock_and_what_it_raises_ends_the_call(kms: FakeKms) -> None:
    class Crash(BaseException):
        pass

    def crash() -> None:
        other = threading.Thread(target=lambda: kms.create_key(NewKey(AES_128), deadline=deadline()))
        other.start()
        other.join(timeout=5)
        raise Crash

    for place in (kms.before, kms.after):
        place("DescribeKey", crash)
        with pytest.raises(Crash):
            kms.describe_key(kms.add_key(), deadline=deadline())
    assert kms.calls == {"CreateKey": 2, "DescribeKey": 1}  # the first was stopped before it was sent


def test_hook_after_runs_when_the_answer_is_a_failure_too(kms: FakeKms) -> None:
    seen: list[str] = []
    kms.after("DescribeKey", lambda: seen.append("after"))
    kms.fail_next("DescribeKey", LOST)
    with pytest.raises(KmsError, match="Lost"):
        kms.describe_key(kms.add_key(), deadline=deadline())
    assert seen == ["after"]


# Requests that land late


def prepared(kms: FakeKms, material: bytes = b"m" * 16) -> tuple[CmkName, Callable[[], KmsReply]]:
    cmk = CmkName(kms.account, kms.region, kms.add_key(spec=AES_128))
    token = kms.get_parameters_for_import(cmk, RSAES_OAEP_SHA_256, deadline=deadline()).import_token
    blob = shared_wrapping_pair().public_key().encrypt(material, RSAES_OAEP_SHA_256.padding)
    return cmk, lambda: kms.import_key_material(cmk, wrapped_key_material=blob, import_token=token, deadline=deadline())


@pytest.mark.parametrize("when", ["late", "checked"])
def test_late_request_is_lost_until_it_lands_once(kms: FakeKms, when: When) -> None:
    cmk, send = prepared(kms)
    kms.fail_next("ImportKeyMaterial", LOST, when=when)
    with pytest.raises(KmsError, match="Lost"):
        send()
    assert kms.bound_material(cmk.key_id) is None
    assert kms.land_late() == [None]
    assert kms.bound_material(cmk.key_id) == b"m" * 16
    assert kms.land_late() == []
    assert kms.calls["ImportKeyMaterial"] == 1


@pytest.mark.parametrize(
    ("when", "revoked", "bound"),
    [("late", True, False), ("late", False, False), ("checked", True, True), ("checked", False, True)],
)
def test_late_request_is_checked_when_it_lands_and_a_checked_one_is_not(
    kms: FakeKms, *, when: When, revoked: bool, bound: bool
) -> None:
    kms.newest_token_only = revoked
    cmk, send = prepared(kms)
    kms.fail_next("ImportKeyMaterial", LOST, when=when)
    with pytest.raises(KmsError, match="Lost"):
        send()
    if revoked:
        kms.get_parameters_for_import(cmk, RSAES_OAEP_SHA_256, deadline=deadline())
    else:
        kms.ahead += timedelta(hours=25)
    [refused] = kms.land_late()
    assert (refused is None) is bound
    assert (kms.bound_material(cmk.key_id) is not None) is bound


def test_late_request_does_not_take_the_place_of_what_was_bound_meanwhile(kms: FakeKms) -> None:
    cmk, send = prepared(kms)
    kms.fail_next("ImportKeyMaterial", LOST, when="checked")
    with pytest.raises(KmsError, match="Lost"):
        send()
    foreign = kms.bind_foreign(cmk.key_id)
    [refused] = kms.land_late()
    assert refused is not None
    assert refused.reason is Reason.WRAPPED_KEY_MATERIAL_REFUSED
    assert kms.bound_material(cmk.key_id) == foreign
    assert kms.unwrapped == []


def test_late_creation_makes_the_cmk_when_it_lands(kms: FakeKms) -> None:
    kms.fail_next("CreateKey", LOST, when="late")
    with pytest.raises(KmsError, match="Lost"):
        kms.create_key(NewKey(AES_128, tags={"t": "1"}), deadline=deadline())
    assert kms.key_ids == []
    kms.land_late()
    assert [kms.tags(key_id) for key_id in kms.key_ids] == [{"t": "1"}]


# Somebody else, and what the KMS may do


def test_foreign_importer_binds_only_what_is_unbound(kms: FakeKms) -> None:
    cmk, send = prepared(kms)
    send()
    assert kms.bind_foreign(cmk.key_id) is None
    assert kms.bound_material(cmk.key_id) == b"m" * 16


def test_encrypt_may_be_refused_or_of_another_layout(kms: FakeKms) -> None:
    key_id = kms.add_key(state=KeyState.ENABLED)
    blob = kms.encrypt(key_id, b"nonce", deadline=deadline())
    kms.encrypt_unreadable = True
    other = kms.encrypt(key_id, b"nonce", deadline=deadline())
    assert (len(other), other[:36] == blob[:36]) == (len(blob), False)
    kms.encrypt_refused = True
    with pytest.raises(KmsError) as caught:
        kms.encrypt(key_id, b"nonce", deadline=deadline())
    assert caught.value.reason is Reason.KMS_OPERATION_UNSUPPORTED


def test_replies_may_have_no_date(kms: FakeKms) -> None:
    kms.dated = False
    assert kms.describe_key(kms.add_key(), deadline=deadline()).as_of is None


def test_cmk_can_be_gone_and_its_tags_others(kms: FakeKms) -> None:
    gone, kept = kms.add_key(), kms.add_key(tags={"t": "1"})
    kms.remove_key(gone)
    kms.set_tags(kept, {"t": "2"})
    assert (kms.key_ids, kms.tags(kept)) == ([kept], {"t": "2"})
    assert kms.add_key() not in {gone, kept}

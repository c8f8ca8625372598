"""What every implementation of ports.Kms does, as test_kms_port.py: what tells a CMK's truth and its clock.

Lists by tag, tags, Encrypt, the Date of a description, and the readings of the contract that an import depends on.
"""

import secrets
from datetime import UTC, timedelta

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keybroker.domain.errors import KmsError, Reason
from keybroker.domain.external_key import KeyState, NewKey
from keybroker.domain.key_spec import AES_128, AES_192, AES_256, KeySpec
from keybroker.ports import KeyPage
from tests.contract.conftest import Subject
from tests.contract.test_kms_port import (
    ABSENT,
    describe,
    import_into,
    parameters,
    refusal,
    send,
    wrapped,
)

TAG = "keybroker-request"
VERSION_ID_LENGTH, IV_LENGTH_BYTES = 36, 12  # contract 1.10


def listed(subject: Subject, tag_value: str = "", **arguments: object) -> KeyPage:
    more = {"deadline": subject.deadline()} | arguments
    return subject.kms.list_keys(tag_key=TAG, tag_value=tag_value, **more)  # type: ignore[arg-type]


def encrypted(subject: Subject, key_id: str, plaintext: bytes = b"a nonce") -> bytes:
    return subject.kms.encrypt(key_id, plaintext, deadline=subject.deadline())


def tags_of(subject: Subject, key_id: str) -> dict[str, str]:
    return dict(subject.kms.list_resource_tags(key_id, deadline=subject.deadline()))


def opened(blob: bytes, material: bytes) -> bytes:
    iv, ciphertext = blob[VERSION_ID_LENGTH:][:IV_LENGTH_BYTES], blob[VERSION_ID_LENGTH + IV_LENGTH_BYTES :]
    return AESGCM(material).decrypt(iv, ciphertext, None)


# ListKeys


def test_list_keys_finds_a_cmk_by_its_tag_and_no_other(subject: Subject) -> None:
    tags = {"team": "x", TAG: "ü 1"}
    key, _ = subject.kms.create_key(NewKey(AES_256, tags=tags), deadline=subject.deadline())
    subject.add_key(tags={TAG: "2"})
    subject.add_key(tags={"team": "ü 1"})
    subject.add_key()
    page = listed(subject, "ü 1")
    assert (list(page.key_ids), page.total) == ([key.name.key_id], 1)


def test_list_keys_without_a_value_finds_every_cmk_with_the_tag(subject: Subject) -> None:
    tagged = [subject.add_key(tags={TAG: value}) for value in ("1", "2")]
    subject.add_key(tags={"team": "x"})
    assert sorted(listed(subject).key_ids) == sorted(tagged)


def test_list_keys_may_leave_out_what_is_not_pending_import(subject: Subject) -> None:
    waiting, *_ = (subject.add_key(tags={TAG: "1"}, state=state) for state in KeyState if state.value != "unknown")
    assert list(listed(subject, "1", pending_import_only=True).key_ids) == [waiting]
    assert listed(subject, "1").total == 4


def test_list_keys_gives_a_hundred_a_page(subject: Subject) -> None:
    made = [subject.add_key(tags={TAG: "1"}) for _ in range(103)]
    pages = [listed(subject, "1", page=number) for number in (1, 2, 3)]
    assert [len(page.key_ids) for page in pages] == [100, 3, 0]
    assert [page.total for page in pages] == [103, 103, 103]
    assert sorted(key_id for page in pages for key_id in page.key_ids) == sorted(made)


def test_list_keys_may_ignore_the_tag(subject: Subject) -> None:
    subject.set_readings(tag_filters_ignored=True)
    other, bound = subject.add_key(), subject.add_key(state=KeyState.ENABLED)
    assert set(listed(subject, "1").key_ids) == {other, bound}
    assert list(listed(subject, "1", pending_import_only=True).key_ids) == [other]


def test_list_keys_may_find_a_new_cmk_late_whose_tags_show_at_once(subject: Subject) -> None:
    subject.set_readings(tag_filter_lag_seconds=20.0)
    key_id = subject.add_key(tags={TAG: "1"})
    assert listed(subject, "1") == KeyPage((), 0)
    assert tags_of(subject, key_id) == {TAG: "1"}
    subject.advance(21)
    assert list(listed(subject, "1").key_ids) == [key_id]


def test_list_keys_shows_enabled_as_late_as_describe_key(subject: Subject) -> None:
    subject.set_readings(enabled_lag_seconds=20.0)
    key_id = subject.add_key(tags={TAG: "1"})
    import_into(subject, key_id, bytes(32))
    assert listed(subject, "1", pending_import_only=True).total == 1
    assert describe(subject, key_id).state is KeyState.PENDING_IMPORT
    subject.advance(21)
    assert listed(subject, "1", pending_import_only=True).total == 0
    assert describe(subject, key_id).state is KeyState.ENABLED


# ListResourceTags


def test_tags_are_those_that_the_cmk_was_made_with(subject: Subject) -> None:
    tags = {TAG: "1", "team a": "ü", "empty": ""}
    key, _ = subject.kms.create_key(NewKey(AES_256, tags=tags), deadline=subject.deadline())
    assert tags_of(subject, key.name.key_id) == tags
    assert tags_of(subject, subject.add_key()) == {}


@pytest.mark.parametrize("call", [tags_of, encrypted])
def test_tags_and_encrypt_of_an_unknown_cmk_are_not_found(subject: Subject, call: object) -> None:
    error = refusal(call, subject, ABSENT)  # type: ignore[arg-type]
    assert (error.reason, error.kms_code) == (Reason.KEY_NOT_FOUND, "Forbidden.KeyNotFound")


# Encrypt


@pytest.mark.parametrize("spec", [AES_128, AES_192, AES_256], ids=lambda spec: spec.kms_name)
def test_encrypt_makes_what_the_bound_material_opens_and_no_other_does(subject: Subject, spec: KeySpec) -> None:
    key_id, material = subject.add_key(spec=spec), secrets.token_bytes(spec.length_bytes)
    import_into(subject, key_id, material)
    first, second = encrypted(subject, key_id), encrypted(subject, key_id)
    assert opened(first, material) == b"a nonce"
    assert first != second
    assert first[:VERSION_ID_LENGTH] == second[:VERSION_ID_LENGTH]
    with pytest.raises(InvalidTag):
        opened(first, secrets.token_bytes(spec.length_bytes))


def test_encrypt_is_under_the_material_that_came_first(subject: Subject) -> None:
    key_id = subject.add_key()
    foreign = subject.bind_foreign(key_id)
    assert foreign is not None
    with pytest.raises(KmsError):
        import_into(subject, key_id, bytes(32))
    assert opened(encrypted(subject, key_id), foreign) == b"a nonce"


@pytest.mark.parametrize(
    ("state", "reason", "kms_code"),
    [
        (KeyState.PENDING_IMPORT, Reason.KEY_STATE_CONFLICT, "Rejected.PendingImport"),
        (KeyState.DISABLED, Reason.KEY_DISABLED, "Rejected.Disabled"),
        (KeyState.PENDING_DELETION, Reason.KEY_PENDING_DELETION, "Rejected.PendingDeletion"),
    ],
)
def test_encrypt_in_other_states_than_enabled_is_refused(
    subject: Subject, state: KeyState, reason: Reason, kms_code: str
) -> None:
    error = refusal(encrypted, subject, subject.add_key(state=state))
    assert (error.reason, error.kms_code) == (reason, kms_code)


# The readings of an import


def test_any_second_import_may_be_refused(subject: Subject) -> None:
    subject.set_readings(same_material_reimport=False)
    key_id, material = subject.add_key(), secrets.token_bytes(32)
    pair = parameters(subject, key_id)
    blob = wrapped(material, pair)
    send(subject, key_id, blob, pair.import_token)
    with pytest.raises(KmsError) as caught:
        send(subject, key_id, blob, pair.import_token)
    assert (caught.value.reason, caught.value.committed_nothing) == (Reason.WRAPPED_KEY_MATERIAL_REFUSED, True)
    assert subject.bound_material(key_id) == material


def test_a_new_pair_may_revoke_the_older_of_its_cmk(subject: Subject) -> None:
    subject.set_readings(newest_token_only=True)
    key_id, material = subject.add_key(), secrets.token_bytes(32)
    older, newest = parameters(subject, key_id), parameters(subject, key_id)
    parameters(subject, subject.add_key())  # of another CMK: revokes nothing
    with pytest.raises(KmsError) as caught:
        send(subject, key_id, wrapped(material, older), older.import_token)
    assert caught.value.reason is Reason.IMPORT_TOKEN_INVALID
    send(subject, key_id, wrapped(material, newest), newest.import_token)
    assert subject.bound_material(key_id) == material


def test_material_of_somebody_else_enables_the_cmk_and_refuses_ours(subject: Subject) -> None:
    key_id = subject.add_key()
    pair = parameters(subject, key_id)
    foreign = subject.bind_foreign(key_id)
    assert describe(subject, key_id).state is KeyState.ENABLED
    with pytest.raises(KmsError) as caught:
        send(subject, key_id, wrapped(bytes(32), pair), pair.import_token)
    assert caught.value.reason is Reason.WRAPPED_KEY_MATERIAL_REFUSED
    assert subject.bound_material(key_id) == foreign


# The KMS's clock


def test_description_says_when_by_the_kmss_clock(subject: Subject) -> None:
    subject.put_ahead(120)
    key, _ = subject.kms.create_key(NewKey(AES_256), deadline=subject.deadline())
    for as_of in (key.as_of, describe(subject, key.name.key_id).as_of):
        assert as_of is not None
        assert as_of.tzinfo is UTC
        assert as_of.microsecond == 0
        assert abs(as_of - subject.clock.now() - timedelta(seconds=120)) < timedelta(seconds=3)


@pytest.mark.parametrize("seconds", [0, 120, -120, 3600, -3600, 86_400])
def test_now_is_by_the_kmss_clock_once_it_was_heard(subject: Subject, seconds: float) -> None:
    key_id = subject.add_key()
    subject.put_ahead(seconds)
    describe(subject, key_id)
    assert abs(subject.kms.now() - subject.clock.now() - timedelta(seconds=seconds)) < timedelta(seconds=3)


def test_token_lives_by_the_kmss_clock(subject: Subject) -> None:
    key_id = subject.add_key()
    pair = parameters(subject, key_id)
    subject.put_ahead(86_401)
    describe(subject, key_id)
    with pytest.raises(KmsError) as caught:
        send(subject, key_id, wrapped(bytes(32), pair), pair.import_token)
    assert caught.value.reason is Reason.IMPORT_TOKEN_EXPIRED

"""Sealed values open in their own place and with their own key, and nowhere else."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keybroker.adapters.ledger.sealing import CannotOpen, Keyring, Place, key_id, random_keyring
from tests.unit.ledger.support import KEY, OTHER_KEY

PLACE = Place(record_id="record", cmk=("account", "region", "key"), algorithm="RSAES_OAEP_SHA_256", kind="token")


@given(st.binary(max_size=400))
def test_value_opens_as_it_was(value: bytes) -> None:
    ring = Keyring(current=KEY)
    sealed = ring.seal(value, PLACE)
    assert ring.unseal(sealed, PLACE, sealed_by=ring.current_id) == value
    assert len(sealed) == 12 + len(value) + 16


def test_one_value_is_never_sealed_to_the_same_twice() -> None:
    ring = Keyring(current=KEY)
    sealed = [ring.seal(b"value", PLACE) for _ in range(100)]
    assert len({value[:12] for value in sealed}) == 100


@pytest.mark.parametrize(
    "elsewhere",
    [
        replace(PLACE, record_id="other"),
        replace(PLACE, cmk=("other", "region", "key")),
        replace(PLACE, cmk=("account", "other", "key")),
        replace(PLACE, cmk=("account", "region", "other")),
        replace(PLACE, cmk=("accountr", "egion", "key")),
        replace(PLACE, algorithm="RSAES_PKCS1_V1_5"),
        replace(PLACE, kind="blob"),
    ],
    ids=str,
)
def test_value_does_not_open_elsewhere(elsewhere: Place) -> None:
    ring = Keyring(current=KEY)
    sealed = ring.seal(b"value", PLACE)
    with pytest.raises(CannotOpen):
        ring.unseal(sealed, elsewhere, sealed_by=ring.current_id)


def test_record_is_bound_by_the_associated_data_as_well_as_by_its_key() -> None:
    assert PLACE.associated_data() != replace(PLACE, record_id="other").associated_data()
    assert b"\0\0\0\1" + b"1" in PLACE.associated_data()  # the schema


@given(st.integers(0, 32), st.integers(0, 7))
def test_changed_value_does_not_open(place: int, bit: int) -> None:
    ring = Keyring(current=KEY)
    sealed = bytearray(ring.seal(b"value", PLACE))
    sealed[place % len(sealed)] ^= 1 << bit
    with pytest.raises(CannotOpen):
        ring.unseal(bytes(sealed), PLACE, sealed_by=ring.current_id)


@pytest.mark.parametrize("length", [0, 1, 11, 12, 27, 28])
def test_truncated_value_does_not_open(length: int) -> None:
    ring = Keyring(current=KEY)
    with pytest.raises(CannotOpen):
        ring.unseal(ring.seal(b"value", PLACE)[:length], PLACE, sealed_by=ring.current_id)


def test_old_key_opens_and_the_current_one_seals() -> None:
    before, after = Keyring(current=KEY), Keyring(current=OTHER_KEY, old=[KEY])
    assert after.unseal(before.seal(b"value", PLACE), PLACE, sealed_by=before.current_id) == b"value"
    assert after.current_id == key_id(OTHER_KEY) != before.current_id
    with pytest.raises(CannotOpen):
        before.unseal(after.seal(b"value", PLACE), PLACE, sealed_by=before.current_id)


def test_unknown_key_does_not_open() -> None:
    ring = Keyring(current=KEY)
    with pytest.raises(CannotOpen):
        ring.unseal(ring.seal(b"value", PLACE), PLACE, sealed_by=key_id(OTHER_KEY))


@pytest.mark.parametrize(
    ("current", "old"), [(KEY[:-1], []), (KEY + b"\0", []), (KEY, [b""]), (KEY, [KEY]), (KEY, [OTHER_KEY, OTHER_KEY])]
)
def test_bad_keys_are_refused(current: bytes, old: list[bytes]) -> None:
    with pytest.raises(ValueError, match="ledger key"):
        Keyring(current=current, old=old)


def test_tag_is_of_the_current_key() -> None:
    assert Keyring(current=KEY).tag("a", "b") == Keyring(current=KEY, old=[OTHER_KEY]).tag("a", "b")
    assert Keyring(current=KEY).tag("a", "b") != Keyring(current=OTHER_KEY, old=[KEY]).tag("a", "b")
    assert random_keyring().tag("a", "b") != random_keyring().tag("a", "b")


def test_key_is_in_no_repr() -> None:
    ring = Keyring(current=KEY)
    assert KEY.hex() not in repr(ring) + str(ring)
    assert repr(KEY) not in repr(ring)
    assert len(ring.current_id) == 8

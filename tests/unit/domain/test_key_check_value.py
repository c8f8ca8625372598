import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from hypothesis import given
from hypothesis import strategies as st

from keybroker.domain.key_check_value import key_check_value
from keybroker.domain.key_material import generate
from tests.unit.domain.reference import aes_cmac

materials = st.sampled_from([16, 24, 32]).flatmap(lambda length: st.binary(min_size=length, max_size=length))


@given(material=materials)
def test_check_value_is_the_start_of_an_independent_cmac_over_a_zero_block(material: bytes) -> None:
    value = key_check_value(material)
    assert value.value == aes_cmac(material, bytes(16))[:3]
    assert str(value) == f"cmac-aes:{value.value.hex()}"


@given(material=materials)
def test_check_value_of_generated_material_is_that_of_its_bytes(material: bytes) -> None:
    def fill(buffer: memoryview) -> None:
        buffer[:] = material

    with generate(len(material), fill=fill) as generated:
        assert generated.check_value() == key_check_value(material)


def test_check_value_is_not_the_older_ecb_one() -> None:
    material = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
    older = Cipher(AES(material), ECB()).encryptor().update(bytes(16))[:3]
    assert key_check_value(material).value != older


@pytest.mark.parametrize("length_bytes", [0, 1, 15, 17, 23, 25, 31, 33])
def test_check_value_of_other_lengths_is_refused(length_bytes: int) -> None:
    with pytest.raises(ValueError, match="key size"):
        key_check_value(bytes(length_bytes))

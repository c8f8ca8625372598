import copy
import pickle
import sys
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keybroker.domain import key_material
from keybroker.domain.errors import BrokerError, Reason
from keybroker.domain.key_material import KeyMaterial, generate
from keybroker.domain.key_spec import AES_128, AES_192, AES_256, KEY_SPECS
from keybroker.domain.wrapping import (
    RSAES_OAEP_SHA_256,
    RSAES_PKCS1_V1_5,
    WRAPPED_LENGTH_BYTES,
    WRAPPING_ALGORITHMS,
    WrappingAlgorithm,
)
from tests.unit.domain.keys import import_parameters, rsa_key
from tests.unit.domain.reference import DecryptionError, decrypt_oaep_sha256, decrypt_pkcs1_v1_5

LENGTHS = [spec.length_bytes for spec in (AES_128, AES_192, AES_256)]
SECRET = bytes(range(0xC0, 0xE0))
UNWRAP = {RSAES_OAEP_SHA_256: decrypt_oaep_sha256, RSAES_PKCS1_V1_5: decrypt_pkcs1_v1_5}
ALGORITHMS = pytest.mark.parametrize("algorithm", WRAPPING_ALGORITHMS.values(), ids=WRAPPING_ALGORITHMS.keys())


def fill_with(content: bytes) -> Callable[[memoryview], None]:
    def fill(buffer: memoryview) -> None:
        buffer[:] = content[: len(buffer)]

    return fill


def buffer_of(material: KeyMaterial) -> bytes:
    """The very object whose memory is to be wiped: holding it keeps the slot from being used again."""
    return material._held()


def test_lengths_by_spec_are_those_of_the_contract() -> None:
    assert {name: spec.length_bytes for name, spec in KEY_SPECS.items()} == {
        "Aliyun_AES_128": 16,
        "Aliyun_AES_192": 24,
        "Aliyun_AES_256": 32,
    }


def test_algorithms_are_those_that_dedicated_kms_supports() -> None:
    assert list(WRAPPING_ALGORITHMS) == ["RSAES_OAEP_SHA_256", "RSAES_PKCS1_V1_5"]


# Wrapping


@ALGORITHMS
@given(content=st.sampled_from(LENGTHS).flatmap(lambda length: st.binary(min_size=length, max_size=length)))
@settings(max_examples=30)
def test_wrap_opens_by_an_independent_implementation_to_what_was_filled_in(
    algorithm: WrappingAlgorithm, content: bytes
) -> None:
    with generate(len(content), fill=fill_with(content)) as material:
        wrapped = material.wrap(import_parameters(algorithm=algorithm))
    assert len(wrapped) == WRAPPED_LENGTH_BYTES
    assert UNWRAP[algorithm](rsa_key(), wrapped) == content


@ALGORITHMS
@pytest.mark.parametrize(
    "content", [bytes(32), b"\x00" + bytes(range(1, 32)), bytes(range(31)) + b"\x00", b"\xff" * 32]
)
def test_wrap_of_material_with_zeros_at_its_ends_keeps_them(algorithm: WrappingAlgorithm, content: bytes) -> None:
    with generate(32, fill=fill_with(content)) as material:
        wrapped = material.wrap(import_parameters(algorithm=algorithm))
    assert UNWRAP[algorithm](rsa_key(), wrapped) == content


@ALGORITHMS
def test_wrap_twice_gives_two_ciphertexts_of_the_same_material(algorithm: WrappingAlgorithm) -> None:
    with generate(32, fill=fill_with(SECRET)) as material:
        first, second = (material.wrap(import_parameters(algorithm=algorithm)) for _ in range(2))
    assert first != second
    assert UNWRAP[algorithm](rsa_key(), first) == UNWRAP[algorithm](rsa_key(), second) == SECRET


def test_wrap_is_not_opened_by_the_other_algorithm() -> None:
    with generate(32, fill=fill_with(SECRET)) as material:
        oaep, pkcs1 = (material.wrap(import_parameters(algorithm=algorithm)) for algorithm in UNWRAP)
    with pytest.raises(DecryptionError):
        decrypt_oaep_sha256(rsa_key(), pkcs1)
    with pytest.raises(DecryptionError):
        decrypt_pkcs1_v1_5(rsa_key(), oaep)


def test_wrap_under_another_public_key_is_not_opened() -> None:
    with generate(32, fill=fill_with(SECRET)) as material:
        wrapped = material.wrap(import_parameters())
    with pytest.raises(DecryptionError):
        decrypt_oaep_sha256(rsa_key(1), wrapped)


def test_wrap_with_a_public_key_that_was_not_vetted_is_refused() -> None:
    with generate(32, fill=fill_with(SECRET)) as material, pytest.raises(BrokerError) as caught:
        material.wrap(import_parameters(wrapping_public_key_der=b"not a key"))
    assert caught.value.reason is Reason.WRAPPING_PUBLIC_KEY_REJECTED


# Wiping


def test_generate_offers_what_was_filled_in_and_wipes_it_at_the_end() -> None:
    with generate(32, fill=fill_with(SECRET)) as material:
        buffer = buffer_of(material)
        assert buffer == SECRET
    assert buffer == bytes(32)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_generate_wipes_when_the_block_raises(error: type[BaseException]) -> None:
    held: list[bytes] = []

    def work() -> None:
        with generate(32, fill=fill_with(SECRET)) as material:
            held.append(buffer_of(material))
            raise error

    with pytest.raises(error):
        work()
    assert held == [bytes(32)]


def test_generate_wipes_when_the_block_returns() -> None:
    held: list[bytes] = []

    def work() -> str:
        with generate(32, fill=fill_with(SECRET)) as material:
            held.append(buffer_of(material))
            return "done"

    assert work() == "done"
    assert held == [bytes(32)]


@pytest.mark.parametrize("error", [OSError("too few bytes"), KeyboardInterrupt()])
def test_generate_wipes_what_was_filled_in_when_the_source_of_randomness_fails(error: BaseException) -> None:
    held: list[bytes] = []

    def fails(buffer: memoryview) -> None:
        buffer[:20] = SECRET[:20]
        held.append(buffer_of(sys._getframe(1).f_locals["self"]))
        raise error

    with pytest.raises(type(error)), generate(32, fill=fails):
        raise AssertionError("material without randomness was offered")
    assert held == [bytes(32)]


def test_wipe_can_be_repeated() -> None:
    material = KeyMaterial(16, fill=fill_with(SECRET))
    material.wipe()
    material.wipe()


@pytest.mark.parametrize(
    "use", [lambda material: material.check_value(), lambda material: material.wrap(import_parameters())]
)
def test_use_after_wipe_raises(use: Callable[[KeyMaterial], object]) -> None:
    with generate(32, fill=fill_with(SECRET)) as material:
        pass
    with pytest.raises(ValueError, match="wiped"):
        use(material)


@pytest.mark.parametrize("length_bytes", LENGTHS)
def test_materials_share_no_memory(length_bytes: int) -> None:
    with generate(length_bytes, fill=fill_with(SECRET)) as kept:
        with generate(length_bytes, fill=fill_with(SECRET)) as wiped:
            assert buffer_of(kept) is not buffer_of(wiped)
        assert buffer_of(kept) == SECRET[:length_bytes]


def test_wipe_leaves_equal_bytes_of_others_alone() -> None:
    equal = bytes(bytearray(SECRET))
    with generate(32, fill=fill_with(SECRET)):
        pass
    assert equal == bytes(range(0xC0, 0xE0))


# Showing


def shown(secret: bytes) -> set[str]:
    """Ways in which the bytes could stand in a text."""
    return {secret.hex(), secret.hex(":"), str(list(secret))[1:-1], repr(secret)[2:-1], secret.decode("latin-1")}


@pytest.mark.parametrize(
    "show", [repr, str, ascii, format, lambda m: f"{m!r}{m!s}{m}", lambda m: str([m]), lambda m: f"{m=}"]
)
def test_text_of_material_shows_its_length_only(show: Callable[[KeyMaterial], str]) -> None:
    with generate(32, fill=fill_with(SECRET)) as material:
        text = show(material)
        assert "<KeyMaterial 32 bytes>" in text
        assert not any(form in text for form in shown(SECRET))
    assert "<KeyMaterial wiped>" in show(material)


COPIERS = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle protocol {number}": lambda m, number=number: pickle.dumps(m, number) for number in range(6)},
}


@pytest.mark.parametrize("copier", COPIERS.values(), ids=COPIERS.keys())
def test_material_is_not_copied(copier: Callable[[KeyMaterial], object]) -> None:
    with generate(32, fill=fill_with(SECRET)) as material, pytest.raises(TypeError) as caught:
        copier(material)
    assert not any(form in str(caught.value) for form in shown(SECRET))


def test_cryptography_is_given_the_material_itself_and_no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that is dropped is seldom left to be found afterwards: its memory is soon somebody else's."""
    given: list[object] = []

    class Taking:
        """Stands for the public key and for AES-GCM."""

        def __init__(self, key: bytes) -> None:
            given.append(key)

        @staticmethod
        def encrypt(content: bytes, padding: object) -> bytes:
            given.append(content)
            return b""

        @staticmethod
        def decrypt(*_: object) -> bytes:
            return b""

    def taking_check_value(key: bytes) -> str:
        given.append(key)
        return ""

    monkeypatch.setattr(key_material, "load_wrapping_public_key", lambda _: Taking)
    monkeypatch.setattr(key_material, "AESGCM", Taking)
    monkeypatch.setattr(key_material, "key_check_value", taking_check_value)
    with generate(32, fill=fill_with(SECRET)) as material:
        held = buffer_of(material)
        material.wrap(import_parameters())
        material.opens(b"", b"")
        material.check_value()
        assert [content is held for content in given] == [True] * 3


@pytest.mark.parametrize("use", [vars, iter, len, bytes, bytearray, memoryview, list])
def test_material_is_no_container_and_no_buffer(use: Callable[[KeyMaterial], object]) -> None:
    with generate(32, fill=fill_with(SECRET)) as material, pytest.raises(TypeError):
        use(material)


def test_material_takes_no_further_attributes() -> None:
    with generate(32, fill=fill_with(SECRET)) as material, pytest.raises(AttributeError):
        material.copy = b""


def test_error_of_a_refused_key_shows_no_material() -> None:
    with generate(32, fill=fill_with(SECRET)) as material, pytest.raises(BrokerError) as caught:
        material.wrap(import_parameters(wrapping_public_key_der=b"not a key"))
    assert not any(form in f"{caught.value!r}{caught.value.message}" for form in shown(SECRET))


def test_import_parameters_show_no_token() -> None:
    assert "an-import-token" not in repr(import_parameters())

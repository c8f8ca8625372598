"""Published vectors, and failing ones of our own, against the broker's paddings and check value.

The broker only encrypts; the vectors are ciphertexts, so each is opened with the padding object that the broker wraps
with and the vector's private key.
"""

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP, AsymmetricPadding, PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, SHA512

from keybroker.domain.key_check_value import key_check_value
from keybroker.domain.wrapping import RSAES_OAEP_SHA_256, RSAES_PKCS1_V1_5
from tests.unit.domain import vectors
from tests.unit.domain.keys import rsa_key
from tests.unit.domain.reference import aes_cmac, decrypt_oaep_sha256, decrypt_pkcs1_v1_5
from tests.unit.domain.vectors import Encryption

OAEP_VECTORS = vectors.oaep("sha256", "sha256")
PKCS1_VECTORS = vectors.pkcs1_v1_5()
OTHER_HASHES = ["sha1", "sha224", "sha384", "sha512"]


def test_vectors_found_are_complete() -> None:
    assert len(OAEP_VECTORS) == 60
    assert len(PKCS1_VECTORS) == 300
    assert [len(vectors.cmac(bits)) for bits in (128, 192, 256)] == [4, 4, 4]


@pytest.mark.parametrize("number", range(0, 60, 6))
def test_oaep_published_ciphertexts_open(number: int) -> None:
    for vector in OAEP_VECTORS[number : number + 6]:
        assert vector.key.decrypt(vector.ciphertext, RSAES_OAEP_SHA_256.padding) == vector.message


@pytest.mark.parametrize("number", range(0, 300, 20))
def test_pkcs1_published_ciphertexts_open(number: int) -> None:
    for vector in PKCS1_VECTORS[number : number + 20]:
        assert vector.key.decrypt(vector.ciphertext, RSAES_PKCS1_V1_5.padding) == vector.message


@pytest.mark.parametrize("number", range(0, 60, 6))
def test_reference_opens_published_oaep_ciphertexts(number: int) -> None:
    vector = OAEP_VECTORS[number]
    assert decrypt_oaep_sha256(vector.key, vector.ciphertext) == vector.message


@pytest.mark.parametrize("number", range(0, 300, 20))
def test_reference_opens_published_pkcs1_ciphertexts(number: int) -> None:
    vector = PKCS1_VECTORS[number]
    assert decrypt_pkcs1_v1_5(vector.key, vector.ciphertext) == vector.message


@pytest.mark.parametrize("bits", [128, 192, 256])
def test_reference_gives_published_macs(bits: int) -> None:
    for vector in vectors.cmac(bits):
        assert aes_cmac(vector.key, vector.message) == vector.output


@pytest.mark.parametrize(
    ("material", "expected"),
    [  # of the keys of SP 800-38B appendix D, computed with `openssl mac -cipher AES-…-CBC … CMAC` over 16 zero bytes
        ("2b7e151628aed2a6abf7158809cf4f3c", "7ad386"),
        ("8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b", "3a072a"),
        ("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4", "1a0b2d"),
    ],
)
def test_check_value_of_published_keys_is_the_one_openssl_gives(material: str, expected: str) -> None:
    assert str(key_check_value(bytes.fromhex(material))) == f"cmac-aes:{expected}"


@pytest.mark.parametrize("other", OTHER_HASHES)
@pytest.mark.parametrize("place", ["mgf", "digest"])
def test_oaep_published_ciphertext_with_another_hash_is_refused(place: str, other: str) -> None:
    mgf, digest = (other, "sha256") if place == "mgf" else ("sha256", other)
    found = vectors.oaep(mgf, digest)
    assert found
    for vector in found[:6]:
        with pytest.raises(ValueError, match="Decryption failed"):
            vector.key.decrypt(vector.ciphertext, RSAES_OAEP_SHA_256.padding)


def flipped(ciphertext: bytes, place: int) -> bytes:
    return ciphertext[:place] + bytes([ciphertext[place] ^ 1]) + ciphertext[place + 1 :]


@pytest.mark.parametrize("place", [0, 1, 32, 33, 128, 254, 255])
def test_oaep_ciphertext_with_a_flipped_bit_is_refused(place: int) -> None:
    vector = OAEP_VECTORS[0]
    with pytest.raises(ValueError, match="failed"):
        vector.key.decrypt(flipped(vector.ciphertext, place), RSAES_OAEP_SHA_256.padding)


MATERIAL = bytes(range(32))
FOREIGN = "encrypted under another public key"
OAEP_MISTAKES: dict[str, AsymmetricPadding] = {
    "MGF1 with SHA-1 (Java's default)": OAEP(mgf=MGF1(SHA1()), algorithm=SHA256(), label=None),
    "MGF1 with SHA-512": OAEP(mgf=MGF1(SHA512()), algorithm=SHA256(), label=None),
    "SHA-1": OAEP(mgf=MGF1(SHA256()), algorithm=SHA1(), label=None),
    "SHA-1 and MGF1 with SHA-1": OAEP(mgf=MGF1(SHA1()), algorithm=SHA1(), label=None),
    "a label": OAEP(mgf=MGF1(SHA256()), algorithm=SHA256(), label=b"label"),
    "a label of one zero byte": OAEP(mgf=MGF1(SHA256()), algorithm=SHA256(), label=b"\x00"),
    "PKCS#1 v1.5": PKCS1v15(),
}


@pytest.mark.parametrize("padding", OAEP_MISTAKES.values(), ids=OAEP_MISTAKES.keys())
def test_oaep_ciphertext_made_with_a_mistake_is_refused(padding: AsymmetricPadding) -> None:
    ciphertext = rsa_key().public_key().encrypt(MATERIAL, padding)
    with pytest.raises(ValueError, match="failed"):
        rsa_key().decrypt(ciphertext, RSAES_OAEP_SHA_256.padding)


def test_oaep_empty_label_is_no_label() -> None:
    ciphertext = rsa_key().public_key().encrypt(MATERIAL, OAEP(mgf=MGF1(SHA256()), algorithm=SHA256(), label=b""))
    assert rsa_key().decrypt(ciphertext, RSAES_OAEP_SHA_256.padding) == MATERIAL


def test_oaep_ciphertext_of_a_foreign_key_is_refused() -> None:
    ciphertext = rsa_key(1).public_key().encrypt(MATERIAL, RSAES_OAEP_SHA_256.padding)
    with pytest.raises(ValueError, match="failed"):
        rsa_key().decrypt(ciphertext, RSAES_OAEP_SHA_256.padding)


@pytest.mark.parametrize("padding", [RSAES_OAEP_SHA_256.padding, RSAES_PKCS1_V1_5.padding], ids=["oaep", "pkcs1"])
@pytest.mark.parametrize("change", [lambda c: c[:-1], lambda c: c + b"\x00", lambda c: b"\x00" + c, lambda _: b""])
def test_ciphertext_of_a_wrong_length_is_refused(padding: AsymmetricPadding, change: Callable[[bytes], bytes]) -> None:
    ciphertext = rsa_key().public_key().encrypt(MATERIAL, padding)
    with pytest.raises(ValueError, match=r"[Cc]iphertext|failed"):
        rsa_key().decrypt(change(ciphertext), padding)


# OpenSSL 3.2 and later reject PKCS#1 v1.5 implicitly: a decryption that should fail gives bytes derived from key and
# ciphertext instead of an error (contract 6, "Emulator pitfall"). So there is no refusal to look for, only that what
# comes out is not the message. This is also why an operator can forbid the algorithm.


def opened_pkcs1(vector: Encryption) -> bytes | None:
    try:
        return vector.key.decrypt(vector.ciphertext, RSAES_PKCS1_V1_5.padding)
    except ValueError:
        return None


@pytest.mark.parametrize("place", [1, 32, 128, 254, 255])
def test_pkcs1_ciphertext_with_a_flipped_bit_does_not_give_the_message(place: int) -> None:
    vector = PKCS1_VECTORS[-1]
    changed = Encryption(vector.key, vector.message, flipped(vector.ciphertext, place))
    assert opened_pkcs1(changed) != vector.message


def test_pkcs1_ciphertext_of_a_foreign_key_does_not_give_the_message() -> None:
    ciphertext = rsa_key(1).public_key().encrypt(MATERIAL, RSAES_PKCS1_V1_5.padding)
    assert opened_pkcs1(Encryption(rsa_key(), MATERIAL, ciphertext)) != MATERIAL


def test_pkcs1_opening_of_an_oaep_ciphertext_does_not_give_the_message() -> None:
    ciphertext = rsa_key().public_key().encrypt(MATERIAL, RSAES_OAEP_SHA_256.padding)
    assert opened_pkcs1(Encryption(rsa_key(), MATERIAL, ciphertext)) != MATERIAL

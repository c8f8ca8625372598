import base64
import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, x25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import CertificateBuilder, Name, random_serial_number
from hypothesis import given
from hypothesis import strategies as st

from keybroker.domain.errors import BrokerError, Code, Reason
from keybroker.domain.public_key_policy import load_wrapping_public_key
from tests.unit.domain import der
from tests.unit.domain.keys import rsa_key, spki_der

NUMBERS = rsa_key().public_key().public_numbers()
MODULUS, EXPONENT = NUMBERS.n, NUMBERS.e
GOOD = spki_der(rsa_key().public_key())
PEM = rsa_key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def modulus_with_factor(*factors: int) -> int:
    """2048 bits, with these factors and no other prime below 800."""
    product = 1
    for factor in factors:
        product *= factor
    rest = (1 << 2048) // product - 1
    while any(rest % prime == 0 for prime in range(2, 800)):
        rest -= 1
    assert (product * rest).bit_length() == 2048
    return product * rest


def certificate() -> bytes:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    builder = CertificateBuilder().subject_name(Name([])).issuer_name(Name([])).public_key(rsa_key().public_key())
    builder = builder.serial_number(random_serial_number()).not_valid_before(now)
    signed = builder.not_valid_after(now + timedelta(days=1)).sign(rsa_key(), SHA256())
    return signed.public_bytes(Encoding.DER)


def dsa_spki() -> bytes:
    """A DSA key of 1024 bits; its parameters need not be good for it to be one."""
    parameters = dsa.DSAParameterNumbers(p=(1 << 1023) + 1155, q=(1 << 159) + 1, g=2)
    return (
        dsa.DSAPublicNumbers(y=4, parameter_numbers=parameters)
        .public_key()
        .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )


def public(key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | x25519.X25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


NOT_DER = "it is not a public key in DER"
NOT_RSA = "it is not an RSA key"
NOT_CANONICAL = "it is not a canonical SubjectPublicKeyInfo"
BAD_EXPONENT = "its exponent is not 65537"
TINY_FACTOR = "its modulus has a tiny factor"

REFUSED = {
    "nothing": (b"", NOT_DER),
    "garbage": (b"\x00" * 294, NOT_DER),
    "text": (b"MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A", NOT_DER),
    "the good key in base64": (base64.b64encode(GOOD), NOT_DER),
    "the good key in PEM": (PEM, NOT_DER),
    "the good key without its last byte": (GOOD[:-1], NOT_DER),
    "the good key with a byte after it": (GOOD + b"\x00", NOT_DER),
    "the good key twice": (GOOD + GOOD, NOT_DER),
    "a certificate of the good key": (certificate(), NOT_DER),
    "PKCS#1 RSAPublicKey of the good key": (der.rsa_public_key(MODULUS, EXPONENT), NOT_CANONICAL),
    "an algorithm identifier without NULL": (
        der.rsa_spki(MODULUS, EXPONENT, algorithm=der.RSA_ENCRYPTION),
        NOT_CANONICAL,
    ),
    "EC on P-256": (public(ec.generate_private_key(ec.SECP256R1()).public_key()), NOT_RSA),
    "Ed25519": (public(ed25519.Ed25519PrivateKey.generate().public_key()), NOT_RSA),
    "X25519": (public(x25519.X25519PrivateKey.generate().public_key()), NOT_RSA),
    "DSA": (dsa_spki(), NOT_RSA),
    "RSA with 1024 bits": (spki_der(rsa_key(bits=1024).public_key()), "it has 1024 bits instead of 2048"),
    "RSA with 2047 bits": (der.rsa_spki((1 << 2046) + 1, EXPONENT), "it has 2047 bits instead of 2048"),
    "RSA with 2049 bits": (der.rsa_spki((1 << 2048) + 1, EXPONENT), "it has 2049 bits instead of 2048"),
    "RSA with 3072 bits": (spki_der(rsa_key(bits=3072).public_key()), "it has 3072 bits instead of 2048"),
    "RSA with exponent 3": (spki_der(rsa_key(exponent=3).public_key()), BAD_EXPONENT),
    "RSA with exponent 65539": (der.rsa_spki(MODULUS, 65539), BAD_EXPONENT),
    "RSA with exponent 1": (der.rsa_spki(MODULUS, 1), NOT_DER),
    "RSA with exponent 0": (der.rsa_spki(MODULUS, 0), NOT_DER),
    "RSA with exponent 2": (der.rsa_spki(MODULUS, 2), NOT_DER),
    "RSA with exponent 65536": (der.rsa_spki(MODULUS, 65536), NOT_DER),
    "RSA with a negative exponent": (der.rsa_spki(MODULUS, -65537), NOT_DER),
    "RSA with a negative modulus": (der.rsa_spki(-MODULUS, EXPONENT), NOT_DER),
    "RSA with an even modulus": (der.rsa_spki(MODULUS - 1, EXPONENT), TINY_FACTOR),
    "RSA with factor 3": (der.rsa_spki(modulus_with_factor(3), EXPONENT), TINY_FACTOR),
    "RSA with factor 401": (der.rsa_spki(modulus_with_factor(401), EXPONENT), TINY_FACTOR),
    "RSA with factor 751, the largest that is tiny": (der.rsa_spki(modulus_with_factor(751), EXPONENT), TINY_FACTOR),
    "RSA for signatures only (RSASSA-PSS)": (
        der.rsa_spki(MODULUS, EXPONENT, algorithm=der.RSASSA_PSS),
        NOT_CANONICAL,
    ),
}


@pytest.mark.parametrize(("candidate", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_public_key_is_refused(candidate: bytes, why: str) -> None:
    with pytest.raises(BrokerError) as caught:
        load_wrapping_public_key(candidate)
    assert caught.value.reason is Reason.WRAPPING_PUBLIC_KEY_REJECTED
    assert f"refused: {why}." in caught.value.message
    assert caught.value.rule.code is Code.INTERNAL


def test_public_key_of_the_right_form_is_loaded() -> None:
    assert load_wrapping_public_key(GOOD).public_numbers() == NUMBERS
    assert der.rsa_spki(MODULUS, EXPONENT) == GOOD


def test_public_key_with_a_factor_that_is_not_tiny_any_more_is_loaded() -> None:
    load_wrapping_public_key(der.rsa_spki(modulus_with_factor(757), EXPONENT))


@pytest.mark.parametrize("number", range(4))
def test_public_key_generated_at_random_is_loaded(number: int) -> None:
    key = rsa_key(number).public_key()
    assert load_wrapping_public_key(spki_der(key)) == key


@given(candidate=st.binary(max_size=400))
def test_public_key_of_any_bytes_raises_nothing_but_its_refusal(candidate: bytes) -> None:
    with pytest.raises(BrokerError) as caught:
        load_wrapping_public_key(candidate)
    assert caught.value.reason is Reason.WRAPPING_PUBLIC_KEY_REJECTED


@given(place=st.integers(0, len(GOOD) - 1), value=st.integers(0, 255))
def test_public_key_with_one_byte_changed_is_refused_or_another_key_of_the_same_form(place: int, value: int) -> None:
    changed = GOOD[:place] + bytes([value]) + GOOD[place + 1 :]
    with contextlib.suppress(BrokerError):
        key = load_wrapping_public_key(changed)
        assert (key.key_size, key.public_numbers().e) == (2048, 65537)
        assert spki_der(key) == changed
        return
    assert changed != GOOD

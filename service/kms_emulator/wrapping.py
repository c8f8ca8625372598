"""Wrapping algorithms and RSA key pairs of GetParametersForImport.

Unwrapping is real, with the trap of contract section 6 left in on purpose: PKCS#1 v1.5 decryption never raises on a
foreign or damaged blob (implicit rejection), so garbage that happens to have the right length is imported.
"""

import itertools
import secrets
import threading
from collections.abc import Iterator, Mapping

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.padding import AsymmetricPadding

WRAPPING_KEY_SPEC = "RSA_2048"
WRAPPING_KEY_BITS = 2048
PUBLIC_EXPONENT = 65537


def _oaep(algorithm: hashes.HashAlgorithm) -> AsymmetricPadding:
    return padding.OAEP(mgf=padding.MGF1(algorithm), algorithm=algorithm, label=None)


PADDINGS: Mapping[str, AsymmetricPadding] = {
    "RSAES_OAEP_SHA_256": _oaep(hashes.SHA256()),
    "RSAES_PKCS1_V1_5": padding.PKCS1v15(),
    "RSAES_OAEP_SHA_1": _oaep(hashes.SHA1()),  # noqa: S303 -- what the API names; refused on Dedicated KMS
}
"""Algorithm to padding; OAEP has the same hash in MGF1 and an empty label. Source: contract section 1.3."""

DEDICATED_ALGORITHMS = ("RSAES_OAEP_SHA_256", "RSAES_PKCS1_V1_5")
"""What a Dedicated KMS instance accepts. Source: contract section 2."""


def unwrap(private_key: rsa.RSAPrivateKey, algorithm: str, wrapped_key_material: bytes) -> bytes:
    """The key material inside; ValueError when OAEP or the length of the blob says no. Source: RFC 8017 §7."""
    return private_key.decrypt(wrapped_key_material, PADDINGS[algorithm])


def new_pair(bits: int = WRAPPING_KEY_BITS, exponent: int = PUBLIC_EXPONENT) -> rsa.RSAPrivateKey:
    """A fresh RSA key pair; about 50 ms for 2048 bits."""
    return rsa.generate_private_key(public_exponent=exponent, key_size=bits)


def public_key_der(public_key: rsa.RSAPublicKey) -> bytes:
    """DER SubjectPublicKeyInfo. Source: contract section 1.3."""
    return public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def faulty_public_key_der(action: str) -> bytes:
    """The wrapping public key that a public-key fault of the dial publishes instead of the real one."""
    match action:
        case "public_key_unparsable":
            return b"this is no SubjectPublicKeyInfo"
        case "public_key_short":
            return public_key_der(new_pair(bits=1024).public_key())
        case "public_key_exponent_3":
            return public_key_der(new_pair(exponent=3).public_key())
        case "public_key_tiny_factor":
            return public_key_der(rsa.RSAPublicNumbers(PUBLIC_EXPONENT, _modulus_divisible_by_3()).public_key())
        case "public_key_swapped":
            return public_key_der(new_pair().public_key())
        case _:
            raise AssertionError(action)


def _modulus_divisible_by_3() -> int:
    """An odd number of 2048 bits that nobody can decrypt with."""
    number = secrets.randbits(WRAPPING_KEY_BITS) | (3 << (WRAPPING_KEY_BITS - 2)) | 1
    return next(candidate for candidate in range(number, number - 6, -2) if candidate % 3 == 0)


class PairSource:
    """Where key pairs come from: a fresh one per call, or, for benchmarks, a cycle through `pool_size` of them."""

    def __init__(self, pool_size: int = 0) -> None:
        if pool_size < 0:
            raise ValueError("rsa_key_pool must not be negative")
        self._lock = threading.Lock()
        self._pool: Iterator[rsa.RSAPrivateKey] | None = None
        if pool_size:
            self._pool = itertools.cycle([new_pair() for _ in range(pool_size)])

    def next_pair(self) -> rsa.RSAPrivateKey:
        """A key pair for one import token."""
        if self._pool is None:
            return new_pair()
        with self._lock:
            return next(self._pool)

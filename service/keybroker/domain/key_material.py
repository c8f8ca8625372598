"""Key material: generated, checked, wrapped, perhaps proved, wiped. The only module that touches its bytes.

`with generate(...) as material:` holds it for one moment; leaving the block, on any path, overwrites it. The buffer is
a `bytes` object, because OpenSSL's binding takes nothing else, filled in place so that no copy is made on the way, and
overwritten in place at the end. What this does not do: OpenSSL's own working copies are OpenSSL's to clear, and memory
is not locked here.
"""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Never

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keybroker.domain.import_parameters import ImportParameters
from keybroker.domain.key_check_value import KeyCheckValue, key_check_value
from keybroker.domain.public_key_policy import load_wrapping_public_key

_VERSION_ID_BYTES = 36
_IV_BYTES = 12
_BYTES_HEADER = bytes.__basicsize__ - 1  # where the data of a bytes object starts


class KeyMaterial:
    """Secret bytes of one length, usable until `wipe`. Its repr shows the length; it can't be pickled."""

    __slots__ = ("_secret",)

    def __init__(self, length_bytes: int, *, fill: Callable[[memoryview], None]) -> None:
        self._secret: bytes | None = _blank(length_bytes)
        try:
            fill(_writable(self._secret))
        except BaseException:
            self.wipe()  # a source may have failed halfway
            raise

    def check_value(self) -> KeyCheckValue:
        """The AES-CMAC check value."""
        return key_check_value(self._held())

    def wrap(self, parameters: ImportParameters) -> bytes:
        """The material encrypted under the public key and with the algorithm of `parameters`: 256 bytes.

        Reasons: WRAPPING_PUBLIC_KEY_REJECTED.
        """
        public_key = load_wrapping_public_key(parameters.wrapping_public_key_der)
        return public_key.encrypt(self._held(), parameters.algorithm.padding)

    def opens(self, ciphertext_blob: bytes, plaintext: bytes) -> bool:
        """Whether this material opens what the KMS encrypted, and finds `plaintext` in it.

        Layout of the blob: version id (36 bytes), IV (12), AES-GCM ciphertext and tag (16). Source: contract 1.10,
        unconfirmed on a live instance: False proves nothing by itself.
        """
        iv, sealed = ciphertext_blob[_VERSION_ID_BYTES:][:_IV_BYTES], ciphertext_blob[_VERSION_ID_BYTES + _IV_BYTES :]
        try:
            return AESGCM(self._held()).decrypt(iv, sealed, None) == plaintext
        except (InvalidTag, ValueError):
            return False

    def wipe(self) -> None:
        """Overwrites the material with zeros. Can be called again."""
        if self._secret is not None:
            secret, self._secret = self._secret, None
            ctypes.memset(id(secret) + _BYTES_HEADER, 0, len(secret))

    def _held(self) -> bytes:
        if self._secret is None:
            raise ValueError("this key material was wiped")
        return self._secret

    def __repr__(self) -> str:
        return f"<KeyMaterial {'wiped' if self._secret is None else f'{len(self._secret)} bytes'}>"

    def __reduce__(self) -> Never:
        raise TypeError("key material can't be copied or pickled")


@contextmanager
def generate(length_bytes: int, *, fill: Callable[[memoryview], None]) -> Iterator[KeyMaterial]:
    """Material of `length_bytes` (16, 24 or 32) from `fill`, which writes random bytes into the buffer it gets.

    Wiped when the block is left.
    """
    material = KeyMaterial(length_bytes, fill=fill)
    try:
        yield material
    finally:
        material.wipe()


def _blank(length_bytes: int) -> bytes:
    """A new bytes object of its own, never one that Python shares (as it does with the empty and 1-byte ones)."""
    new = ctypes.pythonapi.PyBytes_FromStringAndSize
    new.restype = ctypes.py_object
    new.argtypes = [ctypes.c_char_p, ctypes.c_ssize_t]
    blank: bytes = new(None, length_bytes)
    return blank


def _writable(secret: bytes) -> memoryview:
    return memoryview((ctypes.c_ubyte * len(secret)).from_address(id(secret) + _BYTES_HEADER)).cast("B")

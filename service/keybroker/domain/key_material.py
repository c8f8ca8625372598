"""Key material: generated, checked, wrapped, perhaps proved, wiped. The only module that uses its bytes.

`with generate(...) as material:` holds it for one moment; leaving the block, on any path, overwrites it. It stands in
one `bytes` object in memory that domain/secret_memory.py owns, is filled in place, so that no copy is made on the way,
and overwritten in place at the end. What OpenSSL copies while it works is OpenSSL's to clear; tests/residue measures
whether it does.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Never

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keybroker.domain.import_parameters import ImportParameters
from keybroker.domain.key_check_value import KeyCheckValue, key_check_value
from keybroker.domain.public_key_policy import load_wrapping_public_key
from keybroker.domain.secret_memory import MEMORY, Slot

_VERSION_ID_BYTES = 36
_IV_BYTES = 12


class KeyMaterial:
    """Secret bytes of one length, usable until `wipe`. Its repr shows the length; it can't be pickled."""

    __slots__ = ("_slot",)

    def __init__(self, length_bytes: int, *, fill: Callable[[memoryview], None]) -> None:
        self._slot: Slot | None = MEMORY.take()
        try:
            with self._slot.make(length_bytes) as buffer:
                fill(buffer)
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
        if self._slot is not None:
            slot, self._slot = self._slot, None
            MEMORY.give_back(slot)

    def _held(self) -> bytes:
        if self._slot is None or self._slot.secret is None:
            raise ValueError("this key material was wiped")
        return self._slot.secret

    def __repr__(self) -> str:
        return f"<KeyMaterial {'wiped' if self._slot is None else f'{len(self._held())} bytes'}>"

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

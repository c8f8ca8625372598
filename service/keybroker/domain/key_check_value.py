"""The key check value (KCV): tells whether two people mean the same key, without showing it.

The first 3 bytes of AES-CMAC over one block of zeros; the older value, ECB over a zero block, differs.
Source: NIST SP 800-38B (CMAC).
"""

from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC

_ZERO_BLOCK = bytes(16)
_LENGTH_BYTES = 3


@dataclass(frozen=True, slots=True)
class KeyCheckValue:
    """`value` is 3 bytes; the text form is "cmac-aes:" and 6 hex digits."""

    value: bytes

    def __str__(self) -> str:
        return f"cmac-aes:{self.value.hex()}"


def key_check_value(material: bytes) -> KeyCheckValue:
    """The check value of AES key material of 16, 24 or 32 bytes."""
    cmac = CMAC(AES(material))
    cmac.update(_ZERO_BLOCK)
    return KeyCheckValue(cmac.finalize()[:_LENGTH_BYTES])

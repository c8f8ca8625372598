"""Key material of a throwaway CMK: it protects nothing, and still it is in no report, log or repr."""

import secrets
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keybroker.domain.import_parameters import ImportParameters
from keybroker.domain.public_key_policy import load_wrapping_public_key

VERSION_ID_LENGTH = 36
IV_LENGTH_BYTES = 12


@dataclass(frozen=True, slots=True)
class ThrowawayMaterial:
    """Random bytes for a CMK that is about to be deleted."""

    _bytes: bytes = field(repr=False)

    @classmethod
    def new(cls, length_bytes: int) -> "ThrowawayMaterial":
        """Fresh material from the system's generator."""
        return cls(secrets.token_bytes(length_bytes))

    def wrap(self, parameters: ImportParameters) -> bytes:
        """The material under the public key of `parameters`. Reasons: WRAPPING_PUBLIC_KEY_REJECTED."""
        public_key = load_wrapping_public_key(parameters.wrapping_public_key_der)
        return public_key.encrypt(self._bytes, parameters.algorithm.padding)

    def opens(self, blob: bytes, *, plaintext: bytes) -> bool:
        """Whether an Encrypt blob holds `plaintext` under this material, in the documented layout.

        36 characters of key version id, 12 bytes of IV, AES-GCM ciphertext and tag. Source: contract 1.10.
        """
        sealed = blob[VERSION_ID_LENGTH:]
        try:
            return AESGCM(self._bytes).decrypt(sealed[:IV_LENGTH_BYTES], sealed[IV_LENGTH_BYTES:], None) == plaintext
        except (InvalidTag, ValueError):
            return False

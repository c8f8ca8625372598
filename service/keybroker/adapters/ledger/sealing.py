"""Seals what the ledger must not show: import tokens and wrapped key material. Makes the tags of new CMKs.

AES-256-GCM (SP 800-38D) with a random 96-bit nonce, under a key that HKDF (RFC 5869) derives for the one record: so
no number of records wears a ledger key out. The associated data binds a value to its record, CMK, algorithm and kind,
so that whoever can write to the ledger can't pass one value off as another. It does not stop a value from being taken
back to an older one or deleted.
"""

import hashlib
import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
SCHEMA = 1
_NONCE_BYTES = 12
_KEY_ID_LABEL = b"keybroker ledger key id"
_SEALING_LABEL = b"keybroker ledger sealing"
_TAG_LABEL = b"keybroker ledger tag"


class CannotOpen(Exception):  # noqa: N818  # reads as what it says
    """The value was not sealed for this place by a key that is here."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sealed value belongs. `kind` is "token" or "blob"; `cmk` account, region and key id."""

    record_id: str
    cmk: tuple[str, str, str]
    algorithm: str
    kind: str

    def associated_data(self) -> bytes:
        """Each part with its length before it, so that no two places look the same."""
        return _parts(*self.cmk, self.algorithm, self.kind, str(SCHEMA), self.record_id)


class Keyring:
    """The ledger's keys: `current` seals, `old` ones still open. 32 random bytes each. Raises ValueError."""

    def __init__(self, *, current: bytes, old: Sequence[bytes] = ()) -> None:
        keys = [current, *old]
        if any(len(key) != KEY_BYTES for key in keys):
            raise ValueError(f"a ledger key has {KEY_BYTES} bytes")
        self._keys = {key_id(key): key for key in keys}
        if len(self._keys) < len(keys):
            raise ValueError("a ledger key is there twice, or two have the same id")
        self.current_id = key_id(current)
        self._tag_key = _derived(current, _TAG_LABEL)

    def tag(self, caller: str, request_id: str) -> str:
        """HMAC-SHA256 in hex, under a key derived from the current one."""
        return hmac.digest(self._tag_key, _parts(caller, request_id), "sha256").hex()

    def seal(self, plaintext: bytes, place: Place) -> bytes:
        """Nonce and ciphertext, under the current key."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher(self.current_id, place).encrypt(nonce, plaintext, place.associated_data())

    def unseal(self, sealed: bytes, place: Place, *, sealed_by: str) -> bytes:
        """What was sealed under the key with the id `sealed_by`. Raises CannotOpen."""
        if sealed_by not in self._keys:
            raise CannotOpen
        try:
            return self._cipher(sealed_by, place).decrypt(
                sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place.associated_data()
            )
        except (InvalidTag, ValueError):
            raise CannotOpen from None

    def _cipher(self, name: str, place: Place) -> AESGCM:
        return AESGCM(_derived(self._keys[name], _SEALING_LABEL + b"\0" + place.record_id.encode()))


def random_keyring() -> Keyring:
    """For a ledger that does not outlive the process."""
    return Keyring(current=os.urandom(KEY_BYTES))


def key_id(key: bytes) -> str:
    """Names a key without telling it: the first 8 hex digits of SHA-256 over a label and the key."""
    return hashlib.sha256(_parts(_KEY_ID_LABEL.decode()) + key).hexdigest()[:8]


def _derived(key: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(key)


def _parts(*texts: str) -> bytes:
    return b"".join(len(part).to_bytes(4) + part for part in (text.encode() for text in texts))

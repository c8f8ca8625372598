"""Import tokens: opaque base64 text, bound to one key pair and one CMK, valid 24 hours, reusable.

A token is authenticated (HMAC-SHA256 under a secret of this emulator), so that garbage, a token of another
emulator and an expired one are told apart even after the pair itself was dropped. Source: contract sections 1.3, 6.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
import struct
import threading
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric import rsa

from kms_emulator.errors import KmsError

TOKEN_LIFETIME = timedelta(hours=24)

_HEAD = struct.Struct(">16sQ")
_MAC_BYTES = 32


@dataclass(frozen=True, slots=True)
class ImportPair:
    """One key pair and the algorithm it was asked for."""

    pair_id: bytes
    private_key: rsa.RSAPrivateKey
    wrapping_algorithm: str
    import_token: str
    expires_at: datetime


class IssuedPair(NamedTuple):
    """When one pair was issued and when it expires, by the emulator's clock; UTC-aware."""

    issued_at: datetime
    expires_at: datetime


class ImportPairs:
    """All pairs issued by one emulator; an expired pair is dropped when a newer one is issued."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._pairs: OrderedDict[bytes, ImportPair] = OrderedDict()
        self._issued: defaultdict[str, list[IssuedPair]] = defaultdict(list)

    def issue(self, key_id: str, private_key: rsa.RSAPrivateKey, wrapping_algorithm: str, now: datetime) -> ImportPair:
        """Bind `private_key` and a new token to the CMK for 24 hours; the expiry has whole seconds, as it is shown."""
        expires_at = (now + TOKEN_LIFETIME).replace(microsecond=0)
        pair_id = secrets.token_bytes(16)
        token = self._token(pair_id, key_id, expires_at)
        pair = ImportPair(pair_id, private_key, wrapping_algorithm, token, expires_at)
        with self._lock:
            self._drop_expired(now)
            self._pairs[pair_id] = pair
            self._issued[key_id].append(IssuedPair(now, expires_at))
        return pair

    def issued(self, key_id: str) -> list[IssuedPair]:
        """When pairs were issued for this CMK, expired ones too, in the order of issue."""
        with self._lock:
            return list(self._issued.get(key_id, ()))

    def redeem(self, import_token: str, key_id: str, now: datetime) -> ImportPair:
        """The pair behind a token.

        InvalidImportToken when it was not issued here or is another CMK's; ExpiredImportToken from its expiry on.
        """
        pair_id, token_key_id, expires_at = self._opened(import_token)
        if token_key_id != key_id:
            raise KmsError("InvalidImportToken")
        if now >= expires_at:
            raise KmsError("ExpiredImportToken")
        with self._lock:
            pair = self._pairs.get(pair_id)
        if pair is None:  # dropped while the clock stood past its expiry, and the clock was moved back since
            raise KmsError("ExpiredImportToken")
        return pair

    def _drop_expired(self, now: datetime) -> None:
        while self._pairs:
            oldest = next(iter(self._pairs.values()))
            if oldest.expires_at > now:
                return
            del self._pairs[oldest.pair_id]

    def _token(self, pair_id: bytes, key_id: str, expires_at: datetime) -> str:
        body = _HEAD.pack(pair_id, int(expires_at.timestamp())) + key_id.encode()
        return base64.b64encode(self._mac(body) + body).decode()

    def _opened(self, import_token: str) -> tuple[bytes, str, datetime]:
        try:
            raw = base64.b64decode(import_token, validate=True)
        except (binascii.Error, ValueError) as error:
            raise KmsError("InvalidImportToken") from error
        mac, body = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(body)):
            raise KmsError("InvalidImportToken")
        pair_id, expires_unix = _HEAD.unpack_from(body)
        return pair_id, body[_HEAD.size :].decode(), datetime.fromtimestamp(expires_unix, UTC)

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._secret, body, hashlib.sha256)

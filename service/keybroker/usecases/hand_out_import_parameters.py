"""Hands out import parameters to callers who wrap their own material, and remembers the tokens.

Of a token only the SHA-256 is kept, with its CMK, algorithm and expiry: what is needed to know it again.
"""

import hashlib
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta

from cachetools import TTLCache

from keybroker.domain.deadline import Deadline
from keybroker.domain.external_key import CmkName, KeyReference
from keybroker.domain.import_parameters import ImportParameters
from keybroker.domain.wrapping import WrappingAlgorithm
from keybroker.ports import Clock, Kms
from keybroker.usecases.claims import ImportClaims
from keybroker.usecases.keys import Keys
from keybroker.usecases.obtain_import_parameters import ObtainImportParameters

TOKEN_LIFE = timedelta(hours=24)
_REMEMBERED_TOKENS = 100_000


@dataclass(frozen=True, slots=True)
class HandedOut:
    """What is kept of import parameters that went to a caller."""

    cmk: CmkName
    algorithm: WrappingAlgorithm
    expires_at: datetime


class HandedOutTokens:
    """The tokens that this broker gave to callers, by SHA-256, for a token's life."""

    def __init__(self, *, clock: Clock) -> None:
        self._lock = threading.Lock()
        self._tokens: TTLCache[bytes, HandedOut] = TTLCache(
            maxsize=_REMEMBERED_TOKENS, ttl=TOKEN_LIFE.total_seconds(), timer=clock.monotonic
        )

    def remember(self, parameters: ImportParameters) -> None:
        """Keeps the hash of the token."""
        record = HandedOut(parameters.cmk, parameters.algorithm, parameters.expires_at)
        with self._lock:
            self._tokens[token_digest(parameters.import_token)] = record

    def find(self, import_token: str) -> HandedOut | None:
        """The record of this token, or None for one that was not handed out here."""
        with self._lock:
            return self._tokens.get(token_digest(import_token))


class HandOutImportParameters:
    """GetImportParameters."""

    def __init__(
        self, *, keys: Keys, obtain: ObtainImportParameters, claims: ImportClaims, tokens: HandedOutTokens
    ) -> None:
        self._keys = keys
        self._obtain = obtain
        self._claims = claims
        self._tokens = tokens

    def run(
        self, kms: Kms, reference: KeyReference, algorithm: WrappingAlgorithm, *, deadline: Deadline
    ) -> ImportParameters:
        """A vetted pair for a CMK that waits for its material.

        Reasons: see GetImportParameters in key_broker_service.proto.
        """
        key = self._keys.describe_recent(kms, reference, deadline=deadline)
        self._obtain.check(kms, key)
        with self._claims.fetching(key.name):
            parameters, _ = self._obtain.obtain(kms, key.name, algorithm, deadline=deadline)
        self._tokens.remember(parameters)
        return parameters


def token_digest(import_token: str) -> bytes:
    """SHA-256 of an import token: 32 bytes."""
    return hashlib.sha256(import_token.encode()).digest()

"""Hands out import parameters to callers who wrap their own material, and remembers that it did.

Of a token only the SHA-256 goes into the ledger, with its CMK, algorithm and expiry: what is needed to know it again,
and to know that the CMK may have another importer.
"""

import hashlib

from keybroker.domain.attempt import HandedOut
from keybroker.domain.deadline import Deadline
from keybroker.domain.external_key import KeyReference
from keybroker.domain.import_parameters import ImportParameters
from keybroker.domain.wrapping import WrappingAlgorithm
from keybroker.ports import Kms
from keybroker.usecases.claims import Claims
from keybroker.usecases.keys import Keys
from keybroker.usecases.obtain_import_parameters import ObtainImportParameters
from keybroker.usecases.rows import Rows
from keybroker.usecases.take_cmk import TakeCmk


class HandOutImportParameters:
    """GetImportParameters."""

    def __init__(
        self, *, rows: Rows, keys: Keys, take: TakeCmk, obtain: ObtainImportParameters, claims: Claims
    ) -> None:
        self._rows = rows
        self._keys = keys
        self._take = take
        self._obtain = obtain
        self._claims = claims

    def run(
        self, kms: Kms, reference: KeyReference, algorithm: WrappingAlgorithm, *, deadline: Deadline
    ) -> ImportParameters:
        """A vetted pair for a CMK that waits for its material and that no import holds (R5).

        Reasons: see GetImportParameters in key_broker_service.proto.
        """
        key = self._keys.describe_recent(kms, reference, deadline=deadline)
        with self._claims.fetching(key.name):
            self._take.check(kms, key)
            parameters, _ = self._obtain.obtain(kms, key.name, algorithm, deadline=deadline)
            self._rows.ledger.hand_out(
                HandedOut(token_digest(parameters.import_token), key.name, algorithm.kms_name, parameters.expires_at)
            )
        return parameters


def token_digest(import_token: str) -> bytes:
    """SHA-256 of an import token: 32 bytes."""
    return hashlib.sha256(import_token.encode()).digest()

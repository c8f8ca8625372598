"""Imports material that a caller generated and wrapped under import parameters of this broker.

Tokens that were not handed out here are taken only if the operator allows them. Refused material is counted per CMK: a
padding oracle against RSAES-PKCS1-v1_5 needs many thousand guesses, and an honest caller few.
"""

import hashlib
import threading

from cachetools import TTLCache

from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import BrokerError, KmsError, Reason
from keybroker.domain.external_key import CmkName, ExternalKey, KeyReference
from keybroker.domain.wrapping import WrappingAlgorithm
from keybroker.ports import Clock, Kms
from keybroker.usecases.claims import ImportClaims
from keybroker.usecases.deliver import Deliver, Delivered
from keybroker.usecases.hand_out_import_parameters import TOKEN_LIFE, HandedOut, HandedOutTokens, token_digest
from keybroker.usecases.keys import Keys
from keybroker.usecases.obtain_import_parameters import ImportParametersCache, ObtainImportParameters

REFUSALS_ALLOWED = 10
_COUNTED_KEYS = 100_000


class Refusals:
    """How much wrapped material the KMS refused for each CMK, for a token's life from the first."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: TTLCache[CmkName, tuple[int, float]] = TTLCache(
            maxsize=_COUNTED_KEYS, ttl=TOKEN_LIFE.total_seconds(), timer=clock.monotonic
        )

    def check(self, cmk: CmkName) -> None:
        """Raises after REFUSALS_ALLOWED of them. Reasons: UNWRAP_REFUSALS_EXHAUSTED."""
        count, ends_at = self._of(cmk)
        if count >= REFUSALS_ALLOWED:
            raise BrokerError(
                Reason.UNWRAP_REFUSALS_EXHAUSTED,
                f"The KMS refused {count} wrapped key materials for this CMK; no further one is sent.",
                metadata={"key_id": cmk.key_id},
                retry_after_seconds=max(0.0, ends_at - self._clock.monotonic()),
            )

    def count(self, cmk: CmkName) -> None:
        """Counts one."""
        with self._lock:
            count, ends_at = self._of_locked(cmk)
            self._counts[cmk] = (count + 1, ends_at)

    def _of(self, cmk: CmkName) -> tuple[int, float]:
        with self._lock:
            return self._of_locked(cmk)

    def _of_locked(self, cmk: CmkName) -> tuple[int, float]:
        now = self._clock.monotonic()
        none_yet = (0, now + TOKEN_LIFE.total_seconds())
        count, ends_at = self._counts.get(cmk, none_yet)
        return (count, ends_at) if ends_at > now else none_yet


class ImportWrappedKeyMaterial:
    """Imports material that the caller wrapped."""

    def __init__(  # noqa: PLR0913  # the collaborators of one import
        self,
        *,
        keys: Keys,
        obtain: ObtainImportParameters,
        cache: ImportParametersCache,
        claims: ImportClaims,
        deliver: Deliver,
        tokens: HandedOutTokens,
        refusals: Refusals,
        clock: Clock,
        allow_foreign_tokens: bool,
    ) -> None:
        self._keys = keys
        self._obtain = obtain
        self._cache = cache
        self._claims = claims
        self._deliver = deliver
        self._tokens = tokens
        self._refusals = refusals
        self._clock = clock
        self._allow_foreign_tokens = allow_foreign_tokens

    def algorithm_of(self, import_token: str) -> WrappingAlgorithm | None:
        """The algorithm that a token was handed out for; None for a foreign one."""
        record = self._tokens.find(import_token)
        return record.algorithm if record else None

    def validate(
        self, kms: Kms, reference: KeyReference, *, wrapped_key_material: bytes, import_token: str, deadline: Deadline
    ) -> ExternalKey:
        """Every check of `run`, and no change. Reasons: as `run`, as far as they can be known."""
        self._token_of(reference, import_token)
        key = self._importable(kms, reference, deadline)
        self._claims.check_free(key.name, fingerprint=_fingerprint(import_token, wrapped_key_material))
        return key

    def run(
        self, kms: Kms, reference: KeyReference, *, wrapped_key_material: bytes, import_token: str, deadline: Deadline
    ) -> Delivered:
        """Sends 256 bytes of wrapped material and returns when the CMK is Enabled.

        Reasons: see ImportWrappedKeyMaterial in key_broker_service.proto.
        """
        record = self._token_of(reference, import_token)
        key = self._importable(kms, reference, deadline)
        expires_at = record.expires_at if record else self._clock.now() + TOKEN_LIFE
        fingerprint = _fingerprint(import_token, wrapped_key_material)
        with self._claims.hold(key.name, deadline=deadline, fingerprint=fingerprint) as claim:
            try:
                with claim.sending(token_expires_at=expires_at):
                    sent = self._deliver.send(
                        kms,
                        key.name,
                        wrapped_key_material=wrapped_key_material,
                        import_token=import_token,
                        deadline=deadline,
                    )
            except KmsError as refusal:
                if refusal.reason is Reason.WRAPPED_KEY_MATERIAL_REFUSED:
                    self._refusals.count(key.name)
                    refusal.metadata["field"] = "wrapped_key_material"
                raise self._deliver.explain(kms, key.name, refusal, deadline=deadline) from refusal
            delivered = self._deliver.confirm(kms, key.name, sent, deadline=deadline)
            claim.settle()
        self._cache.drop_all(key.name)
        return delivered

    def _token_of(self, reference: KeyReference, import_token: str) -> HandedOut | None:
        record = self._tokens.find(import_token)
        if record is None and self._allow_foreign_tokens:
            return None
        if record is None or record.cmk.key_id != reference.key_id:
            raise BrokerError(
                Reason.IMPORT_TOKEN_UNKNOWN,
                "This broker did not hand out the import token for this CMK, or no longer remembers it.",
                metadata={"key_id": reference.key_id},
            )
        self._refusals.check(record.cmk)
        return record

    def _importable(self, kms: Kms, reference: KeyReference, deadline: Deadline) -> ExternalKey:
        key = self._keys.describe(kms, reference, deadline=deadline)
        self._obtain.check(kms, key)
        self._refusals.check(key.name)
        return key


def _fingerprint(import_token: str, wrapped_key_material: bytes) -> bytes:
    return hashlib.sha256(token_digest(import_token) + wrapped_key_material).digest()

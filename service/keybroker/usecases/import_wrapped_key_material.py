"""Imports material that a caller generated and wrapped under import parameters of this broker.

The attempt is the same as for material made here, but that its pair came before its claim: the broker handed it out, so
this CMK has had importers that it does not know (no SOLE_IMPORTER), and that it never holds the material (no PROVED).
Tokens that were not handed out here are taken only if the operator allows them. Refused material is counted per CMK: a
padding oracle against RSAES-PKCS1-v1_5 needs many thousand guesses, and an honest caller few.
"""

import hashlib
import threading
from dataclasses import dataclass, field, replace
from datetime import timedelta

from cachetools import TTLCache

from keybroker.domain.attempt import UNFINISHED, Attempt, HandedOut, Kind, State
from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import BrokerError, Reason
from keybroker.domain.external_key import CmkName, ExternalKey, KeyReference
from keybroker.domain.import_protocol import Wrapped, prepared
from keybroker.domain.wrapping import WRAPPING_ALGORITHMS, WrappingAlgorithm
from keybroker.ports import Clock, Kms
from keybroker.usecases.answers import Answer, answer
from keybroker.usecases.asked import Asked, digest_of, new_attempt, target_parts
from keybroker.usecases.carry_on import TIME_TO_SEND_SECONDS, CarryOn, Hand
from keybroker.usecases.claims import Claims
from keybroker.usecases.hand_out_import_parameters import token_digest
from keybroker.usecases.patience import Patience, UntilDeadline
from keybroker.usecases.rows import Rows
from keybroker.usecases.take_cmk import TakeCmk

REFUSALS_ALLOWED = 10
TOKEN_LIFE = timedelta(hours=24)
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


@dataclass(frozen=True, slots=True)
class Given:
    """What the caller wrapped (256 bytes), and the token that it goes with."""

    wrapped_key_material: bytes = field(repr=False)
    import_token: str = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """Tells one wrapped material from another: SHA-256 in hex."""
        return hashlib.sha256(self.wrapped_key_material).hexdigest()


@dataclass(slots=True)
class _Call:
    kms: Kms
    given: Given
    patience: Patience
    deadline: Deadline


class ImportWrappedKeyMaterial:
    """Imports material that the caller wrapped."""

    def __init__(  # noqa: PLR0913  # the collaborators of one import
        self,
        *,
        rows: Rows,
        take: TakeCmk,
        claims: Claims,
        carry_on: CarryOn,
        refusals: Refusals,
        clock: Clock,
        allow_foreign_tokens: bool,
    ) -> None:
        self._rows = rows
        self._take = take
        self._claims = claims
        self._carry_on = carry_on
        self._refusals = refusals
        self._clock = clock
        self._allow_foreign_tokens = allow_foreign_tokens

    def algorithm_of(self, import_token: str) -> WrappingAlgorithm | None:
        """The algorithm that a token was handed out for; None for a foreign one."""
        record = self._rows.ledger.find_handed_out(token_digest(import_token))
        return WRAPPING_ALGORITHMS.get(record.algorithm) if record else None

    def validate(self, kms: Kms, reference: KeyReference, given: Given, *, deadline: Deadline) -> ExternalKey:
        """Every check of `run`, and no change. Reasons: as `run`, as far as they can be known."""
        self._token_of(reference, given.import_token)
        return self._look(kms, reference, deadline)

    def run(self, kms: Kms, asked: Asked, reference: KeyReference, given: Given, *, deadline: Deadline) -> Answer:
        """Sends the material, or goes on with it, or tells again how it ended. Returns an IMPORTED row.

        Reasons: see ImportWrappedKeyMaterial in key_broker_service.proto.
        """
        parts = [*target_parts(reference), token_digest(given.import_token).hex(), given.fingerprint]
        digest = digest_of(Kind.IMPORT_WRAPPED, kms, parts)
        patience = UntilDeadline(clock=self._clock, deadline=deadline, reserve_seconds=TIME_TO_SEND_SECONDS)
        call = _Call(kms, given, patience, deadline)
        with self._claims.request(asked.caller, asked.request_id, deadline=deadline):
            row = self._rows.find(asked.caller, asked.request_id, digest=digest)
            if row is not None and row.is_terminal:
                return answer(row, replayed=True)
            if row is not None and row.cmk is not None and row.state in UNFINISHED:
                return self._resumed(call, row, row.cmk)
            row = row or new_attempt(asked, Kind.IMPORT_WRAPPED, kms, digest)
            return self._answered(self._imported(call, row, reference))

    def _imported(self, call: _Call, row: Attempt, reference: KeyReference) -> Attempt:
        token = call.given.import_token
        record = self._token_of(reference, token)
        key = self._look(call.kms, reference, call.deadline, own=row)
        expires_at = record.expires_at if record else (key.as_of or self._clock.now()) + TOKEN_LIFE
        algorithm = record.algorithm if record else ""
        wrapped = Wrapped(token, call.given.wrapped_key_material, expires_at, algorithm)
        with self._claims.hold(key.name, deadline=call.deadline):
            call.deadline.require(TIME_TO_SEND_SECONDS, step="sending the key material")
            return self._sent(call, self._take.claim(row, key, algorithm=algorithm), wrapped)

    def _sent(self, call: _Call, row: Attempt, wrapped: Wrapped) -> Attempt:
        ready = prepared(row, wrapped, material_id=call.given.fingerprint, check_value=b"", parameters="")
        try:
            row = self._rows.write("prepare", replace(ready, first=False))
        except BaseException as error:
            self._take.let_go(row, error)
            raise
        return self._carry_on.first_send(
            call.kms, row, hand=Hand(wrapped), patience=call.patience, deadline=call.deadline
        )

    def _resumed(self, call: _Call, row: Attempt, cmk: CmkName) -> Answer:
        """The caller has brought the same material again: what was not stored is in hand."""
        with self._claims.hold(cmk, deadline=call.deadline, waits=True):
            row = self._rows.ledger.find(row.caller, row.request_id) or row
            if row.is_terminal:
                return answer(row, replayed=True)  # the recovery was faster
            if row.state is State.CLAIMED:
                error = BrokerError(Reason.IMPORT_IN_PROGRESS, "The broker had stopped before it sent anything.")
                self._take.let_go(row, error)
                raise error
            if row.state in UNFINISHED:
                given, expires_at = call.given, max(row.pair_expiries)
                hand = Hand(Wrapped(given.import_token, given.wrapped_key_material, expires_at, row.algorithm))
                row = self._carry_on.run(call.kms, row, hand=hand, patience=call.patience, deadline=call.deadline)
        return self._answered(row)

    def _answered(self, row: Attempt) -> Answer:
        """Refusals of the material are counted once, when they end the attempt."""
        refused = row.failure is not None and row.failure.reason == Reason.WRAPPED_KEY_MATERIAL_REFUSED
        if refused and row.cmk is not None:
            self._refusals.count(row.cmk)
        return answer(row)

    def _token_of(self, reference: KeyReference, import_token: str) -> HandedOut | None:
        record = self._rows.ledger.find_handed_out(token_digest(import_token))
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

    def _look(
        self, kms: Kms, reference: KeyReference, deadline: Deadline, *, own: Attempt | None = None
    ) -> ExternalKey:
        key = self._take.look(kms, reference, deadline=deadline, own=own)
        self._refusals.check(key.name)
        return key

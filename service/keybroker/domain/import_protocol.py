"""The import protocol as pure functions: which step comes next, and what each does to the row.

`decide` is the decision table; the functions below it are all the ways in which a row changes (attempt.py draws them).
Nothing here reads a clock, sends or stores. Rules R1 to R8 are named where they act; each was forced by a trace of the
model (tests/model), and a test ties this module to the model. Source: docs/exactly-once.md.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum, auto

from keybroker.domain.attempt import Attempt, Evidence, Failure, State
from keybroker.domain.errors import REASONS, Reason
from keybroker.domain.external_key import CmkName, ExternalKey, KeyState

LATE_COMMIT = timedelta(minutes=5)
"""A request whose token was checked just before its expiry may commit so much later (R7)."""

SETTLING = timedelta(seconds=61)
"""Two DescribeKeys at least 60 s apart (R7); a Date is cut to the second."""

_TOKEN_REFUSALS = frozenset({Reason.IMPORT_TOKEN_INVALID, Reason.IMPORT_TOKEN_EXPIRED})
BOND_REFUSALS = _TOKEN_REFUSALS | {Reason.WRAPPED_KEY_MATERIAL_REFUSED, Reason.KEY_STATE_CONFLICT}
"""Refusals of a resend that another resend will not change once the CMK is bound."""


class Sight(StrEnum):
    """What a DescribeKey showed of the CMK, as far as the protocol cares."""

    NOTHING = auto()  # not looked yet
    PENDING = auto()
    BOUND = auto()  # Enabled, or Disabled, which only a CMK with material can become
    GONE = auto()  # no such CMK any more
    OTHER = auto()  # being deleted, or a state that is not known: nothing follows from it


SIGHTS = {
    KeyState.PENDING_IMPORT: Sight.PENDING,
    KeyState.ENABLED: Sight.BOUND,
    KeyState.DISABLED: Sight.BOUND,
    KeyState.PENDING_DELETION: Sight.OTHER,
    KeyState.UNKNOWN: Sight.OTHER,
}


@dataclass(frozen=True, slots=True)
class Seen:
    """What this process knows of the CMK since it took the row up.

    `expired`: the KMS's Date is past every pair's expiry by LATE_COMMIT. `settled`: after that was known, two
    DescribeKeys SETTLING apart showed the same sight. `resend_refused`: for the CMK's or the token's sake, and sent
    after this sight.
    """

    sight: Sight = Sight.NOTHING
    expired: bool = False
    settled: bool = False
    resend_refused: bool = False
    send_lost: bool = False  # the last send of this process got no answer that says anything


@dataclass(frozen=True, slots=True)
class Means:
    """What this process can do. `blob`: it has the wrapped material and its token. `material`: the material itself."""

    blob: bool = False
    material: bool = False
    may_retry: bool = False  # a call with time left: passing refusals are tried again
    may_rewrap: bool = False
    may_prove: bool = False
    disproved: bool = False  # the KMS encrypted, and the material, which opened its ciphertexts before, did not open it
    sole_importer: bool = False  # the operator's assertion
    after_restore: bool = False
    awaits_caller: bool = False  # a repeat of the request would bring the wrapped material again


class Step(StrEnum):
    """What to do next."""

    LOOK = auto()
    RESEND = auto()
    REWRAP = auto()
    PROVE = auto()
    FINISH_ACCEPTED = auto()
    FINISH_SOLE_IMPORTER = auto()
    FINISH_UNATTRIBUTED = auto()
    FINISH_NOT_IMPORTED = auto()
    FINISH_ALREADY_BOUND = auto()
    RELEASE = auto()


def decide(attempt: Attempt, seen: Seen, means: Means) -> Step:
    """The next step for an unfinished row. LOOK and RESEND may be waited before; the others are due at once."""
    match attempt.state:
        case State.CLAIMED:
            return _decide_claimed(seen, means)
        case State.PREPARED if attempt.open_sends == 0 and not attempt.restored:
            return _decide_all_refused(attempt, seen, means)
        case State.PREPARED:
            return _decide_open(attempt, seen, means)
        case State.ACCEPTED:
            return _decide_accepted(seen, means)
    raise ValueError(f"{attempt.state} is not for the import protocol to decide")


def _decide_claimed(seen: Seen, means: Means) -> Step:
    if seen.sight is Sight.BOUND:
        return Step.FINISH_UNATTRIBUTED if means.after_restore else Step.FINISH_ALREADY_BOUND  # R8
    return Step.RELEASE


def _decide_all_refused(attempt: Attempt, seen: Seen, means: Means) -> Step:
    """Every send provably did nothing (R2), judged on the row (R1)."""
    reason = Reason(attempt.failure.reason) if attempt.failure else Reason.NOT_IMPORTED
    if means.material and means.may_rewrap and reason in _TOKEN_REFUSALS and seen.sight is not Sight.BOUND:
        return Step.REWRAP  # R6: no send is open
    if not REASONS[reason].retryable:
        return Step.FINISH_NOT_IMPORTED
    return Step.RESEND if means.blob and means.may_retry and seen.sight is not Sight.BOUND else Step.RELEASE


def _decide_open(attempt: Attempt, seen: Seen, means: Means) -> Step:
    may_resend = means.blob and not seen.expired and not seen.resend_refused
    match seen.sight:
        case Sight.BOUND:
            better_proved = seen.send_lost and means.material and means.may_prove
            return Step.RESEND if may_resend and not better_proved else _decide_bound(attempt, seen, means)
        case Sight.PENDING | Sight.GONE if seen.expired and seen.settled:
            return Step.FINISH_NOT_IMPORTED  # R7
        case Sight.NOTHING | Sight.PENDING if may_resend and not attempt.restored:
            return Step.RESEND  # R8: a restored one only once the CMK is bound
    return Step.LOOK


def _decide_bound(attempt: Attempt, seen: Seen, means: Means) -> Step:
    """No resend can settle it."""
    if means.awaits_caller and not means.blob and not seen.expired:
        return Step.LOOK
    if means.material and means.may_prove:
        return Step.PROVE
    unseen = attempt.restored or means.after_restore  # R8
    sole = means.sole_importer and attempt.first and not unseen and not means.disproved
    return Step.FINISH_SOLE_IMPORTER if sole else Step.FINISH_UNATTRIBUTED


def _decide_accepted(seen: Seen, means: Means) -> Step:
    if seen.sight is Sight.BOUND:
        if means.material and means.may_prove:
            return Step.PROVE
        return Step.FINISH_UNATTRIBUTED if means.disproved else Step.FINISH_ACCEPTED
    if seen.sight is Sight.GONE and seen.expired and seen.settled:
        return Step.FINISH_NOT_IMPORTED
    return Step.LOOK


def is_expired(attempt: Attempt, kms_date: datetime | None) -> bool:
    """Whether no pair of the row can commit anything any more, by the KMS's Date (R7)."""
    if kms_date is None or not attempt.pair_expiries:
        return False
    return kms_date > max(attempt.pair_expiries) + LATE_COMMIT


def claimed(attempt: Attempt, cmk: CmkName, *, first: bool) -> Attempt:
    """A new start for this CMK: nothing of an earlier one can be bound (R4, R5)."""
    return replace(
        _emptied(attempt),
        state=State.CLAIMED,
        cmk=cmk,
        first=first,
        material_id="",
        algorithm="",
        parameters="",
        entropy_source="",
        entropy_tests="",
        wrapping_public_key_digest=b"",
        audit_line="",
        sends=0,
        refused=0,
        pair_expiries=(),
        check_value=b"",
        kms_request_id="",  # CreateKey's, where the request made the CMK
        accepted_at=None,
        failure=None,
    )


@dataclass(frozen=True, slots=True)
class Wrapped:
    """One wrapped key material with the token that it goes with.

    `public_key_digest` is the SHA-256 of the wrapping public key's SubjectPublicKeyInfo; empty: a caller wrapped it.
    """

    import_token: str = field(repr=False)
    wrapped_key_material: bytes = field(repr=False)
    expires_at: datetime
    algorithm: str
    public_key_digest: bytes = b""


def prepared(  # noqa: PLR0913  # what is recorded
    attempt: Attempt,
    wrapped: Wrapped,
    *,
    material_id: str,
    check_value: bytes,
    parameters: str,
    entropy_source: str = "",
    entropy_tests: str = "",
) -> Attempt:
    """The first send is recorded (R1). `entropy_…` is of material which the broker generated."""
    ready = replace(
        attempt,
        state=State.PREPARED,
        material_id=material_id,
        check_value=check_value,
        parameters=parameters,
        entropy_source=entropy_source,
        entropy_tests=entropy_tests,
    )
    return rewrapped(ready, wrapped)


def rewrapped(attempt: Attempt, wrapped: Wrapped) -> Attempt:
    """A send of the same material under another pair is recorded (R1, R6)."""
    return replace(
        attempt,
        sends=attempt.sends + 1,
        pair_expiries=(*attempt.pair_expiries, wrapped.expires_at),
        import_token=wrapped.import_token,
        wrapped_key_material=wrapped.wrapped_key_material,
        algorithm=wrapped.algorithm,
        wrapping_public_key_digest=wrapped.public_key_digest,
    )


def resent(attempt: Attempt) -> Attempt:
    """A send of the identical wrapped material is recorded (R1)."""
    return replace(attempt, sends=attempt.sends + 1)


def refused(attempt: Attempt, failure: Failure) -> Attempt:
    """One send provably did nothing (R2)."""
    return replace(attempt, refused=attempt.refused + 1, failure=failure)


def accepted(attempt: Attempt, *, kms_request_id: str, at: datetime, public_key_digest: bytes) -> Attempt:
    """The KMS answered success to one of this row's sends, which need not be the last: `public_key_digest` is its."""
    return replace(
        attempt,
        state=State.ACCEPTED,
        kms_request_id=kms_request_id,
        accepted_at=at,
        wrapping_public_key_digest=public_key_digest,
    )


def imported(attempt: Attempt, evidence: Evidence, key: ExternalKey) -> Attempt:
    """Terminal."""
    return replace(_emptied(attempt), state=State.IMPORTED, evidence=evidence, key=key, failure=None)


def receipted(attempt: Attempt, receipt: str) -> Attempt:
    """With the receipt that its answer will have for ever: written together with IMPORTED, or never."""
    if attempt.state is not State.IMPORTED:
        raise ValueError(f"{attempt.state} gets no receipt")
    return replace(attempt, receipt=receipt)


def unattributed(attempt: Attempt) -> Attempt:
    """Terminal: no check value without evidence."""
    return replace(_emptied(attempt), state=State.ENABLED_UNATTRIBUTED, check_value=b"", failure=None)


def not_imported(attempt: Attempt, failure: Failure) -> Attempt:
    """Terminal; the CMK is free, the request id is not (R4)."""
    return replace(_emptied(attempt), state=State.NOT_IMPORTED, check_value=b"", failure=failure)


def already_bound(attempt: Attempt) -> Attempt:
    """Terminal; nothing was generated."""
    return replace(_emptied(attempt), state=State.ALREADY_BOUND, failure=None)


def released(attempt: Attempt, failure: Failure | None) -> Attempt:
    """Lets go of the CMK: nothing was generated, or every send of it provably did nothing."""
    return replace(_emptied(attempt), state=State.RELEASED, check_value=b"", failure=failure)


def _emptied(attempt: Attempt) -> Attempt:
    return replace(attempt, import_token="", wrapped_key_material=b"")

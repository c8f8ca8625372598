"""From a row to what the caller is told. Terminal rows are told again and again, always the same."""

from dataclasses import dataclass

from keybroker.domain.attempt import Attempt, Failure, State
from keybroker.domain.errors import REASONS, BrokerError, Reason

REPLAYED = "replayed"
_RETRY_AFTER = "retry_after_seconds"
_COME_AGAIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A row that ended well: IMPORTED or CREATED. `replayed`: it had ended before this call."""

    attempt: Attempt
    replayed: bool


def failure_of(error: BrokerError) -> Failure:
    """What the ledger keeps of an error, to tell it again."""
    metadata = dict(error.metadata)
    if error.retry_after_seconds is not None:
        metadata[_RETRY_AFTER] = str(error.retry_after_seconds)
    return Failure(error.reason.value, error.message, tuple(sorted(metadata.items())))


def answer(attempt: Attempt, *, replayed: bool = False) -> Answer:
    """The answer for this row, or the error that it stands for.

    Reasons: that of the row's failure, KEY_MATERIAL_ALREADY_BOUND, ENABLED_UNATTRIBUTED, IMPORT_UNRESOLVED.
    """
    if attempt.state in {State.IMPORTED, State.CREATED}:
        return Answer(attempt, replayed)
    error = error_of(attempt)
    if replayed and attempt.is_terminal:
        error.metadata[REPLAYED] = "true"
    raise error


def error_of(attempt: Attempt) -> BrokerError:
    """The error that a row stands for which has not ended well."""
    about = {"key_id": attempt.cmk.key_id} if attempt.cmk else {}
    match attempt.state:
        case State.ALREADY_BOUND:
            return BrokerError(
                Reason.KEY_MATERIAL_ALREADY_BOUND, "The CMK is Enabled: it has key material already.", metadata=about
            )
        case State.ENABLED_UNATTRIBUTED:
            return unattributed_error(about)
        case State.NOT_IMPORTED | State.RELEASED if attempt.failure is not None:
            return _error_from(attempt.failure)
        case State.NOT_IMPORTED | State.RELEASED | State.CLAIMED:
            return _without_failure(attempt.state, about)
        case State.ACCEPTED:
            known = about | ({"kms_request_id": attempt.kms_request_id} if attempt.kms_request_id else {})
            return unresolved("the KMS accepted it, and the CMK was not seen Enabled yet", known)
    return unresolved("no answer settled yet whether the KMS took it", about)


def _without_failure(state: State, about: dict[str, str]) -> BrokerError:
    if state is State.NOT_IMPORTED:
        return BrokerError(Reason.NOT_IMPORTED, "Nothing of this request was imported.", metadata=about)
    message = "An earlier call with this request_id was let go of before anything was sent."
    return BrokerError(Reason.IMPORT_IN_PROGRESS, message, metadata=about)


def _error_from(failure: Failure) -> BrokerError:
    metadata = dict(failure.metadata)
    reason = Reason(failure.reason)
    wait = metadata.pop(_RETRY_AFTER, _COME_AGAIN_SECONDS if REASONS[reason].retryable else None)
    return BrokerError(
        reason, failure.message, metadata=metadata, retry_after_seconds=None if wait is None else float(wait)
    )


def unattributed_error(metadata: dict[str, str]) -> BrokerError:
    """The CMK is Enabled with somebody's material."""
    return BrokerError(
        Reason.ENABLED_UNATTRIBUTED,
        "The CMK is Enabled, and it can't be found out whose key material it has.",
        metadata=metadata,
    )


def unresolved(why: str, metadata: dict[str, str], *, retry_after_seconds: float = _COME_AGAIN_SECONDS) -> BrokerError:
    """The answer when key material was sent and it is not known what came of it."""
    return BrokerError(
        Reason.IMPORT_UNRESOLVED,
        f"The key material was sent, and {why}. It may be bound to the CMK, now or later.",
        metadata=metadata,
        retry_after_seconds=retry_after_seconds,
    )

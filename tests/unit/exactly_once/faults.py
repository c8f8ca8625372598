"""What the KMS, or the way to it, can answer instead of the truth."""

from collections.abc import Callable, Mapping

from keybroker.domain.errors import KmsError, Reason
from tests.builders import lost_reply, refusal


def _open(reason: Reason, kms_code: str) -> Callable[[], KmsError]:
    """An answer that proves nothing about what was done."""
    return lambda: KmsError(reason, "An answer.", kms_code=kms_code, committed_nothing=False)


PROVES_NOTHING: Mapping[str, Callable[[], KmsError]] = {
    "timeout": lost_reply,
    "500": _open(Reason.KMS_UNAVAILABLE, "InternalFailure"),
    "nonce used": _open(Reason.KMS_REQUEST_REJECTED, "SignatureNonceUsed"),
    "unreadable": _open(Reason.KMS_RESPONSE_INVALID, "unreadable"),
}

REFUSALS: Mapping[str, Callable[[], KmsError]] = {
    "403": lambda: refusal(Reason.KMS_ACCESS_DENIED, "Forbidden.NoPermission"),
    "409": lambda: refusal(Reason.KEY_STATE_CONFLICT, "Rejected.StateModifiedFailed"),
    "429": lambda: refusal(Reason.KMS_THROTTLED, "Throttling.User"),
    "token": lambda: refusal(Reason.IMPORT_TOKEN_INVALID, "InvalidImportToken"),
}
"""Only of requests that did nothing: R2 rests on that."""

ERRORS = {**PROVES_NOTHING, **REFUSALS}

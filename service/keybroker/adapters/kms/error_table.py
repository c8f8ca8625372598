"""Every error code of the KMS and its gateway, as one table: what it means for us, and whether it proves anything.

`committed_nothing` follows rule R2 of the import protocol: a closed list. True stands only at refusals that the KMS
makes before it acts (form, signature, permission, state, quota), and counts only together with an HTTP status that
goes with the code. False stands at 5xx, and at SignatureNonceUsed: a duplicate of the same request may have been
delivered and served. A code that is not here proves nothing.

Source: contract 1.2 to 1.12 and 3.4. Where the contract has no certain status (3.4: from memory) any that a refusal of
that kind can have is taken. A code means the same for every operation in use, so the table has no such column.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from keybroker.domain.errors import KmsError, Reason

OTHER = "other"
TIMEOUT = "timeout"
CONNECTION = "connection"
UNREADABLE = "unreadable"
DEFAULT_THROTTLE_SECONDS = 1.0

# An expired STS token is told as either: contract 1.12 (traps) and 3.4.
STALE_CREDENTIALS_CODES = frozenset(
    {
        "InvalidAccessKeyId.NotFound",
        "InvalidSecurityToken.Expired",
        "InvalidSecurityToken.Malformed",
        "InvalidSecurityToken.MismatchWithAccessKey",
    }
)


@dataclass(frozen=True, slots=True)
class ErrorRule:
    """What goes with a code. `statuses` are the HTTP statuses that it may come with; `message` is for the caller."""

    statuses: frozenset[int]
    reason: Reason
    message: str
    committed_nothing: bool


def _refusals(reason: Reason, message: str, *codes: str, statuses: tuple[int, ...]) -> dict[str, ErrorRule]:
    return {code: ErrorRule(frozenset(statuses), reason, message, committed_nothing=True) for code in codes}


def _ambiguous(reason: Reason, message: str, *codes: str, statuses: tuple[int, ...]) -> dict[str, ErrorRule]:
    return {code: ErrorRule(frozenset(statuses), reason, message, committed_nothing=False) for code in codes}


_CREDENTIALS = "The KMS does not accept the broker's credentials."
_BLOCKED = "The KMS is not open to the broker's account."
_FORM = "The KMS rejected the form of the broker's request."
_STATE = "The CMK's state does not allow the operation."
_UNSUPPORTED = "The KMS does not support the operation for this CMK or instance."

ERROR_TABLE: Mapping[str, ErrorRule] = {
    # The request's form
    **_refusals(
        Reason.KMS_REQUEST_REJECTED,
        _FORM,
        "ParseRequestParameterException",
        "MissingParameter",
        "InvalidParameter",
        "Unsupported.Alias",  # only key ids are sent where the KMS takes no alias
        statuses=(400,),
    ),
    **_refusals(Reason.KMS_REQUEST_REJECTED, _FORM, "UnsupportedHTTPMethod", statuses=(403,)),
    **_refusals(Reason.KMS_REQUEST_REJECTED, _FORM, "InvalidAction.NotFound", statuses=(400, 404)),
    # Who asks, and when
    **_refusals(
        Reason.KMS_CREDENTIALS_REJECTED,
        _CREDENTIALS,
        "IncompleteSignature",
        "SignatureDoesNotMatch",
        statuses=(400, 403),
    ),
    **_refusals(Reason.KMS_CREDENTIALS_REJECTED, _CREDENTIALS, "InvalidAccessKeyId.NotFound", statuses=(404,)),
    **_refusals(
        Reason.KMS_CREDENTIALS_REJECTED,
        _CREDENTIALS,
        "Forbidden.AccessKey",
        "Forbidden.AccessKeyDisabled",
        statuses=(403,),
    ),
    **_refusals(
        Reason.KMS_CREDENTIALS_REJECTED,
        _CREDENTIALS,
        "InvalidSecurityToken.Expired",
        "InvalidSecurityToken.Malformed",
        "InvalidSecurityToken.MismatchWithAccessKey",
        "MissingSecurityToken",
        statuses=(400, 403, 404),
    ),
    **_refusals(
        Reason.KMS_CLOCK_SKEW,
        "The KMS finds the broker's clock more than 15 minutes wrong.",
        "IllegalTimestamp",
        "InvalidTimeStamp.Expired",
        statuses=(400,),
    ),
    **_ambiguous(
        Reason.KMS_UNAVAILABLE,
        "The KMS has seen this request before: it was delivered twice on the way.",
        "SignatureNonceUsed",
        statuses=(400,),
    ),
    **_refusals(
        Reason.KMS_ACCESS_DENIED,
        "The KMS denies the broker's account this operation.",
        "Forbidden.NoPermission",
        statuses=(403,),
    ),
    **_refusals(
        Reason.KMS_ACCOUNT_BLOCKED,
        _BLOCKED,
        "Forbidden.KmsServiceNotEnabled",
        "Forbidden.InDebt",
        "Forbidden.InDebtOverdue",
        "Forbidden.ProhibitedByRiskControl",
        "Forbidden.UbsmsInvalidUserid",
        "Forbidden.UbsmsInvalidBid",
        statuses=(403,),
    ),
    # The CMK
    **_refusals(
        Reason.KEY_NOT_FOUND,
        "The KMS has no such CMK in the instance's account and region.",
        "Forbidden.KeyNotFound",
        "Forbidden.KeyVersionNotFound",
        "Forbidden.AliasNotFound",
        "Forbidden.ResourceNotFound",
        statuses=(404,),
    ),
    **_refusals(
        Reason.KEY_ORIGIN_NOT_EXTERNAL,
        "The CMK's key material is made by the KMS; it takes none from outside.",
        "Unsupported.Origin",
        statuses=(400,),
    ),
    **_refusals(Reason.ALIAS_ALREADY_EXISTS, "Another CMK has this alias.", "AliasAlreadyExists", statuses=(400,)),
    **_refusals(
        Reason.KEY_STATE_CONFLICT,
        _STATE,
        "Rejected.Enabled",
        "Rejected.PendingImport",
        "Rejected.StateModifiedFailed",
        statuses=(409,),
    ),
    **_refusals(Reason.KEY_DISABLED, "The CMK is Disabled.", "Rejected.Disabled", statuses=(409,)),
    **_refusals(
        Reason.KEY_PENDING_DELETION,
        "The CMK is scheduled for deletion.",
        "Rejected.PendingDeletion",
        statuses=(409,),
    ),
    # The import
    **_refusals(
        Reason.IMPORT_TOKEN_INVALID,
        "The KMS refused the import token as invalid for this CMK.",
        "InvalidImportToken",
        statuses=(400,),
    ),
    **_refusals(Reason.IMPORT_TOKEN_EXPIRED, "The import token has expired.", "ExpiredImportToken", statuses=(400,)),
    **_refusals(
        Reason.WRAPPED_KEY_MATERIAL_REFUSED,
        "The KMS refused the wrapped key material.",
        "InvalidKeyMaterial",
        statuses=(400,),
    ),
    # What the KMS can and will do
    **_refusals(
        Reason.KMS_OPERATION_UNSUPPORTED,
        _UNSUPPORTED,
        "Unsupported.ProtectionLevel",
        "Rejected.UnsupportedOperation",
        "UnsupportedOperation",
        statuses=(400,),
    ),
    **_refusals(
        Reason.KMS_QUOTA_EXCEEDED,
        "A resource quota of the KMS (CMKs or aliases) is used up.",
        "Rejected.LimitExceeded",
        statuses=(400,),
    ),
    **_refusals(
        Reason.KMS_THROTTLED,
        "The KMS throttles the broker's account.",
        "Rejected.Throttling",
        "Throttling",
        "Throttling.User",
        "Throttling.Api",
        statuses=(400, 429),
    ),
    **_refusals(
        Reason.KMS_INSTANCE_NOT_READY,
        "The Dedicated KMS instance is not ready.",
        "Forbidden.DKMSInstanceStateInvalid",
        statuses=(400, 403, 409),
    ),
    **_ambiguous(
        Reason.KMS_UNAVAILABLE,
        "The KMS failed to serve the request.",
        "InternalFailure",
        "ServiceUnavailableTemporary",
        "SerivceUnavailableTemporary",  # as old pages of the KMS spell it
        statuses=(500, 503),
    ),
}

_UNRECOGNISED = ErrorRule(
    frozenset(),
    Reason.KMS_ERROR_UNRECOGNISED,
    "The KMS answered with an error that the broker does not know.",
    committed_nothing=False,
)
_FAILED = replace(_UNRECOGNISED, reason=Reason.KMS_UNAVAILABLE, message="The KMS failed to serve the request.")
_SERVER_ERROR = 500


def kms_error(code: str, status: int, *, request_id: str = "", retry_after_seconds: float | None = None) -> KmsError:
    """What an error answer of the KMS is to us. An unknown code becomes "other", with a 5xx a failure of the KMS."""
    rule = ERROR_TABLE.get(code, _FAILED if status >= _SERVER_ERROR else _UNRECOGNISED)
    if rule.reason is Reason.KMS_THROTTLED and retry_after_seconds is None:
        retry_after_seconds = DEFAULT_THROTTLE_SECONDS
    return KmsError(
        rule.reason,
        rule.message,
        kms_code=code if code in ERROR_TABLE else OTHER,
        committed_nothing=rule.committed_nothing and status in rule.statuses,
        kms_request_id=request_id,
        retry_after_seconds=retry_after_seconds,
    )

"""Every way in which a call can fail, as the caller sees it.

    BrokerError           a reason of the table below, our words, metadata
    ├── InvalidField      the request is wrong; names the field and the fix
    └── KmsError          the KMS refused, failed or did not answer; knows whether it may have changed anything

REASONS is the one table from a reason to its gRPC code, whether a retry makes sense, and what to do. The
adapters translate foreign errors to reasons; rpc/status.py puts them on the wire; docs/errors.md is generated.
Source: protos/keymaterial/v1/error_reason.proto has the same reasons (a test compares them).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum, auto


class _UpperCase(StrEnum):
    @staticmethod
    def _generate_next_value_(name: str, start: int, count: int, last_values: list[str]) -> str:  # noqa: ARG004
        return name


class Code(_UpperCase):
    """The gRPC status codes in use, by their canonical names."""

    INVALID_ARGUMENT = auto()
    UNAUTHENTICATED = auto()
    PERMISSION_DENIED = auto()
    NOT_FOUND = auto()
    ALREADY_EXISTS = auto()
    FAILED_PRECONDITION = auto()
    ABORTED = auto()
    RESOURCE_EXHAUSTED = auto()
    DEADLINE_EXCEEDED = auto()
    UNAVAILABLE = auto()
    UNKNOWN = auto()
    INTERNAL = auto()


class Reason(_UpperCase):
    """Why a call failed: the ErrorInfo.reason that the caller reads."""

    INVALID_FIELD = auto()
    KEY_NOT_FOUND = auto()
    KEY_ORIGIN_NOT_EXTERNAL = auto()
    KEY_SPEC_UNSUPPORTED = auto()
    KEY_NOT_ON_INSTANCE = auto()
    KEY_PENDING_DELETION = auto()
    KEY_DISABLED = auto()
    KEY_MATERIAL_ALREADY_BOUND = auto()
    KEY_STATE_CONFLICT = auto()
    ALIAS_ALREADY_EXISTS = auto()
    WRAPPING_ALGORITHM_FORBIDDEN = auto()
    IMPORT_TOKEN_UNKNOWN = auto()
    IMPORT_TOKEN_INVALID = auto()
    IMPORT_TOKEN_EXPIRED = auto()
    WRAPPED_KEY_MATERIAL_REFUSED = auto()
    UNWRAP_REFUSALS_EXHAUSTED = auto()
    GENERATED_MATERIAL_REFUSED = auto()
    WRAPPING_PUBLIC_KEY_REJECTED = auto()
    IMPORT_UNRESOLVED = auto()
    IMPORT_IN_PROGRESS = auto()
    CREATE_OUTCOME_UNKNOWN = auto()
    CHANGE_OUTCOME_UNKNOWN = auto()
    DEADLINE_TOO_SHORT = auto()
    BROKER_OVERLOADED = auto()
    KMS_THROTTLED = auto()
    KMS_QUOTA_EXCEEDED = auto()
    KMS_UNAVAILABLE = auto()
    KMS_INSTANCE_NOT_READY = auto()
    KMS_RESPONSE_INVALID = auto()
    KMS_ACCESS_DENIED = auto()
    KMS_CREDENTIALS_REJECTED = auto()
    KMS_ACCOUNT_BLOCKED = auto()
    KMS_CLOCK_SKEW = auto()
    KMS_OPERATION_UNSUPPORTED = auto()
    KMS_REQUEST_REJECTED = auto()
    KMS_ERROR_UNRECOGNISED = auto()
    EMULATOR_NOT_ALLOWED = auto()
    INTERNAL = auto()
    CALLER_UNAUTHENTICATED = auto()
    CALLER_NOT_ALLOWED = auto()
    CALLER_RATE_LIMITED = auto()
    REQUEST_ID_REUSED = auto()
    REQUEST_NOT_FOUND = auto()
    NOT_IMPORTED = auto()
    ENABLED_UNATTRIBUTED = auto()
    LEDGER_UNAVAILABLE = auto()
    LEDGER_RECORD_UNREADABLE = auto()
    LEDGER_RESTORED = auto()
    KMS_QUOTA_BUSY = auto()
    NOT_AN_ORPHAN = auto()
    ENTROPY_UNAVAILABLE = auto()
    AUDIT_UNAVAILABLE = auto()


@dataclass(frozen=True, slots=True)
class ReasonRule:
    """What goes with a reason: its code, what to do, and whether the call may be repeated, request_id and all."""

    code: Code
    advice: str
    retryable: bool = False


_OPERATOR = "The caller can do nothing; the broker's operator must look at it."

REASONS: Mapping[Reason, ReasonRule] = {
    Reason.INVALID_FIELD: ReasonRule(Code.INVALID_ARGUMENT, "Correct the field that BadRequest names."),
    Reason.KEY_NOT_FOUND: ReasonRule(
        Code.NOT_FOUND, "Check the key id, and that it is of the instance's account and region."
    ),
    Reason.KEY_ORIGIN_NOT_EXTERNAL: ReasonRule(
        Code.FAILED_PRECONDITION, "Use a CMK that was created with Origin EXTERNAL (new_key makes one)."
    ),
    Reason.KEY_SPEC_UNSUPPORTED: ReasonRule(
        Code.FAILED_PRECONDITION, "Use a CMK of spec Aliyun_AES_128, Aliyun_AES_192 or Aliyun_AES_256."
    ),
    Reason.KEY_NOT_ON_INSTANCE: ReasonRule(
        Code.FAILED_PRECONDITION, "Name the configured instance that holds this CMK."
    ),
    Reason.KEY_PENDING_DELETION: ReasonRule(
        Code.FAILED_PRECONDITION, "Call CancelKeyDeletion first, or use another CMK."
    ),
    Reason.KEY_DISABLED: ReasonRule(Code.FAILED_PRECONDITION, "Have an administrator enable the CMK first."),
    Reason.KEY_MATERIAL_ALREADY_BOUND: ReasonRule(
        Code.FAILED_PRECONDITION,
        "A CMK can have only one piece of key material and is bound to the first for ever: import into a new CMK.",
    ),
    Reason.KEY_STATE_CONFLICT: ReasonRule(
        Code.FAILED_PRECONDITION, "Look at the CMK's state with DescribeKey; it may have changed meanwhile."
    ),
    Reason.ALIAS_ALREADY_EXISTS: ReasonRule(Code.ALREADY_EXISTS, "Choose another alias."),
    Reason.WRAPPING_ALGORITHM_FORBIDDEN: ReasonRule(Code.FAILED_PRECONDITION, "Use RSAES_OAEP_SHA_256 (the default)."),
    Reason.IMPORT_TOKEN_UNKNOWN: ReasonRule(
        Code.FAILED_PRECONDITION, "Call GetImportParameters and wrap the material again with its public key."
    ),
    Reason.IMPORT_TOKEN_INVALID: ReasonRule(
        Code.FAILED_PRECONDITION, "Call GetImportParameters and wrap the material again with its public key."
    ),
    Reason.IMPORT_TOKEN_EXPIRED: ReasonRule(
        Code.FAILED_PRECONDITION, "Call GetImportParameters and wrap the material again with its public key."
    ),
    Reason.WRAPPED_KEY_MATERIAL_REFUSED: ReasonRule(
        Code.INVALID_ARGUMENT,
        "Wrap material of the CMK's length with the public key and the algorithm that came with the token.",
    ),
    Reason.UNWRAP_REFUSALS_EXHAUSTED: ReasonRule(
        Code.RESOURCE_EXHAUSTED, "Wait until the time that RetryInfo gives, or use another CMK.", retryable=True
    ),
    Reason.GENERATED_MATERIAL_REFUSED: ReasonRule(Code.INTERNAL, _OPERATOR),
    Reason.WRAPPING_PUBLIC_KEY_REJECTED: ReasonRule(Code.INTERNAL, _OPERATOR),
    Reason.IMPORT_UNRESOLVED: ReasonRule(
        Code.ABORTED, "Repeat the call with the same request_id, or look with GetImport.", retryable=True
    ),
    Reason.IMPORT_IN_PROGRESS: ReasonRule(
        Code.ABORTED, "Wait for the other call, then repeat this one with the same request_id.", retryable=True
    ),
    Reason.CREATE_OUTCOME_UNKNOWN: ReasonRule(
        Code.ABORTED,
        "Repeat the call with the same request_id to look for the CMK again; allow_second_key makes another.",
        retryable=True,
    ),
    Reason.CHANGE_OUTCOME_UNKNOWN: ReasonRule(Code.ABORTED, "Look with DescribeKey whether the change was made."),
    Reason.DEADLINE_TOO_SHORT: ReasonRule(Code.DEADLINE_EXCEEDED, "Allow the call more time.", retryable=True),
    Reason.BROKER_OVERLOADED: ReasonRule(
        Code.RESOURCE_EXHAUSTED, "Call again after the time in RetryInfo.", retryable=True
    ),
    Reason.KMS_THROTTLED: ReasonRule(
        Code.RESOURCE_EXHAUSTED,
        "Call again after the time in RetryInfo; with created_key_id set, for that CMK.",
        retryable=True,
    ),
    Reason.KMS_QUOTA_EXCEEDED: ReasonRule(
        Code.RESOURCE_EXHAUSTED, "Delete CMKs or aliases, or buy more quota for the KMS instance."
    ),
    Reason.KMS_UNAVAILABLE: ReasonRule(Code.UNAVAILABLE, "Call again later.", retryable=True),
    Reason.KMS_INSTANCE_NOT_READY: ReasonRule(
        Code.UNAVAILABLE, "Call again when the KMS instance is ready.", retryable=True
    ),
    Reason.KMS_RESPONSE_INVALID: ReasonRule(
        Code.UNAVAILABLE, "Call again later; if it persists, the operator.", retryable=True
    ),
    Reason.KMS_ACCESS_DENIED: ReasonRule(Code.FAILED_PRECONDITION, _OPERATOR),
    Reason.KMS_CREDENTIALS_REJECTED: ReasonRule(Code.FAILED_PRECONDITION, _OPERATOR),
    Reason.KMS_ACCOUNT_BLOCKED: ReasonRule(Code.FAILED_PRECONDITION, _OPERATOR),
    Reason.KMS_CLOCK_SKEW: ReasonRule(Code.FAILED_PRECONDITION, _OPERATOR),
    Reason.KMS_OPERATION_UNSUPPORTED: ReasonRule(Code.FAILED_PRECONDITION, _OPERATOR),
    Reason.KMS_REQUEST_REJECTED: ReasonRule(Code.INTERNAL, _OPERATOR),
    Reason.KMS_ERROR_UNRECOGNISED: ReasonRule(Code.UNKNOWN, _OPERATOR),
    Reason.EMULATOR_NOT_ALLOWED: ReasonRule(Code.FAILED_PRECONDITION, _OPERATOR),
    Reason.INTERNAL: ReasonRule(Code.INTERNAL, _OPERATOR),
    Reason.CALLER_UNAUTHENTICATED: ReasonRule(
        Code.UNAUTHENTICATED, "Call with a valid credential of the kind that the broker is configured for."
    ),
    Reason.CALLER_NOT_ALLOWED: ReasonRule(
        Code.PERMISSION_DENIED, "Ask the broker's operator for a policy rule that allows it."
    ),
    Reason.CALLER_RATE_LIMITED: ReasonRule(
        Code.RESOURCE_EXHAUSTED, "Call again after the time in RetryInfo.", retryable=True
    ),
    Reason.REQUEST_ID_REUSED: ReasonRule(Code.ALREADY_EXISTS, "Make a new request_id for each new request."),
    Reason.REQUEST_NOT_FOUND: ReasonRule(Code.NOT_FOUND, "Check the request_id, and that the same caller made it."),
    Reason.NOT_IMPORTED: ReasonRule(Code.ABORTED, "This is final; ask anew with a new request_id."),
    Reason.ENABLED_UNATTRIBUTED: ReasonRule(
        Code.FAILED_PRECONDITION, "This is final; import into a new CMK, and let nobody else import."
    ),
    Reason.LEDGER_UNAVAILABLE: ReasonRule(
        Code.UNAVAILABLE, "Call again later; if it persists, the operator.", retryable=True
    ),
    Reason.LEDGER_RECORD_UNREADABLE: ReasonRule(Code.FAILED_PRECONDITION, _OPERATOR),
    Reason.LEDGER_RESTORED: ReasonRule(
        Code.FAILED_PRECONDITION, "Call again after the time in RetryInfo, or import into a new CMK."
    ),
    Reason.KMS_QUOTA_BUSY: ReasonRule(
        Code.RESOURCE_EXHAUSTED, "Call again after the time in RetryInfo, or allow the call more time.", retryable=True
    ),
    Reason.NOT_AN_ORPHAN: ReasonRule(
        Code.FAILED_PRECONDITION, "Look at the CMK and its tags; ScheduleKeyDeletion deletes any external CMK."
    ),
    Reason.ENTROPY_UNAVAILABLE: ReasonRule(
        Code.UNAVAILABLE, "Call again later; if it persists, the operator.", retryable=True
    ),
    Reason.AUDIT_UNAVAILABLE: ReasonRule(
        Code.UNAVAILABLE,
        "Repeat the call with the same request_id. The operator: see why the audit log can't be written (disk full?).",
        retryable=True,
    ),
}


class BrokerError(Exception):
    """A failure in our words.

    `message` is for the caller: no text of the KMS, no material, token or blob. `metadata` goes into
    ErrorInfo.metadata; `retry_after_seconds` into RetryInfo.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata: dict[str, str] = dict(metadata or {})
        self.retry_after_seconds = retry_after_seconds

    @property
    def rule(self) -> ReasonRule:
        """The table's entry for this error."""
        return REASONS[self.reason]


class InvalidField(BrokerError):  # noqa: N818  # reads as what it says
    """A request field is wrong. `message` says what is wrong and what is right."""

    def __init__(self, field: str, message: str, *, reason: Reason = Reason.INVALID_FIELD) -> None:
        super().__init__(reason, f"{field}: {message}", metadata={"field": field})
        self.field = field
        self.description = message


class KmsError(BrokerError):
    """The KMS refused, failed, or did not answer.

    `committed_nothing` is True only where it is certain that this request changed nothing: it was never sent, or the
    answer is on the closed list of codes that prove it (rule R2 of the import protocol). `kms_code` is a code of the
    KMS's documented table, or one of "timeout", "connection", "unreadable", "other". `signs_anew`: what was refused was
    the signature (credentials, date), and another send would be signed with a better one. `fails_fast`: the broker did
    not send it, for the instance does not answer, or it was repeated too often; trying again in the call is in vain.
    """

    def __init__(  # noqa: PLR0913  # each is part of what happened
        self,
        reason: Reason,
        message: str,
        *,
        kms_code: str,
        committed_nothing: bool,
        kms_request_id: str = "",
        retry_after_seconds: float | None = None,
    ) -> None:
        metadata = {"kms_code": kms_code} | ({"kms_request_id": kms_request_id} if kms_request_id else {})
        super().__init__(reason, message, metadata=metadata, retry_after_seconds=retry_after_seconds)
        self.kms_code = kms_code
        self.committed_nothing = committed_nothing
        self.kms_request_id = kms_request_id
        self.signs_anew = False
        self.fails_fast = False

"""Every error of the KMS and of its gateway: one table, one exception.

The table holds the codes of contract sections 1.2 to 1.12 and 3.4, also those that the emulator never raises by
itself, so that the fault dial knows their status and text. `raised_when` is empty for those.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from kms_emulator.standing import Standing

Layer = Literal["service", "gateway"]

_DOC = Standing.DOCUMENTED
_INF = Standing.INFERRED
_NOT = Standing.NOT_IMPLEMENTED


@dataclass(frozen=True, slots=True)
class ErrorRule:
    """One row: what a code looks like and when the emulator answers with it.

    `layer` decides the shape of the body (contract section 3.4). `message` may hold `{name}` variables.
    """

    layer: Layer
    code: str
    status: int
    message: str
    standing: Standing
    source: str
    raised_when: str = ""


def _service(  # noqa: PLR0913, PLR0917 -- a row of the table, read as a row
    code: str, status: int, message: str, standing: Standing, source: str, raised_when: str = ""
) -> ErrorRule:
    return ErrorRule("service", code, status, message, standing, source, raised_when)


def _gateway(  # noqa: PLR0913, PLR0917 -- a row of the table, read as a row
    code: str, status: int, message: str, standing: Standing, source: str, raised_when: str = ""
) -> ErrorRule:
    return ErrorRule("gateway", code, status, message, standing, source, raised_when)


# fmt: off
ERROR_TABLE: tuple[ErrorRule, ...] = (
    # Parameters
    _service("MissingParameter", 400, 'The parameter "{name}" is needed but not provided.', _DOC, "1.12",
             "a required parameter is absent or empty"),
    _service("InvalidParameter", 400, 'The specified parameter "{name}" is not valid.', _DOC, "1.12",
             "a value is outside its documented range; an expiry in the past; a ciphertext blob that does not open"),
    _service("ParseRequestParameterException", 400, "The request parameters cannot be parsed.", _INF, "1.12",
             "query or form is not UTF-8"),
    # Import
    _service("InvalidImportToken", 400, "import token is invalid.", _INF, "1.4",
             "a token this emulator did not issue, one of another CMK, an older one under newest_token_only"),
    _service("ExpiredImportToken", 400, "import token is expired.", _DOC, "1.4", "24 hours after it was issued"),
    _service("InvalidKeyMaterial", 400, "key material is invalid.", _INF, "1.4",
             "bad base64, unwrap failure, wrong length, material other than the bound one"),
    _service("Unsupported.Origin", 400, "This key origin is not valid for this api.", _INF, "1.4",
             "an import operation on a CMK whose origin is not EXTERNAL"),
    _service("Unsupported.Alias", 400, "Alias is not valid for this api.", _INF, "1.4",
             "an alias or ARN where a key id is needed"),
    # Unsupported
    _service("Rejected.UnsupportedOperation", 400, "Unsupported operation.", _INF, "1.5",
             "DeleteKeyMaterial on a CMK of a Dedicated KMS instance"),
    _service("UnsupportedOperation", 400, "This action is not supported.", _INF, "1.12",
             "automatic rotation of a CMK: the emulator has none"),
    _service("Unsupported.ProtectionLevel", 400, "This protection level is not valid for this api.", _NOT, "1.12"),
    _service("DryRunOperationError", 400, "Request would have succeeded, but DryRun is set.", _INF, "1.10",
             "Encrypt or Decrypt with DryRun=true and everything in order (text of the SDK's request class)"),
    # State
    _service("Rejected.Enabled", 409, "Request was rejected because the key state is Enabled.", _NOT, "1.12"),
    _service("Rejected.Disabled", 409, "Request was rejected because the key state is Disabled.", _DOC, "6",
             "state table"),
    _service("Rejected.PendingDeletion", 409, "Request was rejected because the key state is PendingDeletion.", _DOC,
             "6", "state table; UpdateAlias onto such a CMK"),
    _service("Rejected.PendingImport", 409, "Request was rejected because the key state is PendingImport.", _DOC, "6",
             "state table"),
    _service("Rejected.StateModifiedFailed", 409, "Keystate modified failed.", _DOC, "6", "state table"),
    # Things not found: 404 in spite of their names
    _service("Forbidden.KeyNotFound", 404, "The specified Key is not found.", _DOC, "1.2",
             "unknown key id, ARN of another region or account, CMK deleted after its window"),
    _service("Forbidden.AliasNotFound", 404, "The specified Alias is not found.", _DOC, "1.2, 1.8", "unknown alias"),
    _service("Forbidden.KeyVersionNotFound", 404, "The specified KeyVersion is not found.", _INF, "1.12",
             "a ciphertext blob that names no known key version"),
    _service("Forbidden.ResourceNotFound", 404, "Resource not found.", _INF, "1.12",
             "CreateKey with an unknown DKMSInstanceId; tagging a secret or certificate"),
    # Quotas
    _service("Rejected.LimitExceeded", 400, "The resource quota is exceeded.", _INF, "1.12, 5",
             "more CMKs than the setting max_keys; more than 20 tags on one CMK"),
    _service("AliasAlreadyExists", 400, "AliasName Already Exists.", _DOC, "1.8", "CreateAlias with a name in use"),
    _service("Rejected.Throttling", 429, "QPS Limit Exceeded", _DOC, "5", "quotas switched on and used up"),
    _service("Throttling", 400, "Request was denied due to request throttling.", _NOT, "1.6"),
    # Account and instance
    _service("Forbidden.NoPermission", 403, "This operation is forbidden by permission system.", _NOT, "1.12"),
    _service("Forbidden.AccessKey", 403, "This access key is forbidden.", _NOT, "1.12"),
    _service("Forbidden.KmsServiceNotEnabled", 403, "KMS is not activated.", _NOT, "1.12"),
    _service("Forbidden.InDebt", 403, "The account has an overdue payment.", _NOT, "1.12"),
    _service("Forbidden.InDebtOverdue", 403, "The account has an overdue payment.", _NOT, "1.12"),
    _service("Forbidden.ProhibitedByRiskControl", 403, "The account is restricted by risk control.", _NOT, "1.12"),
    _service("Forbidden.UbsmsInvalidUserid", 403, "The user id is invalid.", _NOT, "1.12"),
    _service("Forbidden.UbsmsInvalidBid", 403, "The bid is invalid.", _NOT, "1.12"),
    _service("Forbidden.DKMSInstanceStateInvalid", 403, "The state of the instance is invalid.", _NOT, "1.12"),
    # Server side
    _service("InternalFailure", 500, "Internal Failure", _DOC, "1.12", "a defect of the emulator itself"),
    _service("ServiceUnavailableTemporary", 503, "Service Unavailable Temporary", _NOT, "1.12"),
    # The gateway, before the service is asked
    _gateway("MissingParameter", 400,
             'The input parameter "{name}" that is mandatory for processing this request is not supplied.', _DOC,
             "3.4", "no action, no version, no date or no nonce"),
    _gateway("InvalidAction.NotFound", 404, "Specified api is not found, please check your url and method", _INF,
             "3.4", "unknown action, version or path"),
    _gateway("UnsupportedHTTPMethod", 403, "This http method is not supported.", _DOC, "1.12",
             "anything but GET and POST"),
    _gateway("IllegalTimestamp", 400, 'The input parameter "Timestamp" is not valid.', _INF, "3.4",
             "x-acs-date that cannot be parsed"),
    _gateway("InvalidTimeStamp.Expired", 400, "Specified time stamp or date value is expired.", _DOC, "3.4",
             "x-acs-date more than 15 minutes from the emulator's clock, either way"),
    _gateway("SignatureNonceUsed", 400, "Specified signature nonce was used already.", _DOC, "3.4",
             "a nonce seen before with this access key"),
    _gateway("SignatureDoesNotMatch", 400,
             "Specified signature does not match our calculation. server StringToSign is [{string_to_sign}] "
             "server CanonicalRequest is [{canonical_request}]", _DOC, "3.4",
             "wrong secret, changed request, x-acs-content-sha256 that is not the body's"),
    _gateway("IncompleteSignature", 400, "The request signature does not conform to Alibaba Cloud standards.", _INF,
             "1.12, 3.3", "Authorization absent or malformed; host, content-type or x-acs-* present but unsigned"),
    _gateway("InvalidAccessKeyId.NotFound", 404, "Specified access key is not found.", _DOC, "3.4",
             "unknown access key"),
    _gateway("Forbidden.AccessKeyDisabled", 403, "The access key is disabled.", _DOC, "3.4", "disabled access key"),
    _gateway("MissingSecurityToken", 400, "SecurityToken is mandatory for this action.", _INF, "3.4",
             "an STS access key without x-acs-security-token"),
    _gateway("InvalidSecurityToken.Malformed", 400, "Specified SecurityToken is malformed.", _INF, "3.4",
             "x-acs-security-token is not the token of this access key"),
    _gateway("InvalidSecurityToken.MismatchWithAccessKey", 400,
             "Specified SecurityToken mismatch with the AccessKey.", _INF, "3.4",
             "x-acs-security-token with an access key that is not an STS one"),
    _gateway("InvalidSecurityToken.Expired", 400, "Specified SecurityToken is expired.", _INF, "3.4",
             "an STS access key past its expires_at"),
    _gateway("Throttling.User", 400, "Request was denied due to user flow control.", _NOT, "3.4"),
    _gateway("Throttling.Api", 400, "Request was denied due to api flow control.", _NOT, "3.4"),
)
# fmt: on

RULES: dict[tuple[Layer, str], ErrorRule] = {(rule.layer, rule.code): rule for rule in ERROR_TABLE}


def rule_for_code(code: str) -> ErrorRule | None:
    """The row of `code`, the service's before the gateway's; None when the table does not know it."""
    return RULES.get(("service", code)) or RULES.get(("gateway", code))


class KmsError(Exception):
    """An answer other than success.

    `variables` fill the message of the table's row. `retry_after_ms` goes into header `x-acs-retry-after`.
    """

    def __init__(
        self,
        code: str,
        *,
        layer: Layer = "service",
        retry_after_ms: int | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.rule = RULES[layer, code]
        self.message = self.rule.message.format_map(variables or {})
        self.retry_after_ms = retry_after_ms
        super().__init__(code)


def invalid_parameter(name: str) -> KmsError:
    """400 InvalidParameter naming the parameter. Source: contract section 1.12."""
    return KmsError("InvalidParameter", variables={"name": name})

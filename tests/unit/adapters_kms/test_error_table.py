"""Every error code of the contract, one named case each, and codes that are not there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keybroker.adapters.kms.error_table import ERROR_TABLE, kms_error
from keybroker.domain.errors import Reason

NOTHING, UNKNOWN = True, False

# code, HTTP status as documented, reason, whether it proves that nothing was committed
CASES = [
    # contract 1.12, 400
    ("ParseRequestParameterException", 400, Reason.KMS_REQUEST_REJECTED, NOTHING),
    ("MissingParameter", 400, Reason.KMS_REQUEST_REJECTED, NOTHING),
    ("InvalidParameter", 400, Reason.KMS_REQUEST_REJECTED, NOTHING),
    ("IncompleteSignature", 400, Reason.KMS_CREDENTIALS_REJECTED, NOTHING),
    ("IllegalTimestamp", 400, Reason.KMS_CLOCK_SKEW, NOTHING),
    ("Rejected.LimitExceeded", 400, Reason.KMS_QUOTA_EXCEEDED, NOTHING),
    ("AliasAlreadyExists", 400, Reason.ALIAS_ALREADY_EXISTS, NOTHING),
    ("InvalidKeyMaterial", 400, Reason.WRAPPED_KEY_MATERIAL_REFUSED, NOTHING),
    ("InvalidImportToken", 400, Reason.IMPORT_TOKEN_INVALID, NOTHING),
    ("ExpiredImportToken", 400, Reason.IMPORT_TOKEN_EXPIRED, NOTHING),
    ("Unsupported.Origin", 400, Reason.KEY_ORIGIN_NOT_EXTERNAL, NOTHING),
    ("Unsupported.Alias", 400, Reason.KMS_REQUEST_REJECTED, NOTHING),
    ("Unsupported.ProtectionLevel", 400, Reason.KMS_OPERATION_UNSUPPORTED, NOTHING),
    ("Rejected.UnsupportedOperation", 400, Reason.KMS_OPERATION_UNSUPPORTED, NOTHING),
    ("UnsupportedOperation", 400, Reason.KMS_OPERATION_UNSUPPORTED, NOTHING),
    ("Throttling", 400, Reason.KMS_THROTTLED, NOTHING),
    # contract 1.12, 403
    ("Forbidden.NoPermission", 403, Reason.KMS_ACCESS_DENIED, NOTHING),
    ("Forbidden.AccessKey", 403, Reason.KMS_CREDENTIALS_REJECTED, NOTHING),
    ("UnsupportedHTTPMethod", 403, Reason.KMS_REQUEST_REJECTED, NOTHING),
    ("Forbidden.KmsServiceNotEnabled", 403, Reason.KMS_ACCOUNT_BLOCKED, NOTHING),
    ("Forbidden.InDebt", 403, Reason.KMS_ACCOUNT_BLOCKED, NOTHING),
    ("Forbidden.InDebtOverdue", 403, Reason.KMS_ACCOUNT_BLOCKED, NOTHING),
    ("Forbidden.ProhibitedByRiskControl", 403, Reason.KMS_ACCOUNT_BLOCKED, NOTHING),
    ("Forbidden.UbsmsInvalidUserid", 403, Reason.KMS_ACCOUNT_BLOCKED, NOTHING),
    ("Forbidden.UbsmsInvalidBid", 403, Reason.KMS_ACCOUNT_BLOCKED, NOTHING),
    # contract 1.12, 404
    ("Forbidden.KeyNotFound", 404, Reason.KEY_NOT_FOUND, NOTHING),
    ("Forbidden.KeyVersionNotFound", 404, Reason.KEY_NOT_FOUND, NOTHING),
    ("Forbidden.AliasNotFound", 404, Reason.KEY_NOT_FOUND, NOTHING),
    ("Forbidden.ResourceNotFound", 404, Reason.KEY_NOT_FOUND, NOTHING),
    ("InvalidAccessKeyId.NotFound", 404, Reason.KMS_CREDENTIALS_REJECTED, NOTHING),
    # contract 1.12, 409
    ("Rejected.Enabled", 409, Reason.KEY_STATE_CONFLICT, NOTHING),
    ("Rejected.Disabled", 409, Reason.KEY_DISABLED, NOTHING),
    ("Rejected.PendingDeletion", 409, Reason.KEY_PENDING_DELETION, NOTHING),
    ("Rejected.PendingImport", 409, Reason.KEY_STATE_CONFLICT, NOTHING),
    ("Rejected.StateModifiedFailed", 409, Reason.KEY_STATE_CONFLICT, NOTHING),
    # contract 1.12, 429, 5xx, and what was also seen
    ("Rejected.Throttling", 429, Reason.KMS_THROTTLED, NOTHING),
    ("InternalFailure", 500, Reason.KMS_UNAVAILABLE, UNKNOWN),
    ("ServiceUnavailableTemporary", 503, Reason.KMS_UNAVAILABLE, UNKNOWN),
    ("SerivceUnavailableTemporary", 503, Reason.KMS_UNAVAILABLE, UNKNOWN),
    ("Forbidden.DKMSInstanceStateInvalid", 403, Reason.KMS_INSTANCE_NOT_READY, NOTHING),
    # contract 3.4, the gateway
    ("InvalidTimeStamp.Expired", 400, Reason.KMS_CLOCK_SKEW, NOTHING),
    ("SignatureNonceUsed", 400, Reason.KMS_UNAVAILABLE, UNKNOWN),
    ("SignatureDoesNotMatch", 400, Reason.KMS_CREDENTIALS_REJECTED, NOTHING),
    ("Forbidden.AccessKeyDisabled", 403, Reason.KMS_CREDENTIALS_REJECTED, NOTHING),
    ("InvalidSecurityToken.Expired", 400, Reason.KMS_CREDENTIALS_REJECTED, NOTHING),
    ("InvalidSecurityToken.Malformed", 400, Reason.KMS_CREDENTIALS_REJECTED, NOTHING),
    ("InvalidSecurityToken.MismatchWithAccessKey", 400, Reason.KMS_CREDENTIALS_REJECTED, NOTHING),
    ("MissingSecurityToken", 400, Reason.KMS_CREDENTIALS_REJECTED, NOTHING),
    ("InvalidAction.NotFound", 404, Reason.KMS_REQUEST_REJECTED, NOTHING),
    ("Throttling.User", 400, Reason.KMS_THROTTLED, NOTHING),
    ("Throttling.Api", 400, Reason.KMS_THROTTLED, NOTHING),
]


@pytest.mark.parametrize(("code", "status", "reason", "committed_nothing"), CASES, ids=[case[0] for case in CASES])
def test_documented_code_gives_its_reason(code: str, status: int, reason: Reason, committed_nothing: bool) -> None:  # noqa: FBT001
    error = kms_error(code, status, request_id="a-request")
    assert (error.reason, error.committed_nothing) == (reason, committed_nothing)
    assert error.metadata == {"kms_code": code, "kms_request_id": "a-request"}


def test_table_holds_the_contracts_codes_and_no_others() -> None:
    assert sorted(ERROR_TABLE) == sorted(case[0] for case in CASES)


@pytest.mark.parametrize("code", list(ERROR_TABLE))
@pytest.mark.parametrize("status", [200, 302, 418, 500, 502, 503])
def test_code_with_a_status_that_does_not_go_with_it_proves_nothing(code: str, status: int) -> None:
    error = kms_error(code, status)
    assert not error.committed_nothing
    assert error.reason is ERROR_TABLE[code].reason


@given(st.text(max_size=60).filter(lambda code: code not in ERROR_TABLE), st.integers(100, 599))
def test_unknown_code_becomes_other_and_proves_nothing(code: str, status: int) -> None:
    error = kms_error(code, status)
    assert error.reason is (Reason.KMS_UNAVAILABLE if status >= 500 else Reason.KMS_ERROR_UNRECOGNISED)
    assert error.kms_code == "other"
    assert not error.committed_nothing


@pytest.mark.parametrize("code", ["Throttling.Foo", "throttling", "InvalidKeyMaterial ", "Forbidden.Other"])
def test_code_near_a_documented_one_is_unknown(code: str) -> None:
    assert kms_error(code, 400).kms_code == "other"


@pytest.mark.parametrize("code", ["Throttling", "Throttling.User", "Throttling.Api", "Rejected.Throttling"])
def test_throttling_without_header_asks_for_one_second(code: str) -> None:
    assert kms_error(code, 429).retry_after_seconds == 1.0


def test_other_errors_ask_for_no_wait() -> None:
    assert kms_error("Forbidden.KeyNotFound", 404).retry_after_seconds is None

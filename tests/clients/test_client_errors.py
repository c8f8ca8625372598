"""Which exception a caller gets for what the broker, gRPC or something between them answers."""

from __future__ import annotations

import pickle
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest

import keybroker_client as kc
from keymaterial.v1.error_reason_pb2 import ErrorReason
from tests.clients.fake_broker import KEY_ID, TOKEN, Failure, FakeBroker, bad_request, precondition, retry_info

if TYPE_CHECKING:
    from tests.clients.conftest import Invoke

REQUEST_ID = "6f1c9c1e-3c1b-4f65-9c53-3a8f1c1d2e3f"
Code = grpc.StatusCode

# Every reason of error_reason.proto with its code: the class for a change.
CLASSES: dict[str, tuple[grpc.StatusCode, type[kc.KeyBrokerError]]] = {
    "INVALID_FIELD": (Code.INVALID_ARGUMENT, kc.InvalidArgumentError),
    "KEY_NOT_FOUND": (Code.NOT_FOUND, kc.NotFoundError),
    "KEY_ORIGIN_NOT_EXTERNAL": (Code.FAILED_PRECONDITION, kc.PreconditionFailedError),
    "KEY_SPEC_UNSUPPORTED": (Code.FAILED_PRECONDITION, kc.PreconditionFailedError),
    "KEY_NOT_ON_INSTANCE": (Code.FAILED_PRECONDITION, kc.PreconditionFailedError),
    "KEY_PENDING_DELETION": (Code.FAILED_PRECONDITION, kc.PreconditionFailedError),
    "KEY_DISABLED": (Code.FAILED_PRECONDITION, kc.PreconditionFailedError),
    "KEY_MATERIAL_ALREADY_BOUND": (Code.FAILED_PRECONDITION, kc.AlreadyBoundError),
    "KEY_STATE_CONFLICT": (Code.FAILED_PRECONDITION, kc.PreconditionFailedError),
    "ALIAS_ALREADY_EXISTS": (Code.ALREADY_EXISTS, kc.PreconditionFailedError),
    "WRAPPING_ALGORITHM_FORBIDDEN": (Code.FAILED_PRECONDITION, kc.PreconditionFailedError),
    "IMPORT_TOKEN_UNKNOWN": (Code.FAILED_PRECONDITION, kc.PreconditionFailedError),
    "IMPORT_TOKEN_INVALID": (Code.FAILED_PRECONDITION, kc.PreconditionFailedError),
    "IMPORT_TOKEN_EXPIRED": (Code.FAILED_PRECONDITION, kc.PreconditionFailedError),
    "WRAPPED_KEY_MATERIAL_REFUSED": (Code.INVALID_ARGUMENT, kc.InvalidArgumentError),
    "UNWRAP_REFUSALS_EXHAUSTED": (Code.RESOURCE_EXHAUSTED, kc.ThrottledError),
    "GENERATED_MATERIAL_REFUSED": (Code.INTERNAL, kc.KeyBrokerError),
    "WRAPPING_PUBLIC_KEY_REJECTED": (Code.INTERNAL, kc.KeyBrokerError),
    "IMPORT_UNRESOLVED": (Code.ABORTED, kc.UnresolvedError),
    "IMPORT_IN_PROGRESS": (Code.ABORTED, kc.ImportInProgressError),
    "CREATE_OUTCOME_UNKNOWN": (Code.ABORTED, kc.UnresolvedError),
    "CHANGE_OUTCOME_UNKNOWN": (Code.ABORTED, kc.UnresolvedError),
    "DEADLINE_TOO_SHORT": (Code.DEADLINE_EXCEEDED, kc.UnavailableError),
    "BROKER_OVERLOADED": (Code.RESOURCE_EXHAUSTED, kc.ThrottledError),
    "KMS_THROTTLED": (Code.RESOURCE_EXHAUSTED, kc.ThrottledError),
    "KMS_QUOTA_EXCEEDED": (Code.RESOURCE_EXHAUSTED, kc.QuotaExceededError),
    "KMS_UNAVAILABLE": (Code.UNAVAILABLE, kc.UnavailableError),
    "KMS_INSTANCE_NOT_READY": (Code.UNAVAILABLE, kc.UnavailableError),
    "KMS_RESPONSE_INVALID": (Code.UNAVAILABLE, kc.UnavailableError),
    "KMS_ACCESS_DENIED": (Code.FAILED_PRECONDITION, kc.PreconditionFailedError),
    "KMS_CREDENTIALS_REJECTED": (Code.FAILED_PRECONDITION, kc.PreconditionFailedError),
    "KMS_ACCOUNT_BLOCKED": (Code.FAILED_PRECONDITION, kc.PreconditionFailedError),
    "KMS_CLOCK_SKEW": (Code.FAILED_PRECONDITION, kc.PreconditionFailedError),
    "KMS_OPERATION_UNSUPPORTED": (Code.FAILED_PRECONDITION, kc.PreconditionFailedError),
    "KMS_REQUEST_REJECTED": (Code.INTERNAL, kc.KeyBrokerError),
    "KMS_ERROR_UNRECOGNISED": (Code.UNKNOWN, kc.KeyBrokerError),
    "EMULATOR_NOT_ALLOWED": (Code.FAILED_PRECONDITION, kc.PreconditionFailedError),
    "INTERNAL": (Code.INTERNAL, kc.UnresolvedError),
    "CALLER_UNAUTHENTICATED": (Code.UNAUTHENTICATED, kc.NotAllowedError),
    "CALLER_NOT_ALLOWED": (Code.PERMISSION_DENIED, kc.NotAllowedError),
    "CALLER_RATE_LIMITED": (Code.RESOURCE_EXHAUSTED, kc.ThrottledError),
    "REQUEST_ID_REUSED": (Code.ALREADY_EXISTS, kc.RequestIdReusedError),
    "REQUEST_NOT_FOUND": (Code.NOT_FOUND, kc.RequestNotFoundError),
    "NOT_IMPORTED": (Code.ABORTED, kc.NotImportedError),
    "ENABLED_UNATTRIBUTED": (Code.FAILED_PRECONDITION, kc.UnattributedError),
    "LEDGER_UNAVAILABLE": (Code.UNAVAILABLE, kc.UnavailableError),
    "LEDGER_RECORD_UNREADABLE": (Code.FAILED_PRECONDITION, kc.QuarantinedError),
    "LEDGER_RESTORED": (Code.FAILED_PRECONDITION, kc.QuarantinedError),
    "KMS_QUOTA_BUSY": (Code.RESOURCE_EXHAUSTED, kc.ThrottledError),
    "NOT_AN_ORPHAN": (Code.FAILED_PRECONDITION, kc.PreconditionFailedError),
    "ENTROPY_UNAVAILABLE": (Code.UNAVAILABLE, kc.UnavailableError),
    "AUDIT_UNAVAILABLE": (Code.UNAVAILABLE, kc.UnavailableError),
    "REASON_OF_A_NEWER_BROKER": (Code.FAILED_PRECONDITION, kc.UnresolvedError),
}
ONCE = {"retries": 0}
REFUSED_CODES = {
    Code.INVALID_ARGUMENT: kc.InvalidArgumentError,
    Code.NOT_FOUND: kc.NotFoundError,
    Code.ALREADY_EXISTS: kc.PreconditionFailedError,
    Code.FAILED_PRECONDITION: kc.PreconditionFailedError,
    Code.OUT_OF_RANGE: kc.KeyBrokerError,
    Code.PERMISSION_DENIED: kc.NotAllowedError,
    Code.UNAUTHENTICATED: kc.NotAllowedError,
    Code.UNIMPLEMENTED: kc.KeyBrokerError,
}


def fail(broker: FakeBroker, invoke: Invoke, failure: Failure, **arguments: Any) -> kc.KeyBrokerError:
    """The error of an import that the broker fails."""
    broker.answers["ImportExternalKey"] = failure
    with pytest.raises(kc.KeyBrokerError) as caught:
        invoke(broker.address, "import_external_key", client=ONCE, key_id=KEY_ID, **arguments)
    return caught.value


def fail_read(broker: FakeBroker, invoke: Invoke, failure: Failure) -> kc.KeyBrokerError:
    broker.answers["DescribeKey"] = failure
    with pytest.raises(kc.KeyBrokerError) as caught:
        invoke(broker.address, "describe_key", client=ONCE, key_id=KEY_ID)
    return caught.value


def test_classes_cover_every_reason() -> None:
    names = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()}  # noqa: SIM118 - no mapping
    assert names - {"UNSPECIFIED"} == set(CLASSES) - {"REASON_OF_A_NEWER_BROKER"}


@pytest.mark.parametrize("reason", CLASSES)
def test_reason_has_its_class(broker: FakeBroker, invoke: Invoke, reason: str) -> None:
    code, expected = CLASSES[reason]
    error = fail(broker, invoke, Failure(code, reason))
    assert type(error) is expected
    assert error.outcome_unknown is (expected is kc.UnresolvedError)
    assert (error.reason, error.code) == (reason, code)


def test_error_carries_every_detail(broker: FakeBroker, invoke: Invoke) -> None:
    failure = Failure(
        Code.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "description is too long",
        metadata={"field": "new_key.description", "created_key_id": "key-new"},
        details=(bad_request("new_key.description", "Give at most 8192 characters."), retry_info(1.5)),
    )
    error = fail(broker, invoke, failure, request_id=REQUEST_ID)
    assert vars(error) == {
        "message": "description is too long",
        "reason": "INVALID_FIELD",
        "code": Code.INVALID_ARGUMENT,
        "advice": "Give at most 8192 characters.",
        "field": "new_key.description",
        "metadata": {"field": "new_key.description", "created_key_id": "key-new"},
        "retry_after_seconds": 1.5,
        "request_id": REQUEST_ID,
    }
    assert error.created_key_id == "key-new"
    assert str(error) == f"description is too long [INVALID_FIELD] (request_id {REQUEST_ID})"


def test_precondition_failure_gives_the_advice(broker: FakeBroker, invoke: Invoke) -> None:
    failure = Failure(
        Code.FAILED_PRECONDITION, "KEY_DISABLED", details=(precondition("Have an administrator enable it."),)
    )
    assert fail(broker, invoke, failure).advice == "Have an administrator enable it."


def test_generated_request_id_is_on_the_error(broker: FakeBroker, invoke: Invoke) -> None:
    error = fail(broker, invoke, Failure(Code.ABORTED, "IMPORT_UNRESOLVED"))
    assert error.request_id == broker.only_call.request.request_id != ""


def test_error_of_a_read_has_no_request_id(broker: FakeBroker, invoke: Invoke) -> None:
    error = fail_read(broker, invoke, Failure(Code.NOT_FOUND, "KEY_NOT_FOUND"))
    assert (type(error), error.request_id, str(error)) == (
        kc.NotFoundError,
        "",
        "something went wrong [KEY_NOT_FOUND]",
    )


def test_error_of_get_import_names_the_request_it_asked_for(broker: FakeBroker, invoke: Invoke) -> None:
    broker.answers["GetImport"] = Failure(Code.NOT_FOUND, "REQUEST_NOT_FOUND")
    with pytest.raises(kc.RequestNotFoundError) as caught:
        invoke(broker.address, "get_import", request_id=REQUEST_ID)
    assert caught.value.request_id == REQUEST_ID
    assert not caught.value.outcome_unknown


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK])
def test_change_failed_without_details_is_unresolved_unless_refused(
    broker: FakeBroker, invoke: Invoke, code: grpc.StatusCode
) -> None:
    error = fail(broker, invoke, Failure(code))
    assert type(error) is REFUSED_CODES.get(code, kc.UnresolvedError)
    assert (error.reason, error.code) == ("", code)


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK])
def test_read_and_validation_leave_nothing_unresolved(
    broker: FakeBroker, invoke: Invoke, code: grpc.StatusCode
) -> None:
    assert not fail_read(broker, invoke, Failure(code)).outcome_unknown
    assert not fail(broker, invoke, Failure(code), validate_only=True).outcome_unknown


@pytest.mark.parametrize(
    "failure",
    [
        Failure(Code.UNAVAILABLE, "KMS_UNAVAILABLE", domain="another.example"),
        Failure(Code.UNAVAILABLE, details=(retry_info(1),)),
    ],
    ids=["foreign domain", "no ErrorInfo"],
)
def test_details_of_somebody_else_are_no_account_of_the_outcome(
    broker: FakeBroker, invoke: Invoke, failure: Failure
) -> None:
    error = fail(broker, invoke, failure)
    assert type(error) is kc.UnresolvedError
    assert (error.reason, error.retry_after_seconds) == ("", None)


def test_garbage_in_the_details_is_as_none(broker: FakeBroker, invoke: Invoke) -> None:
    failure = Failure(Code.FAILED_PRECONDITION)
    failure.trailing_metadata = lambda: (("grpc-status-details-bin", b"\xff\xff"),)  # type: ignore[method-assign]
    assert type(fail(broker, invoke, failure)) is kc.PreconditionFailedError


def test_nothing_listening_leaves_a_change_unresolved_and_a_read_unavailable(invoke: Invoke) -> None:
    with FakeBroker() as gone:
        address = gone.address
    with pytest.raises(kc.UnresolvedError, match=r"Whether the change happened is unknown \[UNAVAILABLE\]"):
        invoke(address, "import_external_key", client=ONCE, key_id=KEY_ID)
    with pytest.raises(kc.UnavailableError, match="failed to connect"):
        invoke(address, "describe_key", client=ONCE, key_id=KEY_ID)


def test_deadline_passed_leaves_a_change_unresolved(broker: FakeBroker, invoke: Invoke) -> None:
    over = threading.Event()
    error = fail(broker, invoke, Failure(Code.INTERNAL, after=over), timeout_seconds=0.2)
    over.set()
    assert (type(error), error.code) == (kc.UnresolvedError, Code.DEADLINE_EXCEEDED)


def test_text_of_an_error_has_no_token(broker: FakeBroker, invoke: Invoke) -> None:
    blob = b"BLOB-CANARY" * 24
    text = f"Exception calling application: {TOKEN} {blob!r}"
    broker.answers["ImportWrappedKeyMaterial"] = Failure(Code.UNKNOWN, message=text)
    with pytest.raises(kc.UnresolvedError) as caught:
        invoke(
            broker.address,
            "import_wrapped_key_material",
            key_id=KEY_ID,
            wrapped_key_material=blob,
            import_token=TOKEN,
        )
    shown = f"{caught.value} {caught.value!r} {vars(caught.value)}"
    assert TOKEN not in shown
    assert "CANARY" not in shown


def test_error_survives_pickling(broker: FakeBroker, invoke: Invoke) -> None:
    error = fail(broker, invoke, Failure(Code.ABORTED, "IMPORT_UNRESOLVED", metadata={"created_key_id": "key-new"}))
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), vars(copy), str(copy)) == (type(error), vars(error), str(error))

import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st

from keybroker.domain.errors import REASONS, BrokerError, Code, InvalidField, KmsError, Reason
from keybroker.rpc.status import code_of, message_of, trailing_metadata

REASON = pytest.mark.parametrize("reason", Reason)
CANARY = "canary-51a7"
TYPES = {kind.DESCRIPTOR.full_name: kind for kind in (BadRequest, ErrorInfo, PreconditionFailure, RetryInfo)}


def status_of(error: BrokerError) -> tuple[Status, dict[str, Message]]:
    """The google.rpc.Status in the trailing metadata, and its details by name. Each kind stands there once."""
    [(key, value)] = trailing_metadata(error)
    assert key == "grpc-status-details-bin"
    assert isinstance(value, bytes)
    status = Status.FromString(value)
    details: dict[str, Message] = {}
    for packed in status.details:
        kind = TYPES[packed.TypeName()]
        assert kind.DESCRIPTOR.name not in details
        details[kind.DESCRIPTOR.name] = message = kind()
        assert packed.Unpack(message)
    return status, details


@REASON
@pytest.mark.parametrize("retry_after_seconds", [None, 0.0, 1.5])
def test_status_has_the_details_that_go_with_the_code(reason: Reason, retry_after_seconds: float | None) -> None:
    error = BrokerError(reason, "What happened.", metadata={"key_id": "key-1"}, retry_after_seconds=retry_after_seconds)
    _, details = status_of(error)
    code = REASONS[reason].code
    assert set(details) == {
        "ErrorInfo",
        *(["BadRequest"] if code is Code.INVALID_ARGUMENT else []),
        *(["PreconditionFailure"] if code is Code.FAILED_PRECONDITION else []),
        *(["RetryInfo"] if retry_after_seconds is not None else []),
    }
    assert details["ErrorInfo"] == ErrorInfo(reason=reason.value, domain="keybroker", metadata={"key_id": "key-1"})


@REASON
def test_status_has_the_code_and_the_message_of_the_call(reason: Reason) -> None:
    error = BrokerError(reason, "What happened.")
    status, _ = status_of(error)
    assert code_of(error) is StatusCode[REASONS[reason].code]
    assert status.code == code_of(error).value[0]
    assert status.message == message_of(error) == f"What happened. {REASONS[reason].advice}"


@pytest.mark.parametrize("code", Code)
def test_code_is_one_of_grpc(code: Code) -> None:
    assert StatusCode[code.value].name == code.name


def test_invalid_field_is_named_with_what_is_wrong() -> None:
    _, details = status_of(InvalidField("new_key.alias", "is too long."))
    assert details["BadRequest"] == BadRequest(
        field_violations=[BadRequest.FieldViolation(field="new_key.alias", description="is too long.")]
    )
    assert details["ErrorInfo"] == ErrorInfo(
        reason="INVALID_FIELD", domain="keybroker", metadata={"field": "new_key.alias"}
    )


@pytest.mark.parametrize("metadata", [{"field": "wrapped_key_material"}, {}])
def test_invalid_argument_that_is_no_invalid_field_has_a_bad_request_too(metadata: dict[str, str]) -> None:
    error = BrokerError(Reason.WRAPPED_KEY_MATERIAL_REFUSED, "It was refused.", metadata=metadata)
    _, details = status_of(error)
    [violation] = details["BadRequest"].field_violations
    assert (violation.field, violation.description) == (metadata.get("field", ""), "It was refused.")


def test_precondition_failure_names_reason_key_and_what_to_do() -> None:
    _, details = status_of(BrokerError(Reason.KEY_DISABLED, "It is Disabled.", metadata={"key_id": "key-1"}))
    [violation] = details["PreconditionFailure"].violations
    assert (violation.type, violation.subject) == ("KEY_DISABLED", "key-1")
    assert violation.description == REASONS[Reason.KEY_DISABLED].advice


@given(seconds=st.floats(0, 10**6))
def test_retry_info_gives_the_seconds(seconds: float) -> None:
    error = BrokerError(Reason.KMS_THROTTLED, "Throttled.", retry_after_seconds=seconds)
    retry_info = status_of(error)[1]["RetryInfo"]
    assert retry_info.retry_delay.ToNanoseconds() == pytest.approx(seconds * 1e9, abs=1)


def test_kms_error_gives_code_and_request_id_of_the_kms() -> None:
    error = KmsError(
        Reason.KMS_THROTTLED,
        "Throttled.",
        kms_code="Rejected.Throttling",
        committed_nothing=True,
        kms_request_id="a-request",
        retry_after_seconds=1.0,
    )
    _, details = status_of(error)
    assert dict(details["ErrorInfo"].metadata) == {"kms_code": "Rejected.Throttling", "kms_request_id": "a-request"}


@REASON
def test_status_shows_nothing_of_a_cause(reason: Reason) -> None:
    cause = ValueError(CANARY)
    cause.add_note(CANARY)
    error = BrokerError(reason, "What happened.")
    error.__cause__ = cause
    error.add_note(CANARY)
    assert CANARY.encode() not in trailing_metadata(error)[0][1]
    assert CANARY not in message_of(error)

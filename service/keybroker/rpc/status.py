"""The one mapping from a BrokerError to what goes over the wire.

Code, our message, and google.rpc.Status with exactly one ErrorInfo (AIP-193), beside it BadRequest, PreconditionFailure
or RetryInfo as the code and the reason ask for.
"""

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, RetryInfo
from google.rpc.status_pb2 import Status

from keybroker.domain.errors import BrokerError, Code, InvalidField

DOMAIN = "keybroker"
STATUS_DETAILS = "grpc-status-details-bin"

TrailingMetadata = tuple[tuple[str, str | bytes], ...]


def code_of(error: BrokerError) -> grpc.StatusCode:
    """The gRPC code of an error."""
    return grpc.StatusCode[error.rule.code.value]


def message_of(error: BrokerError) -> str:
    """What happened, and what to do. A field's error says both already."""
    if isinstance(error, InvalidField):
        return error.message
    return f"{error.message} {error.rule.advice}"


def trailing_metadata(error: BrokerError) -> TrailingMetadata:
    """The error's google.rpc.Status, serialised under the key that clients look for."""
    status = Status(code=code_of(error).value[0], message=message_of(error))
    for detail in _details(error):
        status.details.add().Pack(detail)
    return ((STATUS_DETAILS, status.SerializeToString()),)


def _details(error: BrokerError) -> list[Message]:
    details: list[Message] = [ErrorInfo(reason=error.reason.value, domain=DOMAIN, metadata=error.metadata)]
    field = error.field if isinstance(error, InvalidField) else error.metadata.get("field", "")
    if error.rule.code is Code.INVALID_ARGUMENT:
        description = error.description if isinstance(error, InvalidField) else error.message
        details.append(BadRequest(field_violations=[BadRequest.FieldViolation(field=field, description=description)]))
    if error.rule.code is Code.FAILED_PRECONDITION:
        subject = error.metadata.get("key_id", "")
        violation = PreconditionFailure.Violation(
            type=error.reason.value, subject=subject, description=error.rule.advice
        )
        details.append(PreconditionFailure(violations=[violation]))
    if error.retry_after_seconds is not None:
        delay = Duration()
        delay.FromNanoseconds(int(error.retry_after_seconds * 1e9))
        details.append(RetryInfo(retry_delay=delay))
    return details

"""Turns gRPC's errors into those of keybroker_client.errors.

Two tables decide the class: one by the broker's reason, one by the gRPC code for the rest. A third
rule goes before the second: an error without the broker's ErrorInfo, on a call that changes state,
leaves the outcome unknown, unless its code is one that gRPC or a proxy gives only to calls that they
did not pass on. UNAVAILABLE is not such a code, even where no connection was ever made: gRPC does
not tell the two apart in a way to rely on.

Source: keymaterial/v1/error_reason.proto; google.rpc.Status in grpc-status-details-bin (gRFC A6 and
"Richer error model"); which codes gRPC itself generates: grpc/grpc, doc/statuscodes.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from keybroker_client import errors
from keybroker_client.calls import changes_state, request_id_of
from keymaterial.v1.error_reason_pb2 import ErrorReason

if TYPE_CHECKING:
    from google.protobuf.message import Message

ERROR_DOMAIN = "keybroker"
DETAILS_KEY = "grpc-status-details-bin"

REASONS = frozenset(name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys())  # noqa: SIM118 - no mapping

CLASS_BY_REASON: dict[str, type[errors.KeyBrokerError]] = {
    "KEY_MATERIAL_ALREADY_BOUND": errors.AlreadyBoundError,
    "IMPORT_IN_PROGRESS": errors.ImportInProgressError,
    "KMS_QUOTA_EXCEEDED": errors.QuotaExceededError,
    "REQUEST_ID_REUSED": errors.RequestIdReusedError,
    "REQUEST_NOT_FOUND": errors.RequestNotFoundError,
    "NOT_IMPORTED": errors.NotImportedError,
    "ENABLED_UNATTRIBUTED": errors.UnattributedError,
    "LEDGER_RECORD_UNREADABLE": errors.QuarantinedError,
    "LEDGER_RESTORED": errors.QuarantinedError,
    "IMPORT_UNRESOLVED": errors.UnresolvedError,
    "CREATE_OUTCOME_UNKNOWN": errors.UnresolvedError,
    "CHANGE_OUTCOME_UNKNOWN": errors.UnresolvedError,
}

CLASS_BY_CODE: dict[grpc.StatusCode, type[errors.KeyBrokerError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidArgumentError,
    grpc.StatusCode.NOT_FOUND: errors.NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: errors.PreconditionFailedError,
    grpc.StatusCode.FAILED_PRECONDITION: errors.PreconditionFailedError,
    grpc.StatusCode.UNAUTHENTICATED: errors.NotAllowedError,
    grpc.StatusCode.PERMISSION_DENIED: errors.NotAllowedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.ThrottledError,
    grpc.StatusCode.UNAVAILABLE: errors.UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.UnavailableError,
    grpc.StatusCode.CANCELLED: errors.UnavailableError,
}

# Without ErrorInfo these mean that the call was refused; every other code leaves a change unresolved.
REFUSALS = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)


def translate(error: grpc.RpcError, request: Message) -> errors.KeyBrokerError:
    """The error to raise for what gRPC raised when it sent the request."""
    details = _details(error)
    if "ErrorInfo" in details:
        return _from_broker(error, details, request)
    return _from_elsewhere(error, request)


def _from_broker(error: grpc.RpcError, details: dict[str, Any], request: Message) -> errors.KeyBrokerError:
    """An error of the broker's own: it knows what happened, or says that it does not."""
    info, code = details["ErrorInfo"], error.code()
    field, advice = _violation(details)
    cls = CLASS_BY_REASON.get(info.reason) or _class_by_code(code, request, refused=not _leaves_open(info.reason))
    return cls(
        error.details() or "",
        reason=info.reason,
        code=code,
        advice=advice,
        field=field or info.metadata.get("field", ""),
        metadata=info.metadata,
        retry_after_seconds=_retry_after_seconds(details),
        request_id=request_id_of(request),
    )


def _from_elsewhere(error: grpc.RpcError, request: Message) -> errors.KeyBrokerError:
    """An error of gRPC, of a proxy, or of a server that is not keybroker: its text is not repeated."""
    code = error.code()
    cls = _class_by_code(code, request, refused=code in REFUSALS)
    message = f"no account from the broker, only the code {code.name}"
    if code is grpc.StatusCode.UNAVAILABLE:  # says why there is no connection: refused, name unknown, TLS
        message = f"no answer from the broker: {error.details()}"
    elif code is grpc.StatusCode.DEADLINE_EXCEEDED:
        message = "no answer from the broker in time"
    if cls is errors.UnresolvedError:
        message = f"{message}. Whether the change happened is unknown"
    return cls(message, code=code, request_id=request_id_of(request))


def _class_by_code(code: grpc.StatusCode, request: Message, *, refused: bool) -> type[errors.KeyBrokerError]:
    if changes_state(request) and not refused:
        return errors.UnresolvedError
    return CLASS_BY_CODE.get(code, errors.KeyBrokerError)


def _leaves_open(reason: str) -> bool:
    """INTERNAL is what nobody foresaw, and a reason of a newer broker is one that nobody here knows."""
    return reason == "INTERNAL" or reason not in REASONS


def _details(error: grpc.RpcError) -> dict[str, Any]:
    """The status details by message name; empty if there is no ErrorInfo of this broker among them."""
    pairs: Any = error.trailing_metadata() or ()  # sync and asyncio differ in its type
    packed = next((value for key, value in pairs if key == DETAILS_KEY), b"")
    try:
        details = dict(_unpacked(status_pb2.Status.FromString(packed).details))
    except DecodeError:
        return {}
    info = details.get("ErrorInfo")
    return details if info is not None and info.domain == ERROR_DOMAIN else {}


def _unpacked(details: Any) -> list[tuple[str, Any]]:  # noqa: ANN401 - google.rpc has no types
    kinds = ("ErrorInfo", "BadRequest", "PreconditionFailure", "RetryInfo")
    found = []
    for packed in details:
        name = packed.TypeName().removeprefix("google.rpc.")
        if name in kinds:
            message = getattr(error_details_pb2, name)()
            packed.Unpack(message)
            found.append((name, message))
    return found


def _violation(details: dict[str, Any]) -> tuple[str, str]:
    """The field at fault and what to do about it."""
    if "BadRequest" in details:
        for violation in details["BadRequest"].field_violations:
            return violation.field, violation.description
    if "PreconditionFailure" in details:
        for violation in details["PreconditionFailure"].violations:
            return "", violation.description
    return "", ""


def _retry_after_seconds(details: dict[str, Any]) -> float | None:
    if "RetryInfo" not in details:
        return None
    return float(details["RetryInfo"].retry_delay.ToTimedelta().total_seconds())

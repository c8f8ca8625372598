"""What an error of the broker may look like, whatever was asked. The answers of grpc itself are listed too."""

import re
from collections.abc import Mapping
from uuid import UUID

import grpc
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, RetryInfo
from google.rpc.status_pb2 import Status

from keybroker.adapters.kms.error_table import ERROR_TABLE
from keybroker.domain.errors import REASONS, Reason
from tests.fuzz.examples import MARK

METADATA = {"field", "key_id", "kms_request_id", "kms_code", "created_key_id", "correlation_id", "replayed"}
"""What ErrorInfo.metadata may have (error_reason.proto), and `replayed`."""

KMS_CODES = {*ERROR_TABLE, "timeout", "connection", "unreadable", "other"}
IDS = {
    "key_id": re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}"),
    "created_key_id": re.compile(r"[0-9A-Za-z_-]{1,128}"),
    "kms_request_id": re.compile(r"[0-9A-Za-z-]{1,64}"),
}
"""What may come from elsewhere, where it has the form of what it is: the caller's name of the CMK, the KMS's ids."""

_FOREIGN = re.compile(
    r"Traceback|File \"|<class|<[a-z_.]+ object|0x[0-9a-f]{6}|Exception|[a-z]Error\b|pb2|google\.|grpc\."
)

GRPCS_OWN: Mapping[grpc.StatusCode, str] = {
    grpc.StatusCode.RESOURCE_EXHAUSTED: r"SERVER: Received message larger than max \(\d+ vs\. \d+\)"
    r"|received metadata size exceeds .*limit.*",
    grpc.StatusCode.DEADLINE_EXCEEDED: r"Deadline Exceeded",
    grpc.StatusCode.UNIMPLEMENTED: r"Method not found!",
}


def judge(error: grpc.Call) -> ErrorInfo | None:
    """Raises AssertionError unless the error is one of ours, whole and in our words; None for one of grpc's own."""
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    if details is None:
        _judge_grpcs_own(error)
        return None
    assert isinstance(details, bytes)
    status = Status.FromString(details)
    assert (status.code, status.message) == (error.code().value[0], error.details())
    info = _only_error_info(status)
    rule = REASONS[Reason(info.reason)]
    assert info.domain == "keybroker"
    assert rule.code.value == error.code().name
    assert info.reason != Reason.INTERNAL, "the broker met what nobody foresaw"
    if rule.code.value == "INTERNAL":
        UUID(info.metadata["correlation_id"])
    _judge_words(status, info)
    return info


_KIND = re.compile(r"\([A-Z][A-Za-z]+\)")
"""What went wrong with the connection is told by the class of the exception, in brackets, and by nothing else of it."""


def judge_text(text: str) -> None:
    """Our words: no mark, nothing that looks like Python's or a library's, one printable line of ASCII."""
    assert MARK not in text, text
    assert not _FOREIGN.search(_KIND.sub("", text)), text
    assert text.isascii(), text
    assert text.isprintable(), text


def _judge_grpcs_own(error: grpc.Call) -> None:
    expected = GRPCS_OWN.get(error.code())
    assert expected is not None, (error.code(), error.details())
    assert re.fullmatch(expected, error.details() or ""), (error.code(), error.details())


def _only_error_info(status: Status) -> ErrorInfo:
    infos = [detail for detail in status.details if detail.Is(ErrorInfo.DESCRIPTOR)]
    assert len(infos) == 1
    info = ErrorInfo()
    assert infos[0].Unpack(info)
    return info


def _judge_words(status: Status, info: ErrorInfo) -> None:
    judge_text(status.message.replace(info.metadata.get("created_key_id", " "), " "))
    assert set(info.metadata) <= METADATA, info.metadata
    for name, value in info.metadata.items():
        if name == "kms_code":
            assert value in KMS_CODES, value
        elif name in IDS:
            assert IDS[name].fullmatch(value), value
        else:
            judge_text(value)
    for detail in status.details:
        _judge_detail(detail, info)


def _judge_detail(detail: "object", info: ErrorInfo) -> None:
    assert hasattr(detail, "Unpack")
    kinds = (bad := BadRequest(), failure := PreconditionFailure(), RetryInfo(), ErrorInfo())
    assert any(detail.Unpack(kind) for kind in kinds)
    for field in bad.field_violations:
        judge_text(field.field + field.description)
    for violation in failure.violations:
        assert violation.subject == info.metadata.get("key_id", "")
        judge_text(violation.type + violation.description)

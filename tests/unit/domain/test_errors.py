"""The table of reasons, against error_reason.proto: the caller's documentation of it."""

import re
from pathlib import Path

import pytest

from keybroker.domain.errors import REASONS, BrokerError, Code, InvalidField, KmsError, Reason
from keymaterial.v1 import error_reason_pb2

PROTO = Path(__file__).resolve().parents[3] / "protos" / "keymaterial" / "v1" / "error_reason.proto"
PREFIX = "ERROR_REASON_"
RETRYABLE = {
    Reason.CALLER_RATE_LIMITED,
    Reason.UNWRAP_REFUSALS_EXHAUSTED,
    Reason.DEADLINE_TOO_SHORT,
    Reason.BROKER_OVERLOADED,
    Reason.KMS_THROTTLED,
    Reason.KMS_UNAVAILABLE,
    Reason.KMS_INSTANCE_NOT_READY,
    Reason.KMS_RESPONSE_INVALID,
    Reason.IMPORT_UNRESOLVED,
    Reason.IMPORT_IN_PROGRESS,
    Reason.CREATE_OUTCOME_UNKNOWN,
    Reason.LEDGER_UNAVAILABLE,
    Reason.KMS_QUOTA_BUSY,
    Reason.ENTROPY_UNAVAILABLE,
    Reason.AUDIT_UNAVAILABLE,
}
REASON = pytest.mark.parametrize("reason", Reason)


def documented() -> dict[str, str]:
    """The comment of each value of the enum, by the value's name without its prefix."""
    body = PROTO.read_text(encoding="utf-8").partition("enum ErrorReason {")[2]
    found = re.findall(rf"((?:^ *//.*\n)+) *{PREFIX}(\w+) = \d+;", body, flags=re.MULTILINE)
    return {name: " ".join(re.sub(r"^ *// ?", "", comment, flags=re.MULTILINE).split()) for comment, name in found}


def test_reasons_are_those_of_the_proto() -> None:
    in_proto = {name.removeprefix(PREFIX) for name in error_reason_pb2.ErrorReason.keys()}  # noqa: SIM118  # no dict
    assert in_proto - {"UNSPECIFIED"} == {reason.value for reason in Reason}


def test_comments_of_the_proto_were_all_found() -> None:
    assert set(documented()) - {"UNSPECIFIED"} == set(Reason)


@REASON
def test_code_named_first_in_the_proto_is_the_table_s(reason: Reason) -> None:
    assert documented()[reason].partition(".")[0] == REASONS[reason].code


@REASON
def test_reason_has_a_rule_with_advice_in_a_sentence(reason: Reason) -> None:
    assert re.fullmatch(r"[A-Z].*\.", REASONS[reason].advice)


def test_table_has_no_reason_twice_or_too_many() -> None:
    assert list(REASONS) == list(Reason)


def test_retryable_reasons_are_those_that_a_repeat_with_the_same_request_id_may_mend() -> None:
    assert {reason for reason, rule in REASONS.items() if rule.retryable} == RETRYABLE


@REASON
def test_reason_of_an_unknown_outcome_is_aborted(reason: Reason) -> None:
    unknown = reason.endswith("_OUTCOME_UNKNOWN") or reason is Reason.IMPORT_UNRESOLVED
    assert not unknown or REASONS[reason].code is Code.ABORTED


@pytest.mark.parametrize("enum", [Reason, Code])
def test_members_are_called_what_they_say(enum: type[Reason] | type[Code]) -> None:
    assert [member.name for member in enum] == [member.value for member in enum]


@REASON
def test_broker_error_has_the_rule_of_its_reason(reason: Reason) -> None:
    error = BrokerError(reason, "What happened.")
    assert (error.rule, error.message, str(error)) == (REASONS[reason], "What happened.", "What happened.")
    assert (error.metadata, error.retry_after_seconds) == ({}, None)


def test_broker_error_keeps_metadata_of_its_own() -> None:
    given = {"key_id": "key-1"}
    error = BrokerError(Reason.INTERNAL, "What happened.", metadata=given)
    error.metadata["created_key_id"] = "key-2"
    assert given == {"key_id": "key-1"}


def test_invalid_field_names_the_field_in_text_and_metadata() -> None:
    error = InvalidField("new_key.alias", "is too long.")
    assert error.reason is Reason.INVALID_FIELD
    assert error.message == "new_key.alias: is too long."
    assert error.metadata == {"field": "new_key.alias"}
    assert (error.field, error.description) == ("new_key.alias", "is too long.")


@pytest.mark.parametrize(
    ("kms_request_id", "metadata"),
    [("", {"kms_code": "timeout"}), ("a-request", {"kms_code": "timeout", "kms_request_id": "a-request"})],
)
def test_kms_error_tells_code_and_request_id_in_metadata(kms_request_id: str, metadata: dict[str, str]) -> None:
    error = KmsError(
        Reason.KMS_UNAVAILABLE,
        "No answer.",
        kms_code="timeout",
        committed_nothing=False,
        kms_request_id=kms_request_id,
        retry_after_seconds=2.0,
    )
    assert error.metadata == metadata
    assert (error.committed_nothing, error.retry_after_seconds) == (False, 2.0)


def test_every_error_is_a_broker_error() -> None:
    assert issubclass(InvalidField, BrokerError)
    assert issubclass(KmsError, BrokerError)

"""What bad input and a failing KMS get: the right reason, nothing half done, exactly one failure counted."""

from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import uuid4

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, RetryInfo
from google.rpc.status_pb2 import Status

from keybroker_client import KeyBrokerError
from keymaterial.v1 import key_broker_service_pb2 as pb
from keymaterial.v1 import types_pb2
from keymaterial.v1.key_broker_service_pb2_grpc import KeyBrokerServiceStub
from kms_emulator import Emulator, Fault
from tests.integration.conftest import RunningBroker
from tests.integration.test_imports import check_value

AES_256 = types_pb2.KEY_SPEC_AES_256
NEW_KEY = types_pb2.NewKey(key_spec=AES_256)
THROTTLED = Fault(action="error", code="Rejected.Throttling", retry_after_ms=40_000, count=0)


@dataclass
class Answer:
    """An error as a caller without our client sees it."""

    code: grpc.StatusCode
    reason: str
    metadata: dict[str, str]
    bad_field: str = ""
    details: list[str] = field(default_factory=list)


def ask(broker: RunningBroker, method: str, request: object) -> Answer:
    with grpc.insecure_channel(broker.address) as channel:
        stub = KeyBrokerServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            getattr(stub, method)(request, timeout=10)
    error = caught.value
    assert isinstance(error, grpc.Call)
    return _answer(error)


def _answer(error: grpc.Call) -> Answer:
    trailers = dict(error.trailing_metadata())
    status = Status.FromString(trailers["grpc-status-details-bin"])  # type: ignore[arg-type]
    assert status.code == error.code().value[0]
    answer = Answer(error.code(), "", {})
    for detail in status.details:
        answer.details.append(detail.TypeName().rpartition(".")[2])
        for kind in (info := ErrorInfo(), bad := BadRequest(), PreconditionFailure(), RetryInfo()):
            detail.Unpack(kind)
        if detail.Is(ErrorInfo.DESCRIPTOR):
            assert info.domain == "keybroker"
            answer.reason, answer.metadata = info.reason, dict(info.metadata)
        if detail.Is(BadRequest.DESCRIPTOR):
            answer.bad_field = bad.field_violations[0].field
    assert answer.details.count("ErrorInfo") == 1
    return answer


def import_request(**fields: object) -> pb.ImportExternalKeyRequest:
    if "new_key" not in fields:
        fields.setdefault("key_id", "key-hzz0000000000000000")
    return pb.ImportExternalKeyRequest(**({"request_id": str(uuid4())} | fields))  # type: ignore[arg-type]


def wrapped_request(**fields: object) -> pb.ImportWrappedKeyMaterialRequest:
    defaults = {
        "request_id": str(uuid4()),
        "key_id": "key-hzz0000000000000000",
        "wrapped_key_material": bytes(256),
        "import_token": "a-token",
    }
    return pb.ImportWrappedKeyMaterialRequest(**(defaults | fields))  # type: ignore[arg-type]


BAD_FIELDS = {
    "request_id missing": (import_request(request_id=""), "request_id"),
    "request_id malformed": (import_request(request_id="42"), "request_id"),
    "instance unknown": (import_request(instance="nowhere"), "instance"),
    "target missing": (pb.ImportExternalKeyRequest(request_id=str(uuid4())), "target"),
    "key_id empty": (import_request(key_id=""), "key_id"),
    "key_id malformed": (import_request(key_id="key id"), "key_id"),
    "alias where an id is needed": (import_request(key_id="alias/payments"), "key_id"),
    "ARN of another region": (import_request(key_id="acs:kms:cn-beijing:1540355698840000:key/key-hzz0"), "key_id"),
    "key spec unspecified": (import_request(new_key=types_pb2.NewKey()), "new_key.key_spec"),
    "description too long": (
        import_request(new_key=types_pb2.NewKey(key_spec=AES_256, description="x" * 8193)),
        "new_key.description",
    ),
    "alias too long": (
        import_request(new_key=types_pb2.NewKey(key_spec=AES_256, alias="alias/" + "x" * 256)),
        "new_key.alias",
    ),
    "alias without prefix": (
        import_request(new_key=types_pb2.NewKey(key_spec=AES_256, alias="payments")),
        "new_key.alias",
    ),
    "tags too many": (
        import_request(new_key=types_pb2.NewKey(key_spec=AES_256, tags={str(n): "" for n in range(10)})),
        "new_key.tags",
    ),
    "wrapping algorithm unknown": (import_request(wrapping_algorithm=99), "wrapping_algorithm"),
    "wrapped material too short": (wrapped_request(wrapped_key_material=bytes(255)), "wrapped_key_material"),
    "wrapped material in base64": (wrapped_request(wrapped_key_material=b"A" * 344), "wrapped_key_material"),
    "token empty": (wrapped_request(import_token=""), "import_token"),
    "token with white space": (wrapped_request(import_token="two words"), "import_token"),
    "token too long": (wrapped_request(import_token="x" * 16385), "import_token"),
}


@pytest.mark.parametrize("case", BAD_FIELDS)
def test_bad_field_is_named_before_any_upstream_call(emulator: Emulator, broker: RunningBroker, case: str) -> None:
    request, name = BAD_FIELDS[case]
    answer = ask(broker, type(request).__name__.removesuffix("Request"), request)
    assert (answer.code, answer.reason, answer.bad_field) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
        name,
    )
    assert emulator.calls == {}
    assert broker.failures() == {"INVALID_FIELD": 1}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"state": "Enabled"}, "KEY_MATERIAL_ALREADY_BOUND"),
        ({"state": "Disabled"}, "KEY_DISABLED"),
        ({"state": "PendingDeletion"}, "KEY_PENDING_DELETION"),
        ({"origin": "Aliyun_KMS"}, "KEY_ORIGIN_NOT_EXTERNAL"),
        ({"key_spec": "Aliyun_SM4"}, "KEY_SPEC_UNSUPPORTED"),
        ({"dkms_instance_id": "kst-other"}, "KEY_NOT_ON_INSTANCE"),
    ],
)
@pytest.mark.parametrize("method", ["ImportExternalKey", "GetImportParameters"])
def test_unfit_cmk_is_a_failed_precondition_with_what_to_do(
    emulator: Emulator,
    broker: RunningBroker,
    options: dict[str, str],
    reason: str,
    method: str,
) -> None:
    key_id = emulator.create_key(**options)
    request = import_request(key_id=key_id)
    if method == "GetImportParameters":
        request = pb.GetImportParametersRequest(key_id=key_id)  # type: ignore[assignment]
    answer = ask(broker, method, request)
    assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, reason)
    assert "PreconditionFailure" in answer.details
    assert answer.metadata["key_id"] == key_id
    assert set(emulator.calls) == {"DescribeKey"}
    assert broker.failures() == ({reason: 1} if method == "ImportExternalKey" else {})


def test_already_bound_says_the_rule_in_words(emulator: Emulator, broker: RunningBroker) -> None:
    with pytest.raises(KeyBrokerError, match="only one piece of key material") as caught:
        broker.client.import_external_key(key_id=emulator.create_key(state="Enabled"))
    assert "new CMK" in str(caught.value)


def test_unknown_cmk_is_not_found(broker: RunningBroker) -> None:
    answer = ask(broker, "ImportExternalKey", import_request())
    assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "KEY_NOT_FOUND")
    assert answer.metadata["kms_code"] == "Forbidden.KeyNotFound"
    assert broker.failures() == {"KEY_NOT_FOUND": 1}


def test_wrapped_material_of_wrong_length_is_an_invalid_argument(emulator: Emulator, broker: RunningBroker) -> None:
    key_id = emulator.create_key()
    token = broker.client.get_import_parameters(key_id=key_id).import_token
    answer = ask(broker, "ImportWrappedKeyMaterial", wrapped_request(key_id=key_id, import_token=token))
    assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "WRAPPED_KEY_MATERIAL_REFUSED")
    assert answer.bad_field == "wrapped_key_material"
    assert broker.failures() == {"WRAPPED_KEY_MATERIAL_REFUSED": 1}


def test_foreign_token_is_refused_without_a_call(emulator: Emulator, broker: RunningBroker) -> None:
    key_id = emulator.create_key()
    _, token = emulator.issue_parameters(key_id, "RSAES_OAEP_SHA_256")
    answer = ask(broker, "ImportWrappedKeyMaterial", wrapped_request(key_id=key_id, import_token=token))
    assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "IMPORT_TOKEN_UNKNOWN")
    assert emulator.calls == {}
    assert broker.failures() == {"IMPORT_TOKEN_UNKNOWN": 1}


def test_forbidden_pkcs1_is_refused_without_a_call(
    emulator: Emulator, make_broker: Callable[..., RunningBroker]
) -> None:
    broker = make_broker(imports={"forbid_pkcs1_v1_5": True})
    request = import_request(wrapping_algorithm=types_pb2.WRAPPING_ALGORITHM_RSAES_PKCS1_V1_5)
    answer = ask(broker, "ImportExternalKey", request)
    assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "WRAPPING_ALGORITHM_FORBIDDEN")
    assert emulator.calls == {}
    assert broker.failures() == {"WRAPPING_ALGORITHM_FORBIDDEN": 1}


@pytest.mark.parametrize(
    ("fault", "code", "reason", "tries"),
    [
        (THROTTLED, "RESOURCE_EXHAUSTED", "KMS_THROTTLED", 1),
        (Fault(action="error", code="Forbidden.NoPermission", count=0), "FAILED_PRECONDITION", "KMS_ACCESS_DENIED", 1),
        (Fault(action="error", code="Forbidden.InDebt", count=0), "FAILED_PRECONDITION", "KMS_ACCOUNT_BLOCKED", 1),
        (Fault(action="error", code="InternalFailure", count=0), "UNAVAILABLE", "KMS_UNAVAILABLE", 5),
        (Fault(action="error", status=418, code="Brand.New", count=0), "UNKNOWN", "KMS_ERROR_UNRECOGNISED", 1),
        (Fault(action="drop", count=0), "UNAVAILABLE", "KMS_UNAVAILABLE", 5),
        (Fault(action="garbage", count=0), "UNAVAILABLE", "KMS_RESPONSE_INVALID", 5),
        (Fault(action="truncated", when="after", count=0), "UNAVAILABLE", "KMS_RESPONSE_INVALID", 5),
        (Fault(action="oversize", when="after", count=0), "UNAVAILABLE", "KMS_RESPONSE_INVALID", 5),
    ],
    ids=lambda value: f"{value.action} {value.code}" if isinstance(value, Fault) else "",
)
def test_failing_read_maps_through_the_one_table_after_the_tries_that_make_sense(
    emulator: Emulator, broker: RunningBroker, fault: Fault, code: str, reason: str, tries: int
) -> None:
    emulator.faults.add(fault)
    answer = ask(broker, "ImportExternalKey", import_request(key_id=emulator.create_key()))
    assert (answer.code.name, answer.reason) == (code, reason)
    opens_the_circuit = tries == 5  # so many failures in a row
    assert ("RetryInfo" in answer.details) == (reason == "KMS_THROTTLED" or opens_the_circuit)
    label = "other" if reason == "KMS_ERROR_UNRECOGNISED" else reason
    assert broker.failures() == {label: 1}
    assert emulator.calls == {"DescribeKey": tries}


LOST = pytest.mark.parametrize(
    "action", [{"action": "drop"}, {"action": "error", "code": "InternalFailure"}], ids=["drop", "500"]
)


@pytest.mark.parametrize("when", ["before", "after"])
@LOST
@pytest.mark.parametrize("target", ["existing", "new"])
def test_import_reply_lost_once_is_sent_again_and_imported(
    emulator: Emulator, broker: RunningBroker, when: str, action: dict[str, str], target: str
) -> None:
    emulator.faults.add(Fault(operation="ImportKeyMaterial", when=when, **action))  # type: ignore[arg-type]
    where = {"new_key": NEW_KEY} if target == "new" else {"key_id": emulator.create_key()}
    answer = broker.client.import_external_key(**where)
    assert answer.evidence == types_pb2.IMPORT_EVIDENCE_ACCEPTED
    assert emulator.calls["ImportKeyMaterial"] == 2
    assert emulator.calls["GetParametersForImport"] == 1
    assert broker.failures() == {}
    assert broker.metric("keybroker_import_duration_seconds_count", outcome="imported") == 1


@pytest.mark.parametrize("when", ["before", "after"])
@LOST
@pytest.mark.parametrize("target", ["existing", "new"])
def test_import_every_reply_lost_is_unresolved_never_failed_and_ends_well_once_replies_come(
    emulator: Emulator,
    make_broker: Callable[..., RunningBroker],
    when: str,
    action: dict[str, str],
    target: str,
) -> None:
    broker = make_broker()
    emulator.faults.add(Fault(operation="ImportKeyMaterial", when=when, count=0, **action))  # type: ignore[arg-type]
    request = import_request(new_key=NEW_KEY) if target == "new" else import_request(key_id=emulator.create_key())
    answer = ask(broker, "ImportExternalKey", request)
    assert (answer.code, answer.reason) == (grpc.StatusCode.ABORTED, "IMPORT_UNRESOLVED")
    assert broker.failures() == {"IMPORT_UNRESOLVED": 1}
    assert broker.metric("keybroker_import_duration_seconds_count", outcome="unresolved") == 1
    assert broker.metric("keybroker_import_duration_seconds_count", outcome="failed") == 0
    key_id = answer.metadata["key_id"]
    assert (answer.metadata.get("created_key_id") == key_id) == (target == "new")
    assert emulator.key_state(key_id) == ("Enabled" if when == "after" else "PendingImport")
    emulator.faults.clear()
    with grpc.insecure_channel(broker.address) as channel:
        imported = KeyBrokerServiceStub(channel).ImportExternalKey(request, timeout=10)
    assert (imported.key.key_id, imported.evidence) == (key_id, types_pb2.IMPORT_EVIDENCE_ACCEPTED)
    assert imported.key_check_value.value == check_value(emulator.bound_material(key_id) or b"")


def test_import_not_answered_in_time_is_unresolved_before_the_deadline(
    emulator: Emulator, broker: RunningBroker
) -> None:
    """By 50 ms: where a busy machine takes them for itself the answer has no reason, and there is another try."""
    emulator.faults.add(Fault(operation="ImportKeyMaterial", when="after", action="delay", delay_seconds=10, count=0))
    for _ in range(3):
        with pytest.raises(KeyBrokerError) as caught:
            broker.client.import_external_key(key_id=emulator.create_key(), timeout_seconds=2.5)
        if caught.value.reason:
            break
    assert caught.value.reason == "IMPORT_UNRESOLVED"


@pytest.mark.parametrize("action", ["garbage", "truncated", "oversize"])
def test_import_accepted_with_an_unreadable_reply_is_sent_again_and_imported(
    emulator: Emulator, broker: RunningBroker, action: str
) -> None:
    emulator.faults.add(Fault(operation="ImportKeyMaterial", when="after", action=action))  # type: ignore[arg-type]
    answer = broker.client.import_external_key(key_id=emulator.create_key())
    assert answer.evidence == types_pb2.IMPORT_EVIDENCE_ACCEPTED
    assert emulator.calls["ImportKeyMaterial"] == 2


def test_create_reply_lost_and_no_cmk_is_outcome_unknown_and_sent_once(
    emulator: Emulator, make_broker: Callable[..., RunningBroker]
) -> None:
    broker = make_broker(imports={"create_settle_seconds": 1.0})
    emulator.faults.add(Fault(operation="CreateKey", when="before", action="drop"))
    answer = ask(broker, "ImportExternalKey", import_request(new_key=NEW_KEY))
    assert (answer.code, answer.reason) == (grpc.StatusCode.ABORTED, "CREATE_OUTCOME_UNKNOWN")
    assert emulator.calls["CreateKey"] == 1
    assert set(emulator.calls) == {"CreateKey", "ListKeys"}


def test_create_reply_lost_goes_on_with_the_cmk_that_its_tag_finds(emulator: Emulator, broker: RunningBroker) -> None:
    emulator.faults.add(Fault(operation="CreateKey", when="after", action="drop"))
    answer = broker.client.import_external_key(new_key=NEW_KEY)
    assert emulator.calls["CreateKey"] == 1
    assert emulator.key_state(answer.key.key_id) == "Enabled"


@pytest.mark.parametrize("operation", ["GetParametersForImport", "ImportKeyMaterial"])
def test_new_cmk_whose_import_fails_is_named(emulator: Emulator, broker: RunningBroker, operation: str) -> None:
    emulator.faults.add(Fault(operation=operation, action="error", code="Rejected.Throttling", count=0))
    request = import_request(new_key=NEW_KEY)
    answer = ask(broker, "ImportExternalKey", request)
    assert answer.reason == "KMS_THROTTLED"
    emulator.faults.clear()
    with grpc.insecure_channel(broker.address) as channel:
        imported = KeyBrokerServiceStub(channel).ImportExternalKey(request, timeout=10)
    assert imported.key.key_id == answer.metadata["created_key_id"]
    assert emulator.calls["CreateKey"] == 1


@pytest.mark.parametrize(
    "action", ["public_key_unparsable", "public_key_short", "public_key_exponent_3", "public_key_tiny_factor"]
)
def test_bad_wrapping_public_key_is_refused_and_nothing_sent(
    emulator: Emulator, broker: RunningBroker, action: str
) -> None:
    emulator.faults.add(Fault(operation="GetParametersForImport", action=action))  # type: ignore[arg-type]
    answer = ask(broker, "ImportExternalKey", import_request(key_id=emulator.create_key()))
    assert (answer.code, answer.reason) == (grpc.StatusCode.INTERNAL, "WRAPPING_PUBLIC_KEY_REJECTED")
    assert emulator.calls["ImportKeyMaterial"] == 0
    assert broker.failures() == {"WRAPPING_PUBLIC_KEY_REJECTED": 1}


def test_swapped_wrapping_public_key_binds_nothing_under_oaep(emulator: Emulator, broker: RunningBroker) -> None:
    emulator.faults.add(Fault(operation="GetParametersForImport", action="public_key_swapped"))
    key_id = emulator.create_key()
    answer = ask(broker, "ImportExternalKey", import_request(key_id=key_id))
    assert answer.reason == "GENERATED_MATERIAL_REFUSED"
    assert emulator.bound_material(key_id) is None
    assert broker.client.import_external_key(key_id=key_id).key.state == types_pb2.KEY_STATE_ENABLED


def test_emulator_is_refused_unless_allowed(emulator: Emulator, make_broker: Callable[..., RunningBroker]) -> None:
    broker = make_broker(instance={"allow_emulator": False})
    answer = ask(broker, "ImportExternalKey", import_request(key_id=emulator.create_key()))
    assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "EMULATOR_NOT_ALLOWED")


def test_late_enabled_is_waited_for(emulator: Emulator, broker: RunningBroker) -> None:
    emulator.set_readings(enabled_lag_describes=3)
    key_id = emulator.create_key()
    assert broker.client.import_external_key(key_id=key_id).key.state == types_pb2.KEY_STATE_ENABLED
    assert emulator.calls["DescribeKey"] == 5


def test_clock_skew_is_measured_and_corrected(emulator: Emulator, broker: RunningBroker) -> None:
    emulator.clock.advance(3600)
    answer = broker.client.import_external_key(key_id=emulator.create_key())
    assert answer.evidence == types_pb2.IMPORT_EVIDENCE_ACCEPTED
    assert broker.metric("keybroker_kms_clock_skew_seconds") == pytest.approx(3600, abs=5)


def test_validate_only_changes_nothing(emulator: Emulator, broker: RunningBroker) -> None:
    key_id = emulator.create_key()
    answer = broker.client.import_external_key(key_id=key_id, validate_only=True)
    assert answer.key.state == types_pb2.KEY_STATE_PENDING_IMPORT
    assert answer.evidence == types_pb2.IMPORT_EVIDENCE_UNSPECIFIED
    answer = broker.client.import_external_key(new_key=NEW_KEY, validate_only=True)
    assert answer.key.key_id == ""
    assert answer.key.key_spec == AES_256
    assert emulator.calls == {"DescribeKey": 1}
    assert broker.metric("keybroker_import_duration_seconds_count", outcome="validated") == 2
    assert broker.failures() == {}


def test_retry_after_that_outlasts_the_call_reaches_the_caller(emulator: Emulator, broker: RunningBroker) -> None:
    emulator.faults.add(THROTTLED)
    with pytest.raises(KeyBrokerError) as caught:
        broker.client.import_external_key(key_id=emulator.create_key())
    assert caught.value.retry_after_seconds == pytest.approx(40.0)

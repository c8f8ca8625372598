"""Requests that are repeated, abandoned or resolved late, over real gRPC: one material, one answer, one count."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from uuid import uuid4

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from keybroker.adapters.clock import SystemClock
from keybroker.domain.attempt import HandedOut
from keybroker.domain.external_key import CmkName
from keybroker.usecases.hand_out_import_parameters import token_digest
from keymaterial.v1 import key_broker_service_pb2 as pb
from keymaterial.v1 import types_pb2
from keymaterial.v1.key_broker_service_pb2_grpc import KeyBrokerServiceStub
from kms_emulator import Emulator, Fault
from tests.integration.conftest import RunningBroker
from tests.integration.test_imports import check_value

NEW_KEY = types_pb2.NewKey(key_spec=types_pb2.KEY_SPEC_AES_256)
IMPORTED = types_pb2.REQUEST_STATE_IMPORTED


def stub_of(channel: grpc.Channel) -> KeyBrokerServiceStub:
    return KeyBrokerServiceStub(channel)


def request_for(key_id: str, request_id: str = "") -> pb.ImportExternalKeyRequest:
    return pb.ImportExternalKeyRequest(request_id=request_id or str(uuid4()), key_id=key_id)


def reason_of(error: grpc.RpcError) -> str:
    assert isinstance(error, grpc.Call)
    trailers = dict(error.trailing_metadata())
    info = ErrorInfo()
    Status.FromString(trailers["grpc-status-details-bin"]).details[0].Unpack(info)  # type: ignore[arg-type]
    return info.reason


def recorded(stub: KeyBrokerServiceStub, request_id: str) -> pb.GetImportResponse:
    answer: pb.GetImportResponse = stub.GetImport(pb.GetImportRequest(request_id=request_id), timeout=20)
    return answer


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    ends_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.02)


def imports_counted(broker: RunningBroker) -> dict[str, float]:
    outcomes = ("imported", "unresolved", "failed")
    name = "keybroker_import_duration_seconds_count"
    return {outcome: broker.metric(name, outcome=outcome) for outcome in outcomes}


@pytest.mark.parametrize("ending", ["cancelled", "past its deadline"])
@pytest.mark.parametrize("target", ["existing", "new"])
def test_import_that_nobody_waits_for_ends_in_the_background_and_get_import_shows_it(
    emulator: Emulator, broker: RunningBroker, ending: str, target: str
) -> None:
    emulator.faults.add(Fault(operation="ImportKeyMaterial", when="after", action="hold"))
    request = request_for(emulator.create_key())
    if target == "new":
        request = pb.ImportExternalKeyRequest(request_id=request.request_id, new_key=NEW_KEY)
    with grpc.insecure_channel(broker.address) as channel:
        stub = stub_of(channel)
        call = stub.ImportExternalKey.future(request, timeout=3.0 if ending == "past its deadline" else 15)
        emulator.wait_until_held()
        if ending == "cancelled":
            call.cancel()
        else:
            assert call.code() in {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.ABORTED}
        emulator.release_held()
        wait_until(lambda: recorded(stub, request.request_id).state == IMPORTED)
        row = recorded(stub, request.request_id)
        again = stub.ImportExternalKey(request, timeout=10)
    assert row.evidence == types_pb2.IMPORT_EVIDENCE_ACCEPTED
    assert row.key_check_value.value == check_value(emulator.bound_material(row.key_id) or b"")
    assert again.replayed
    assert again.key_check_value == row.key_check_value
    assert emulator.calls["GetParametersForImport"] == 1


def test_replay_is_no_import_in_the_metrics(emulator: Emulator, broker: RunningBroker) -> None:
    request = request_for(emulator.create_key())
    with grpc.insecure_channel(broker.address) as channel:
        stub = stub_of(channel)
        first = stub.ImportExternalKey(request, timeout=10)
        sent = Counter(emulator.calls)
        answers = [stub.ImportExternalKey(request, timeout=10) for _ in range(3)]
    assert [answer.replayed for answer in (first, *answers)] == [False, True, True, True]
    for answer in answers:
        answer.replayed = False
        assert answer == first
    assert emulator.calls == sent
    assert imports_counted(broker) == {"imported": 1, "unresolved": 0, "failed": 0}
    assert broker.failures() == {}


def test_replay_of_a_failure_is_no_failure_in_the_metrics(emulator: Emulator, broker: RunningBroker) -> None:
    emulator.faults.add(Fault(operation="ImportKeyMaterial", action="error", code="Forbidden.NoPermission"))
    request = request_for(emulator.create_key())
    reasons = []
    with grpc.insecure_channel(broker.address) as channel:
        for _ in range(3):
            with pytest.raises(grpc.RpcError) as caught:
                stub_of(channel).ImportExternalKey(request, timeout=10)
            reasons.append(reason_of(caught.value))
    assert reasons == ["KMS_ACCESS_DENIED"] * 3
    assert imports_counted(broker) == {"imported": 0, "unresolved": 0, "failed": 1}
    assert broker.failures() == {"KMS_ACCESS_DENIED": 1}


def test_attempt_that_is_resolved_late_counts_once(emulator: Emulator, broker: RunningBroker) -> None:
    """The call counts as unresolved, its end as imported; later passes of the recovery and a repeat do not count."""
    emulator.faults.add(Fault(operation="ImportKeyMaterial", when="after", action="drop", count=0))
    request = request_for(emulator.create_key())
    with grpc.insecure_channel(broker.address) as channel:
        stub = stub_of(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ImportExternalKey(request, timeout=10)
        assert reason_of(caught.value) == "IMPORT_UNRESOLVED"
        assert recorded(stub, request.request_id).state == types_pb2.REQUEST_STATE_PREPARED
        emulator.faults.clear()
        wait_until(lambda: recorded(stub, request.request_id).state == IMPORTED)
        wait_until(lambda: imports_counted(broker)["imported"] == 1)
        time.sleep(2.5)  # two more passes of the recovery
        assert stub.ImportExternalKey(request, timeout=10).replayed
    assert imports_counted(broker) == {"imported": 1, "unresolved": 1, "failed": 0}
    assert broker.failures() == {"IMPORT_UNRESOLVED": 1}


def test_fifty_requests_for_one_cmk_at_once_import_exactly_one_material(
    emulator: Emulator, broker: RunningBroker
) -> None:
    """Whoever hears that the CMK is bound hears it after Enabled was confirmed: the winner's row says so by then."""
    emulator.set_readings(enabled_lag_describes=2)
    emulator.faults.add(Fault(operation="ImportKeyMaterial", when="before", action="delay", delay_seconds=1))
    key_id = emulator.create_key()
    all_there = threading.Barrier(50)
    requests = [request_for(key_id) for _ in range(50)]
    with grpc.insecure_channel(broker.address) as channel:
        stub = stub_of(channel)

        def ask(request: pb.ImportExternalKeyRequest) -> str:
            all_there.wait()
            try:
                stub.ImportExternalKey(request, timeout=20)
            except grpc.RpcError as error:
                reason = reason_of(error)
                if reason == "KEY_MATERIAL_ALREADY_BOUND":
                    assert emulator.key_state(key_id) == "Enabled"
                    assert any(_is_imported(stub, each.request_id) for each in requests)
                return reason
            return "IMPORTED"

        with ThreadPoolExecutor(50) as pool:
            outcomes = Counter(pool.map(ask, requests))
    assert outcomes["IMPORTED"] == 1
    assert set(outcomes) <= {"IMPORTED", "IMPORT_IN_PROGRESS", "KEY_MATERIAL_ALREADY_BOUND"}
    assert outcomes["IMPORT_IN_PROGRESS"] > 0
    assert emulator.calls["ImportKeyMaterial"] == 1
    assert emulator.calls["GetParametersForImport"] == 1


def _is_imported(stub: KeyBrokerServiceStub, request_id: str) -> bool:
    try:
        return recorded(stub, request_id).state == IMPORTED
    except grpc.RpcError:
        return False  # it never came to a row


def test_get_import_of_a_request_that_nobody_made_is_not_found(broker: RunningBroker) -> None:
    with grpc.insecure_channel(broker.address) as channel, pytest.raises(grpc.RpcError) as caught:
        recorded(stub_of(channel), str(uuid4()))
    assert reason_of(caught.value) == "REQUEST_NOT_FOUND"


def test_same_request_id_with_other_content_already_exists(emulator: Emulator, broker: RunningBroker) -> None:
    request = request_for(emulator.create_key())
    with grpc.insecure_channel(broker.address) as channel:
        stub = stub_of(channel)
        stub.ImportExternalKey(request, timeout=10)
        sent = Counter(emulator.calls)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ImportExternalKey(request_for(emulator.create_key(), request.request_id), timeout=10)
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS  # type: ignore[attr-defined]
    assert reason_of(caught.value) == "REQUEST_ID_REUSED"
    assert emulator.calls == sent


class AheadClock(SystemClock):
    """A broker's clock that is days ahead."""

    def now(self) -> datetime:
        return super().now() + timedelta(days=3)


def test_wrong_local_clock_makes_the_ledger_forget_nothing(
    emulator: Emulator, make_broker: Callable[..., RunningBroker]
) -> None:
    """Records expire by the KMS's Date alone: a hand-out that is forgotten would make SOLE_IMPORTER a lie."""
    broker = make_broker(clock=AheadClock())
    key_id = emulator.create_key()
    with grpc.insecure_channel(broker.address) as channel:
        parameters = stub_of(channel).GetImportParameters(pb.GetImportParametersRequest(key_id=key_id), timeout=10)
    app = broker.background.app
    app._prune()
    assert app._ledger.find_handed_out(token_digest(parameters.import_token)) is not None


def test_nothing_is_forgotten_before_the_kms_has_told_the_time(make_broker: Callable[..., RunningBroker]) -> None:
    app = make_broker(clock=AheadClock()).background.app
    expires_at = SystemClock().now() + timedelta(hours=24)
    cmk = CmkName("1540355698840000", "cn-hangzhou", "key-1")
    app._ledger.hand_out(HandedOut(b"d" * 32, cmk, "RSAES_OAEP_SHA_256", expires_at))
    app._prune()
    assert app._ledger.handed_out(cmk)

"""Which calls the clients repeat, when, how often; and what an error says after the tries before it."""

from __future__ import annotations

import re
import socket
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

import keybroker_client as kc
from keybroker_client import calls, channel, retries
from keymaterial.v1 import key_broker_service_pb2 as pb
from keymaterial.v1 import types_pb2 as types
from tests.clients.fake_broker import KEY_ID, TOKEN, Failure, FakeBroker, retry_info

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.message import Message

    from tests.clients.conftest import Invoke

Code = grpc.StatusCode
REQUEST_ID = "6f1c9c1e-3c1b-4f65-9c53-3a8f1c1d2e3f"
IMPORT = pb.ImportExternalKeyRequest(request_id=REQUEST_ID, key_id=KEY_ID)
NEW_KEY = kc.NewKey(key_spec=types.KEY_SPEC_AES_256)
GONE = Failure(Code.UNAVAILABLE)
BUSY = Failure(Code.RESOURCE_EXHAUSTED, "BROKER_OVERLOADED")
ROOT = Path(__file__).parents[2]
ERRORS_PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
PROTO = (ROOT / "protos/keymaterial/v1/key_broker_service.proto").read_text(encoding="utf-8")

REPEATED: list[tuple[str, str, dict[str, Any]]] = [
    ("ImportExternalKey", "import_external_key", {"key_id": KEY_ID}),
    ("ImportExternalKey", "import_external_key", {"new_key": NEW_KEY, "validate_only": True}),
    ("CreateExternalKey", "create_external_key", {"new_key": NEW_KEY}),
    (
        "ImportWrappedKeyMaterial",
        "import_wrapped_key_material",
        {"key_id": KEY_ID, "wrapped_key_material": bytes(256), "import_token": TOKEN},
    ),
    ("GetImportParameters", "get_import_parameters", {"key_id": KEY_ID}),
    ("GetImport", "get_import", {"request_id": REQUEST_ID}),
    ("ListOrphanedKeys", "list_orphaned_keys", {}),
    ("DescribeKey", "describe_key", {"key_id": KEY_ID}),
]
SENT_ONCE: list[tuple[str, str, dict[str, Any]]] = [
    ("ImportExternalKey", "import_external_key", {"new_key": NEW_KEY, "allow_second_key": True}),
    ("CreateExternalKey", "create_external_key", {"new_key": NEW_KEY, "allow_second_key": True}),
    ("DeleteOrphanedKey", "delete_orphaned_key", {"key_id": KEY_ID, "pending_window_days": 7}),
    ("ScheduleKeyDeletion", "schedule_key_deletion", {"key_id": KEY_ID, "pending_window_days": 7}),
    ("CancelKeyDeletion", "cancel_key_deletion", {"key_id": KEY_ID}),
]


class RpcFailed(grpc.RpcError):
    """A Failure as gRPC raises it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__()
        self.code = lambda: failure.code
        self.details = lambda: failure.message
        self.trailing_metadata = failure.trailing_metadata


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Harness:
    """A call whose tries fail as told, on a clock that stands still; jitter is always the longest."""

    def __init__(self, request: Message = IMPORT, *, count: int = 5, timeout_seconds: float = 60.0) -> None:
        self.clock = Clock()
        self.retries = retries.Retries(count, clock=self.clock, uniform=lambda _, longest: longest)
        self.start(request, timeout_seconds)

    def start(self, request: Message = IMPORT, timeout_seconds: float = 60.0) -> None:
        self.call = self.retries.start(request, timeout_seconds)

    def fail(self, failure: Failure) -> float:
        """Fails a try, and waits as long as the call says."""
        pause_seconds = self.call.pause_seconds(RpcFailed(failure))
        self.clock.seconds += pause_seconds
        return pause_seconds

    def fail_for_good(self, failure: Failure) -> kc.KeyBrokerError:
        with pytest.raises(kc.KeyBrokerError) as caught:
            self.fail(failure)
        return caught.value

    def fail_to_the_end(self, failure: Failure) -> int:
        """How many repeats there are before the call's error is raised."""
        for repeats in range(100):
            try:
                self.fail(failure)
            except kc.KeyBrokerError:
                return repeats
        raise AssertionError("no end")


def test_every_request_is_a_read_or_a_change_of_one_kind() -> None:
    service = pb.DESCRIPTOR.services_by_name["KeyBrokerService"]
    kinds = calls.READS + calls.IDEMPOTENT_CHANGES + calls.OTHER_CHANGES
    assert sorted(kind.DESCRIPTOR.name for kind in kinds) == sorted(rpc.input_type.name for rpc in service.methods)


def test_repeatable_requests_are_those_of_which_the_proto_says_so() -> None:
    comments = re.findall(r"((?:  //[^\n]*\n)+)  rpc (\w+)\(", PROTO)
    said = {rpc: " ".join(comment.replace("//", "").split()) for comment, rpc in comments}
    assert names(calls.IDEMPOTENT_CHANGES) == {
        rpc for rpc, words in said.items() if "Retry: yes, with the same request_id" in words
    }
    assert names(calls.READS) == {rpc for rpc, words in said.items() if "Idempotency: a read. Retry: yes." in words}


def names(kinds: Iterable[type[Message]]) -> set[str]:
    return {kind.DESCRIPTOR.name.removesuffix("Request") for kind in kinds}


def test_retryable_reasons_are_those_of_the_page_except_two() -> None:
    page = {
        reason for reason, retry in re.findall(r"^\| `([A-Z_]+)` \| `[A-Z_]+` \| (\w+) \|", ERRORS_PAGE, re.MULTILINE)
        if retry == "yes"
    }  # fmt: skip
    assert page
    assert page - {"DEADLINE_TOO_SHORT"} | {"CHANGE_OUTCOME_UNKNOWN"} == retries.RETRYABLE_REASONS


def test_settling_reasons_exist_and_are_not_retried() -> None:
    assert set(re.findall(r"^\| `([A-Z_]+)` \|", ERRORS_PAGE, re.MULTILINE)) > retries.SETTLING_REASONS
    assert retries.SETTLING_REASONS.isdisjoint(retries.RETRYABLE_REASONS)


def test_grpc_repeats_nothing_by_itself() -> None:
    assert not any(name == "grpc.service_config" for name, _ in channel.OPTIONS)


@pytest.mark.parametrize("failure", [GONE, BUSY], ids=["no answer", "overloaded"])
@pytest.mark.parametrize(("rpc", "method", "arguments"), REPEATED)
def test_call_is_repeated_as_it_was(
    broker: FakeBroker, invoke: Invoke, rpc: str, method: str, arguments: dict[str, Any], failure: Failure
) -> None:
    answer = broker.answers[rpc]
    broker.answers[rpc] = [failure, answer]  # type: ignore[list-item]
    assert invoke(broker.address, method, **arguments) == answer
    first, second = broker.calls
    assert first.request == second.request
    assert (first.rpc, second.rpc) == (rpc, rpc)


def test_next_try_has_what_is_left_of_the_timeout(broker: FakeBroker, invoke: Invoke) -> None:
    told = Failure(Code.RESOURCE_EXHAUSTED, "KMS_THROTTLED", details=(retry_info(1),))
    broker.answers["ImportExternalKey"] = [told, broker.answers["ImportExternalKey"]]  # type: ignore[list-item]
    invoke(broker.address, "import_external_key", key_id=KEY_ID)
    first, second = (call.time_remaining_seconds for call in broker.calls)
    assert 1 < first - second + 0.2 < 3  # gRPC rounds deadlines to a tenth of a second or so


@pytest.mark.parametrize("failure", [GONE, BUSY], ids=["no answer", "overloaded"])
@pytest.mark.parametrize(("rpc", "method", "arguments"), SENT_ONCE)
def test_call_that_a_repeat_could_double_is_sent_once(
    broker: FakeBroker, invoke: Invoke, rpc: str, method: str, arguments: dict[str, Any], failure: Failure
) -> None:
    broker.answers[rpc] = failure
    with pytest.raises(kc.KeyBrokerError):
        invoke(broker.address, method, **arguments)
    assert broker.rpcs == [rpc]


def test_retries_of_the_client_are_the_most_that_happen(broker: FakeBroker, invoke: Invoke) -> None:
    broker.answers["ImportExternalKey"] = BUSY
    for count in (0, 2):
        broker.calls.clear()
        with pytest.raises(kc.ThrottledError):
            invoke(broker.address, "import_external_key", client={"retries": count}, key_id=KEY_ID)
        assert len(broker.calls) == 1 + count
        assert len({call.request.request_id for call in broker.calls}) == 1


def test_negative_retries_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        kc.KeyBrokerClient("127.0.0.1:1", retries=-1)


def test_deadline_of_the_call_is_not_repeated_beyond(broker: FakeBroker, invoke: Invoke) -> None:
    over = threading.Event()
    broker.answers["ImportExternalKey"] = Failure(Code.UNAVAILABLE, after=over)
    began = time.monotonic()
    with pytest.raises(kc.UnresolvedError, match="in time"):
        invoke(broker.address, "import_external_key", key_id=KEY_ID, timeout_seconds=1.5)
    assert time.monotonic() - began < 10
    over.set()
    assert len(broker.calls) == 1


class CuttingRelay:
    """Passes bytes on to a broker; cuts the first connection as soon as the broker has the call, answer and all."""

    def __init__(self, broker: FakeBroker) -> None:
        self._broker = broker
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._cut = False
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        host, _, port = self._broker.address.rpartition(":")
        with suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                far = socket.create_connection((host, int(port)))
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(source, target, source is far), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, from_broker: bool) -> None:  # noqa: FBT001
        with suppress(OSError), source, target:
            while data := source.recv(65536):
                if from_broker and self._broker.calls and not self._cut:
                    self._cut = True
                    for end in (source, target):
                        end.shutdown(socket.SHUT_RDWR)
                    return
                target.sendall(data)


def test_answer_lost_with_its_connection_is_asked_for_again(broker: FakeBroker, invoke: Invoke) -> None:
    relay = CuttingRelay(broker)
    try:
        answer = invoke(relay.address, "import_external_key", key_id=KEY_ID)
    finally:
        relay.close()
    assert answer == broker.answers["ImportExternalKey"]
    first, second = broker.calls
    assert first.request == second.request


def test_broker_that_comes_back_is_found(invoke: Invoke) -> None:
    with FakeBroker() as gone:
        address = gone.address
    with ExitStack() as stack:
        back = FakeBroker(address=address)
        timer = threading.Timer(0.3, lambda: stack.enter_context(back))
        timer.start()
        invoke(address, "import_external_key", key_id=KEY_ID, client={"retries": 30, "timeout_seconds": 30.0})
        timer.join()
        assert back.rpcs == ["ImportExternalKey"]


def test_pauses_double_up_to_a_limit() -> None:
    harness = Harness(count=8)
    assert [harness.fail(BUSY) for _ in range(8)] == [0.25, 0.5, 1, 2, 4, 4, 4, 4]


def test_pause_has_full_jitter() -> None:
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return 0.1

    call = retries.Retries(clock=Clock(), uniform=uniform).start(IMPORT, 60)
    assert [call.pause_seconds(RpcFailed(BUSY)) for _ in range(2)] == [0.1, 0.1]
    assert asked == [(0.0, 0.25), (0.0, 0.5)]


def test_pause_is_never_shorter_than_the_broker_says() -> None:
    told = Failure(Code.RESOURCE_EXHAUSTED, "KMS_QUOTA_BUSY", details=(retry_info(2.5),))
    assert Harness().fail(told) == 2.75


@pytest.mark.parametrize(("seconds", "repeats"), [(8.7, 1), (8.8, 0), (86_400, 0)])
def test_wait_that_leaves_no_second_for_a_try_ends_the_call_at_once(seconds: float, repeats: int) -> None:
    harness = Harness(timeout_seconds=10.0)
    told = Failure(Code.RESOURCE_EXHAUSTED, "UNWRAP_REFUSALS_EXHAUSTED", details=(retry_info(seconds),))
    assert harness.fail_to_the_end(told) == repeats
    assert harness.call.remaining_seconds() == pytest.approx(10 - repeats * (seconds + 0.25))


@pytest.mark.parametrize("reason", sorted(retries.RETRYABLE_REASONS))
def test_retryable_reason_is_repeated(reason: str) -> None:
    assert Harness().fail(Failure(Code.ABORTED, reason)) > 0


@pytest.mark.parametrize(
    "failure",
    [
        Failure(Code.ABORTED),
        Failure(Code.RESOURCE_EXHAUSTED),
        Failure(Code.INTERNAL),
        Failure(Code.CANCELLED),
        Failure(Code.DEADLINE_EXCEEDED),
        Failure(Code.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT"),
        Failure(Code.INTERNAL, "INTERNAL"),
        Failure(Code.ABORTED, "NOT_IMPORTED"),
        Failure(Code.FAILED_PRECONDITION, "LEDGER_RESTORED", details=(retry_info(1),)),
        Failure(Code.UNAVAILABLE, "REASON_OF_A_NEWER_BROKER"),
        Failure(Code.UNAUTHENTICATED, "CALLER_UNAUTHENTICATED"),
    ],
    ids=lambda failure: failure.reason or failure.code.name,
)
def test_any_other_failure_ends_the_call(failure: Failure) -> None:
    assert Harness().fail_to_the_end(failure) == 0


def test_outage_takes_repeats_out_of_a_budget_that_all_calls_share() -> None:
    harness = Harness(count=3)
    harness.retries.uniform = lambda *_: 0.0  # time stands still
    assert [harness.fail_to_the_end(GONE), *_again(harness, GONE, 4)] == [3, 3, 3, 1, 0]
    assert _again(harness, BUSY, 1) == [3]
    harness.clock.seconds += 2.5
    assert _again(harness, GONE, 2) == [2, 0]
    harness.clock.seconds += 3600
    assert _again(harness, GONE, 4) == [3, 3, 3, 1]


def _again(harness: Harness, failure: Failure, times: int) -> list[int]:
    repeats = []
    for _ in range(times):
        harness.start()
        repeats.append(harness.fail_to_the_end(failure))
    return repeats


UNKNOWN_BEFORE = [GONE, Failure(Code.ABORTED, "IMPORT_UNRESOLVED"), Failure(Code.ABORTED, "CREATE_OUTCOME_UNKNOWN")]


@pytest.mark.parametrize("earlier", UNKNOWN_BEFORE, ids=lambda failure: failure.reason or "no answer")
@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (Failure(Code.RESOURCE_EXHAUSTED, "BROKER_OVERLOADED", details=(retry_info(3600),)), kc.UnresolvedError),
        (Failure(Code.ABORTED, "IMPORT_IN_PROGRESS", details=(retry_info(3600),)), kc.UnresolvedError),
        (Failure(Code.UNAVAILABLE, "KMS_UNAVAILABLE", details=(retry_info(3600),)), kc.UnresolvedError),
        (Failure(Code.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT"), kc.UnresolvedError),
        (Failure(Code.PERMISSION_DENIED, "CALLER_NOT_ALLOWED"), kc.UnresolvedError),
        (Failure(Code.PERMISSION_DENIED), kc.UnresolvedError),
        (Failure(Code.FAILED_PRECONDITION, "LEDGER_RECORD_UNREADABLE"), kc.UnresolvedError),
        (Failure(Code.ABORTED, "NOT_IMPORTED"), kc.NotImportedError),
        (Failure(Code.FAILED_PRECONDITION, "ENABLED_UNATTRIBUTED"), kc.UnattributedError),
        (Failure(Code.FAILED_PRECONDITION, "KEY_MATERIAL_ALREADY_BOUND"), kc.AlreadyBoundError),
        (Failure(Code.ALREADY_EXISTS, "REQUEST_ID_REUSED"), kc.RequestIdReusedError),
        (Failure(Code.INVALID_ARGUMENT, "INVALID_FIELD"), kc.InvalidArgumentError),
    ],
    ids=lambda value: value.reason or "no reason" if isinstance(value, Failure) else value.__name__,
)
def test_error_after_an_unresolved_try_is_unresolved_unless_it_settles_it(
    earlier: Failure, failure: Failure, expected: type[kc.KeyBrokerError]
) -> None:
    harness = Harness()
    harness.fail(earlier)
    error = harness.fail_for_good(failure)
    assert type(error) is expected
    assert (error.reason, error.code, error.request_id) == (failure.reason, failure.code, REQUEST_ID)
    assert ("in an earlier try is unknown" in error.message) is (expected is kc.UnresolvedError)


def test_unresolved_try_is_remembered_over_several() -> None:
    harness = Harness()
    for failure in (BUSY, GONE, BUSY, BUSY):
        harness.fail(failure)
    assert harness.fail_for_good(Failure(Code.PERMISSION_DENIED)).outcome_unknown


def test_try_that_was_refused_leaves_nothing_unresolved() -> None:
    harness = Harness()
    harness.fail(BUSY)
    assert type(harness.fail_for_good(Failure(Code.PERMISSION_DENIED))) is kc.NotAllowedError


@pytest.mark.parametrize(
    "request_",
    [
        pb.DescribeKeyRequest(key_id=KEY_ID),
        pb.ImportExternalKeyRequest(request_id=REQUEST_ID, key_id=KEY_ID, validate_only=True),
    ],
    ids=["read", "validate_only"],
)
def test_what_changes_nothing_is_never_unresolved(request_: Message) -> None:
    harness = Harness(request_)
    harness.fail(GONE)
    assert type(harness.fail_for_good(Failure(Code.PERMISSION_DENIED))) is kc.NotAllowedError


def test_created_key_of_an_earlier_try_stays_on_the_error() -> None:
    harness = Harness()
    harness.fail(Failure(Code.ABORTED, "IMPORT_UNRESOLVED", metadata={"created_key_id": "key-new"}))
    error = harness.fail_for_good(Failure(Code.DEADLINE_EXCEEDED))
    assert error.created_key_id == "key-new"


def test_error_says_what_grpc_said() -> None:
    harness = Harness(count=0)
    failure = RpcFailed(GONE)
    with pytest.raises(kc.UnresolvedError) as caught:
        harness.call.pause_seconds(failure)
    assert caught.value.__cause__ is failure

"""The interceptors around a real server: what a failing handler shows, and to whom."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import fields
from typing import Any

import grpc
import pytest
import structlog
from google.rpc.error_details_pb2 import BadRequest
from grpc_health.v1 import health_pb2

from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import REASONS, BrokerError, InvalidField, KmsError, Reason
from keybroker.rpc.call import CURRENT_CALL, Noted
from keybroker.rpc.interceptors.deadline import DeadlineInterceptor
from keybroker.telemetry.logs import configure_logs
from keybroker.telemetry.metrics import Metrics
from keymaterial.v1 import key_broker_service_pb2 as pb
from tests.builders import FakeClock
from tests.unit.rpc.harness import DESCRIBE, SERVICE, Outcome, Scripted, call, grpc_server, invoke, raising, serving

CANARY = "canary-90d2e1"
UUID_FORM = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
LABELS = {"grpc_type": "unary", "grpc_service": SERVICE, "grpc_method": "DescribeKey"}
HEALTH_CHECK = "/grpc.health.v1.Health/Check"


def note_everywhere(error: BaseException) -> BaseException:
    """Text in the message, a note, and the messages of cause and context."""
    error.add_note(CANARY)
    error.__cause__ = ValueError(CANARY)
    error.__cause__.__context__ = KeyError(CANARY)
    return error


UNFORESEEN = [
    ValueError(CANARY),
    KeyError(CANARY),
    RuntimeError(CANARY),
    OSError(5, CANARY, CANARY),
    UnicodeDecodeError("ascii", CANARY.encode(), 0, 1, CANARY),
    ExceptionGroup(CANARY, [ValueError(CANARY)]),
    type("Own", (Exception,), {"__str__": lambda self: CANARY})(),
    StopAsyncIteration(CANARY),
    AssertionError(CANARY),
    TimeoutError(CANARY),
    MemoryError(CANARY),
]


# Errors


@pytest.mark.parametrize("error", UNFORESEEN, ids=lambda error: type(error).__name__)
def test_unforeseen_exception_shows_its_text_to_nobody(
    error: Exception, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    outcome = call(Scripted(raising(note_everywhere(error))))
    printed = capfd.readouterr()
    assert CANARY not in f"{outcome.everything()}{caplog.text}{printed.out}{printed.err}"


@pytest.mark.parametrize("error", UNFORESEEN, ids=lambda error: type(error).__name__)
def test_unforeseen_exception_is_internal_with_a_correlation_id_that_is_in_the_log(error: Exception) -> None:
    outcome = call(Scripted(raising(error)))
    assert outcome.code is grpc.StatusCode.INTERNAL
    info = outcome.error_info
    assert (info.reason, info.domain, set(info.metadata)) == ("INTERNAL", "keybroker", {"correlation_id"})
    correlation_id = info.metadata["correlation_id"]
    assert re.fullmatch(UUID_FORM, correlation_id)
    assert correlation_id in outcome.details
    assert [line["event"] for line in outcome.log if line["correlation_id"] == correlation_id] == ["call", "unforeseen"]
    [unforeseen] = [line for line in outcome.log if line["event"] == "unforeseen"]
    assert unforeseen["log_level"] == "error"
    assert unforeseen["method"] == DESCRIBE
    assert unforeseen["exceptions"][0].startswith(f"{type(error).__module__}.{type(error).__qualname__} at handle:")


def test_unforeseen_exception_after_a_key_was_created_names_the_key() -> None:
    async def handle(request: Any, context: Any) -> Any:
        CURRENT_CALL.get().noted.created_key_id = "key-new"
        raise ValueError(CANARY)

    assert call(Scripted(handle)).error_info.metadata["created_key_id"] == "key-new"


def test_correlation_ids_of_two_calls_differ() -> None:
    first, second = (call(Scripted(raising(ValueError()))).error_info.metadata for _ in range(2))
    assert first["correlation_id"] != second["correlation_id"]


@pytest.mark.parametrize("reason", Reason)
def test_broker_error_has_its_code_reason_and_metadata(reason: Reason) -> None:
    outcome = call(Scripted(raising(BrokerError(reason, "What happened.", metadata={"key_id": "key-1"}))))
    assert outcome.code is grpc.StatusCode[REASONS[reason].code]
    assert outcome.details == outcome.status.message == f"What happened. {REASONS[reason].advice}"
    assert outcome.error_info.reason == reason
    correlation_id = {"correlation_id": outcome.call_line["correlation_id"]}
    more = correlation_id if outcome.code is grpc.StatusCode.INTERNAL else {}
    assert dict(outcome.error_info.metadata) == {"key_id": "key-1"} | more
    assert [line["event"] for line in outcome.log] == ["call"]
    assert outcome.call_line["reason"] == reason


def test_internal_error_that_several_calls_share_names_each_call_s_correlation_id() -> None:
    shared = BrokerError(Reason.WRAPPING_PUBLIC_KEY_REJECTED, "What happened.")
    for outcome in (call(Scripted(raising(shared))), call(Scripted(raising(shared)))):
        assert outcome.error_info.metadata["correlation_id"] == outcome.call_line["correlation_id"]
    assert shared.metadata == {}


def test_broker_error_shows_nothing_of_its_cause(capfd: pytest.CaptureFixture[str]) -> None:
    error = KmsError(Reason.KMS_UNAVAILABLE, "No answer.", kms_code="timeout", committed_nothing=False)
    outcome = call(Scripted(raising(note_everywhere(error))))
    printed = capfd.readouterr()
    assert outcome.code is grpc.StatusCode.UNAVAILABLE
    assert CANARY not in f"{outcome.everything()}{printed.out}{printed.err}"


def test_abort_of_a_servicer_of_grpc_s_own_passes() -> None:
    outcome = call(Scripted(), health_pb2.HealthCheckRequest(service="nobody"), method=HEALTH_CHECK)
    assert outcome.code is grpc.StatusCode.NOT_FOUND
    assert outcome.trailing == ()
    assert [(line["event"], line["code"]) for line in outcome.log] == [("call", "NOT_FOUND")]


MALFORMED = {
    "a string that is not UTF-8": b"\x0a\x04\xff\xfe\xfd\xfc",
    "a length beyond the end": b"\x0a\x7fabc",
    "a field number of zero": b"\x00\x01",
    "a group that does not end": b"\x0b",
    "text": f"{CANARY}{CANARY}".encode(),
}


@pytest.mark.parametrize("request_bytes", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_message_is_an_invalid_field_in_our_words(request_bytes: bytes) -> None:
    metrics = Metrics()
    outcome = call(Scripted(), request_bytes, metrics=metrics)
    assert outcome.code is grpc.StatusCode.INVALID_ARGUMENT
    assert outcome.error_info.reason == "INVALID_FIELD"
    assert outcome.details.startswith("request: is not a well-formed message")
    bad_request = BadRequest()
    assert outcome.status.details[1].Unpack(bad_request)
    assert outcome.call_line["code"] == "INVALID_ARGUMENT"
    assert handled(metrics) == {"InvalidArgument": 1.0}
    assert CANARY not in outcome.everything()
    assert "google" not in outcome.details


@pytest.mark.parametrize("answer", [None, CANARY, pb.DescribeKeyRequest(), {"key": CANARY}])
def test_answer_that_is_no_response_is_internal(answer: Any) -> None:
    async def handle(request: Any, context: Any) -> Any:
        return answer

    outcome = call(Scripted(handle), pb.DescribeKeyRequest(key_id="key-1"))
    if isinstance(answer, pb.DescribeKeyRequest):
        assert outcome.code is grpc.StatusCode.OK  # any message can be encoded
        return
    assert outcome.code is grpc.StatusCode.INTERNAL
    assert outcome.error_info.metadata["correlation_id"] in str(outcome.log)
    assert CANARY not in outcome.everything()


def test_request_and_response_arrive_as_they_were_sent() -> None:
    async def handle(request: pb.DescribeKeyRequest, context: Any) -> pb.DescribeKeyResponse:
        response = pb.DescribeKeyResponse()
        response.key.key_id = f"{request.instance}/{request.key_id}"
        return response

    outcome = call(Scripted(handle), pb.DescribeKeyRequest(instance="main", key_id="key-1"))
    assert pb.DescribeKeyResponse.FromString(outcome.response).key.key_id == "main/key-1"


def test_method_that_does_not_exist_leaves_no_trace_in_metrics_or_log() -> None:
    metrics = Metrics()
    outcome = call(Scripted(), method=f"/{SERVICE}/{CANARY}", metrics=metrics)
    assert outcome.code is grpc.StatusCode.UNIMPLEMENTED
    assert outcome.log == []
    assert CANARY not in str(list(metrics.registry.collect()))
    assert handled(metrics) == {}


# Deadline


async def remaining(request: Any, context: Any) -> pb.DescribeKeyResponse:
    response = pb.DescribeKeyResponse()
    response.key.arn = str(CURRENT_CALL.get().deadline.remaining_seconds())
    return response


def seconds_given(timeout_seconds: float | None, **limits: float) -> float:
    outcome = call(Scripted(remaining), timeout_seconds=timeout_seconds, **limits)
    return float(pb.DescribeKeyResponse.FromString(outcome.response).key.arn)


def test_deadline_of_the_caller_is_kept_less_the_time_to_answer() -> None:
    assert 4.0 < seconds_given(8.0) < 8.0  # grpc rounds what goes over the wire, and the way takes its time


def test_deadline_without_one_of_the_caller_is_the_default() -> None:
    assert seconds_given(None, default_seconds=3.5) == 3.5


def test_deadline_is_never_above_the_maximum() -> None:
    assert seconds_given(3600.0, max_seconds=4.5) == 4.5


class Context:
    """What the deadline interceptor asks of grpc."""

    def __init__(self, time_remaining: float | None) -> None:
        self._time_remaining = time_remaining

    def time_remaining(self) -> float | None:
        return self._time_remaining


@pytest.mark.parametrize(
    ("of_the_caller", "expected"),
    [(None, 15.0), (20.06, 20.0), (20.05, 20.0), (20.0, 19.95), (1.0, 0.95), (0.05, 0.0), (0.01, 0.0), (-1.0, 0.0)],
)
def test_deadline_interceptor(of_the_caller: float | None, expected: float) -> None:
    clock = FakeClock()
    interceptor = DeadlineInterceptor(default_seconds=15.0, max_seconds=20.0, monotonic=clock.monotonic)

    async def inner(request: Any, context: Any) -> Deadline:
        assert CURRENT_CALL.get().method == DESCRIBE
        return CURRENT_CALL.get().deadline

    deadline = asyncio.run(interceptor.around(DESCRIBE, inner, None, Context(of_the_caller)))
    assert deadline.remaining_seconds() == pytest.approx(expected)
    clock.advance(0.5)
    assert deadline.remaining_seconds() == pytest.approx(max(0.0, expected - 0.5))


def test_calls_at_the_same_time_do_not_mix() -> None:
    async def scenario() -> list[Outcome]:
        both_here = asyncio.Barrier(2)

        async def handle(request: pb.DescribeKeyRequest, context: Any) -> Any:
            CURRENT_CALL.get().noted.key_id = request.key_id
            await both_here.wait()
            assert CURRENT_CALL.get().noted.key_id == request.key_id
            return pb.DescribeKeyResponse()

        async with serving(grpc_server(Scripted(handle))) as channel:
            sent = [pb.DescribeKeyRequest(key_id=f"key-{number}") for number in range(2)]
            return await asyncio.gather(*(invoke(channel, request) for request in sent))

    with structlog.testing.capture_logs() as log:
        assert [outcome.code for outcome in asyncio.run(scenario())] == [grpc.StatusCode.OK] * 2
    assert sorted(line["key_id"] for line in log) == ["key-0", "key-1"]
    assert len({line["correlation_id"] for line in log}) == 2


# Metrics


def handled(metrics: Metrics) -> dict[str, float]:
    """The count of each code of DescribeKey."""
    [family] = [family for family in metrics.registry.collect() if family.name == "grpc_server_handled"]
    return {
        sample.labels["grpc_code"]: sample.value
        for sample in family.samples
        if sample.name == "grpc_server_handled_total" and sample.labels | LABELS == sample.labels
    }


SPELLING = {
    "OK": "OK",
    "CANCELLED": "Canceled",
    "UNKNOWN": "Unknown",
    "INVALID_ARGUMENT": "InvalidArgument",
    "DEADLINE_EXCEEDED": "DeadlineExceeded",
    "NOT_FOUND": "NotFound",
    "ALREADY_EXISTS": "AlreadyExists",
    "PERMISSION_DENIED": "PermissionDenied",
    "RESOURCE_EXHAUSTED": "ResourceExhausted",
    "FAILED_PRECONDITION": "FailedPrecondition",
    "ABORTED": "Aborted",
    "OUT_OF_RANGE": "OutOfRange",
    "UNIMPLEMENTED": "Unimplemented",
    "INTERNAL": "Internal",
    "UNAVAILABLE": "Unavailable",
    "DATA_LOSS": "DataLoss",
    "UNAUTHENTICATED": "Unauthenticated",
}


def aborting(code: grpc.StatusCode) -> Callable[[Any, Any], Awaitable[Any]]:
    async def handle(request: Any, context: Any) -> Any:
        await context.abort(code, "of grpc's own")

    return handle


def test_spelling_of_every_code_of_grpc_is_known_here() -> None:
    assert {code.name for code in grpc.StatusCode} == set(SPELLING)


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_aborted_call_is_counted_under_its_code_in_the_dashboards_spelling(code: grpc.StatusCode) -> None:
    metrics = Metrics()
    outcome = call(Scripted(aborting(code)), metrics=metrics)
    assert outcome.code is code
    assert handled(metrics) == {SPELLING[code.name]: 1.0}
    assert outcome.call_line["code"] == code.name


@pytest.mark.parametrize(
    ("handle", "code"),
    [
        (None, "OK"),
        (raising(BrokerError(Reason.KEY_NOT_FOUND, "No such CMK.")), "NotFound"),
        (raising(InvalidField("key_id", "is wrong.")), "InvalidArgument"),
        (raising(BrokerError(Reason.DEADLINE_TOO_SHORT, "Too short.")), "DeadlineExceeded"),
        (raising(ValueError()), "Internal"),
    ],
)
def test_call_is_started_handled_and_timed_once(handle: Any, code: str) -> None:
    metrics = Metrics()
    call(Scripted(handle), metrics=metrics)
    value = metrics.registry.get_sample_value
    assert value("grpc_server_started_total", LABELS) == 1.0
    assert handled(metrics) == {code: 1.0}
    assert value("grpc_server_handling_seconds_count", LABELS) == 1.0
    assert value("grpc_server_handled_total", {**LABELS, "grpc_code": code}) == 1.0


def test_call_under_way_is_started_and_not_yet_handled() -> None:
    metrics = Metrics()

    async def handle(request: Any, context: Any) -> Any:
        assert metrics.registry.get_sample_value("grpc_server_started_total", LABELS) == 1.0
        assert handled(metrics) == {}
        return pb.DescribeKeyResponse()

    assert call(Scripted(handle), metrics=metrics).code is grpc.StatusCode.OK


def test_call_that_the_client_gave_up_is_canceled() -> None:
    metrics = Metrics()

    async def scenario() -> None:
        here, gone = asyncio.Event(), asyncio.Event()

        async def handle(request: Any, context: Any) -> Any:
            here.set()
            try:
                await asyncio.sleep(30)
            finally:
                gone.set()

        async with serving(grpc_server(Scripted(handle), metrics=metrics)) as channel:
            rpc = channel.unary_unary(DESCRIBE)(b"")
            await here.wait()
            rpc.cancel()
            await asyncio.wait_for(gone.wait(), 20)
            async with asyncio.timeout(20):
                while not handled(metrics):  # noqa: ASYNC110  # the interceptors learn of it after the handler
                    await asyncio.sleep(0.01)

    with structlog.testing.capture_logs() as log:
        asyncio.run(scenario())
    assert handled(metrics) == {"Canceled": 1.0}
    assert [line["code"] for line in log] == ["CANCELLED"]


# Logging


def test_log_line_of_a_call_has_the_noted_fields_and_no_others() -> None:
    async def handle(request: Any, context: Any) -> Any:
        noted = CURRENT_CALL.get().noted
        for each in fields(Noted):
            setattr(noted, each.name, True if each.type == "bool" else f"a {each.name}")
        return pb.DescribeKeyResponse()

    line = call(Scripted(handle), pb.DescribeKeyRequest(instance=CANARY, key_id=CANARY)).call_line
    always = {"event", "log_level", "method", "code", "duration_ms", "correlation_id"}
    assert set(line) == always | {each.name for each in fields(Noted)}
    assert (line["method"], line["code"], line["log_level"]) == (DESCRIBE, "OK", "info")
    assert CANARY not in str(line)


def test_log_fields_are_the_allow_list_of_the_design() -> None:
    assert {each.name for each in fields(Noted)} == {
        "caller",
        "rule",
        "request_id",
        "instance",
        "key_id",
        "created_key_id",
        "wrapping_algorithm",
        "parameters",
        "validate_only",
        "evidence",
        "kms_request_id",
        "replayed",
    }


def test_log_line_of_a_call_that_noted_nothing_is_short() -> None:
    line = call(Scripted(), pb.DescribeKeyRequest(key_id=CANARY)).call_line
    assert set(line) == {"event", "log_level", "method", "code", "duration_ms", "correlation_id"}


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
def test_health_check_is_logged_at_debug_only(level: str, capfd: pytest.CaptureFixture[str]) -> None:
    before = structlog.get_config()

    async def scenario() -> None:
        async with serving(grpc_server(Scripted())) as channel:
            await invoke(channel, method=HEALTH_CHECK)
            await invoke(channel)

    try:
        configure_logs(level)
        asyncio.run(scenario())
    finally:
        structlog.configure(**before)
    printed = capfd.readouterr().err
    assert (HEALTH_CHECK in printed) == (level == "DEBUG")
    assert DESCRIBE in printed

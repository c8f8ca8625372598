import json
from collections.abc import Callable
from typing import Any

import pytest
from requests import Request

from keybroker.adapters.kms.credentials import Credentials
from keybroker.adapters.kms.failures import timed_out
from keybroker.adapters.kms.transport import Reply, Transport
from keybroker.domain.errors import KmsError
from keybroker.probe.course import Course
from keybroker.probe.findings import Outcome
from keybroker.probe.kms_calls import Exchange, FormBody, KmsCalls
from tests.unit.probe.support import StoppedClock

REQUEST_ID = "8cdf51fd-bcd6-d79a-0ef4-e52c9b5466dc"


class Script(Transport):
    """Gives the answers of a list, one a request."""

    def __init__(self, *answers: Reply | KmsError) -> None:
        self._answers = list(answers)
        self.sent = 0

    def post(self, *args: Any, **kwargs: Any) -> Reply:
        self.sent += 1
        answer = self._answers.pop(0)
        if isinstance(answer, KmsError):
            raise answer
        return answer


def reply(status: int, headers: dict[str, str] | None = None, **body: Any) -> Reply:
    return Reply(status, headers or {}, json.dumps({"RequestId": REQUEST_ID, **body}).encode())


def call(
    action: str,
    *answers: Reply | KmsError,
    clock: StoppedClock | None = None,
    credentials: Callable[[], Credentials] = lambda: Credentials("id", "secret"),
) -> tuple[Exchange, Script]:
    clock, script = clock or StoppedClock(), Script(*answers)
    calls = KmsCalls(
        transport=script,
        credentials=credentials,
        clock=clock,
        course=Course(clock=clock, seconds_budget=1000),
        on_exchange=lambda exchange: None,
    )
    return calls.call(action, {}, what="a test"), script


@pytest.mark.parametrize(
    ("answer", "outcome", "code"),
    [
        (reply(200), Outcome.ACCEPTED, ""),
        (reply(400, Code="InvalidKeyMaterial"), Outcome.REFUSED, "InvalidKeyMaterial"),
        (reply(400, Code="Never.Seen.Before"), Outcome.REFUSED, "Never.Seen.Before"),
        (reply(400, Code="a code\nwith a token in it"), Outcome.REFUSED, "other"),
        (reply(400, Code="x" * 200), Outcome.REFUSED, "other"),
        (reply(403, Code="Forbidden.NoPermission"), Outcome.UNCLEAR, "Forbidden.NoPermission"),
        (reply(400, Code="SignatureNonceUsed"), Outcome.UNCLEAR, "SignatureNonceUsed"),
        (reply(429, Code="Throttling.Unheard"), Outcome.UNCLEAR, "Throttling.Unheard"),
        (reply(500, Code="Never.Seen.Before"), Outcome.UNCLEAR, "Never.Seen.Before"),
        (Reply(200, {}, b"<html>"), Outcome.UNCLEAR, "unreadable"),
        (timed_out(), Outcome.UNCLEAR, "timeout"),
    ],
)
def test_call_says_what_an_answer_proves_and_keeps_its_code(
    answer: Reply | KmsError, outcome: Outcome, code: str
) -> None:
    exchange, script = call("ImportKeyMaterial", answer)
    assert (exchange.evidence.outcome, exchange.evidence.code) == (outcome, code)
    assert script.sent == 1


def test_call_of_a_change_that_got_no_answer_is_not_repeated() -> None:
    exchange, script = call("CreateKey", timed_out())
    assert (script.sent, exchange.committed_nothing) == (1, False)


def test_call_of_a_read_that_got_no_answer_is_repeated() -> None:
    exchange, script = call("DescribeKey", timed_out(), reply(503, Code="ServiceUnavailableTemporary"), reply(200))
    assert (script.sent, exchange.accepted) == (3, True)


def test_call_that_is_throttled_waits_as_long_as_it_is_told() -> None:
    clock = StoppedClock()
    throttled = reply(429, {"x-acs-retry-after": "6500"}, Code="Rejected.Throttling")
    exchange, script = call("CreateKey", throttled, reply(200), clock=clock)
    assert (script.sent, exchange.accepted) == (2, True)
    assert clock.monotonic() == pytest.approx(6.5)


def test_call_that_stays_throttled_gives_up() -> None:
    exchange, script = call("CreateKey", *[reply(429, Code="Rejected.Throttling")] * 5)
    assert (script.sent, exchange.committed_nothing, exchange.accepted) == (5, True, False)


def test_call_with_stale_credentials_is_repeated_with_others() -> None:
    keys = iter([Credentials("old", "secret"), Credentials("new", "secret"), Credentials("new", "secret")])
    stale = reply(404, Code="InvalidAccessKeyId.NotFound")
    exchange, script = call("ScheduleKeyDeletion", stale, reply(200), credentials=lambda: next(keys))
    assert (script.sent, exchange.accepted) == (2, True)


def test_call_with_stale_credentials_and_no_others_is_not_repeated() -> None:
    exchange, script = call("ScheduleKeyDeletion", reply(404, Code="InvalidAccessKeyId.NotFound"))
    assert (script.sent, exchange.evidence.outcome) == (1, Outcome.UNCLEAR)


def test_call_without_readable_credentials_sends_nothing() -> None:
    def unreadable() -> Credentials:
        raise OSError("no file")

    exchange, script = call("CreateKey", credentials=unreadable)
    assert (script.sent, exchange.committed_nothing, exchange.evidence.http_status) == (0, True, None)


def test_repr_of_an_exchange_shows_no_body() -> None:
    exchange, _ = call("GetParametersForImport", reply(200, ImportToken="VG9rZW4="))
    assert exchange.body["ImportToken"] == "VG9rZW4="
    assert "VG9rZW4=" not in repr(exchange)


def test_form_body_moves_the_parameters_before_they_are_signed() -> None:
    """Source: vector C of contract 3.3."""
    seen: list[tuple[Any, Any, Any]] = []

    def sign(prepared: Any) -> Any:
        seen.append((prepared.url, prepared.body, prepared.headers["Content-Type"]))
        return prepared

    query = "KeyId=key-hzz62f1cb66fa42qo0000&WrappingKeySpec=RSA_2048"
    prepared = Request("POST", f"http://127.0.0.1/?{query}", auth=FormBody(sign)).prepare()  # type: ignore[arg-type]
    assert seen == [("http://127.0.0.1/", query, "application/x-www-form-urlencoded")]
    assert prepared.headers["Content-Length"] == str(len(query))

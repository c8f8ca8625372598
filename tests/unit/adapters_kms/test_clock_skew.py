"""How the KMS's clock is measured by its replies, when ours is corrected by it, and who is told."""

import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from keybroker.adapters.kms.client import KmsClient
from keybroker.adapters.kms.clock_skew import ClockSkew, Heard
from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import KmsError, Reason
from keybroker.domain.external_key import NewKey
from keybroker.domain.key_spec import AES_256
from tests.builders import FakeClock
from tests.unit.adapters_kms.support import (
    CMK,
    KEY_ID,
    ScriptedServer,
    client,
    deadline,
    error_body,
    key_body,
    reply_bytes,
    serving,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SKEWED = error_body("InvalidTimeStamp.Expired")


def heard(skew_seconds: float, *, took_seconds: float = 0.0) -> Heard:
    return Heard(NOW + timedelta(seconds=skew_seconds - 0.5), NOW, took_seconds)


def skew(*measured: float) -> tuple[ClockSkew, list[float]]:
    told: list[float] = []
    clock_skew = ClockSkew(instance="main", on_skew=told.append)
    for seconds in measured:
        clock_skew.hear(heard(seconds))
    return clock_skew, told


@given(
    st.floats(-1e6, 1e6),
    st.floats(0, 2),
    st.floats(0, 1),
)
def test_measurement_is_good_to_half_a_second_and_half_the_exchange(
    true_skew: float, took_seconds: float, written_at: float
) -> None:
    kms_time = NOW + timedelta(seconds=true_skew + took_seconds * written_at)
    measured = Heard(kms_time.replace(microsecond=0), NOW, took_seconds).skew_seconds
    assert abs(measured - true_skew) <= 0.5 + took_seconds / 2 + 1e-3


@pytest.mark.parametrize(
    ("measured", "estimate"),
    [
        ([10], 10),
        ([10, 11, 12], 11),
        ([0, 0, 86_400], 0),
        ([0, 0, 86_400, 0, 0], 0),
        ([0, 0, 0, 900, 900, 900], 900),
        ([0, 0, 0, 0, 0, -40, -40, -40], -40),
    ],
    ids=str,
)
def test_estimate_is_the_median_of_the_last_five(measured: list[float], estimate: float) -> None:
    clock_skew, told = skew(*measured)
    assert told[-1] == estimate
    assert len(told) == len(measured)
    assert clock_skew.correction() == timedelta(seconds=estimate)


def test_nothing_is_corrected_before_a_reply_was_heard() -> None:
    assert skew()[0].correction() == timedelta()


@pytest.mark.parametrize(("seconds", "corrected"), [(2.9, 0), (-2.9, 0), (3.1, 3.1), (-3.1, -3.1)])
def test_few_seconds_are_not_corrected(seconds: float, corrected: float) -> None:
    clock_skew, told = skew(seconds)
    assert told == [seconds]
    assert clock_skew.correction() == timedelta(seconds=corrected)


def test_exchange_that_was_too_slow_tells_nothing_unless_the_date_was_refused() -> None:
    clock_skew, told = skew(0, 0, 0)
    clock_skew.hear(heard(900, took_seconds=2.1))
    assert told == [0, 0, 0]
    clock_skew.start_anew(heard(900, took_seconds=2.1))
    assert clock_skew.correction() == timedelta(seconds=900 - 2.1 / 2)


def test_refusal_starts_the_estimate_anew() -> None:
    clock_skew, _ = skew(0, 0, 0, 0, 0)
    clock_skew.start_anew(heard(900))
    clock_skew.hear(heard(901))
    clock_skew.hear(heard(900))
    assert clock_skew.correction() == timedelta(seconds=900)


def test_operator_is_warned_once_and_told_once_that_it_is_over() -> None:
    clock_skew, _ = skew()
    with capture_logs() as logs:
        for seconds in (0, 59, -59, 61, 300, 59, 61, 59, -61, 49, 0, 0, -61):
            clock_skew.start_anew(heard(seconds))
    assert [(line["skew_seconds"], line["log_level"]) for line in logs] == [
        (61, "warning"),
        (49, "warning"),
        (-61, "warning"),
    ]
    assert all(first["event"] != second["event"] for first, second in pairwise(logs))
    assert {line["instance"] for line in logs} == {"main"}


# The client


def describe(kms: KmsClient) -> object:
    return kms.describe_key(KEY_ID, deadline=deadline())


def create(kms: KmsClient) -> object:
    return kms.create_key(NewKey(AES_256), deadline=deadline())


def import_material(kms: KmsClient) -> object:
    return kms.import_key_material(CMK, wrapped_key_material=b"blob", import_token="token", deadline=deadline())


def dated(body: object, *, ahead_seconds: float | None, status: int = 200) -> Callable[[], bytes]:
    """A reply whose Date is by a clock so far ahead; without a Date if that is None."""

    def answer() -> bytes:
        if ahead_seconds is None:
            return reply_bytes(body, status=status)
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=ahead_seconds), usegmt=True)
        return reply_bytes(body, status=status, headers={"Date": date})

    return answer


class Answers:
    """Plays the answers in this order; the last one goes on."""

    def __init__(self, *answers: Callable[[], bytes]) -> None:
        self._answers = list(answers)

    def __call__(self, connection: socket.socket) -> None:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        connection.sendall(answer())


def signed_at(server: ScriptedServer) -> list[float]:
    """How far ahead of us each request's date is, in seconds."""
    dates = [
        line.partition(": ")[2]
        for request in server.requests
        for line in request.decode().split("\r\n")
        if line.lower().startswith("x-acs-date")
    ]
    parsed = [datetime.strptime(each, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC) for each in dates]
    return [(each - datetime.now(UTC)).total_seconds() for each in parsed]


def ahead(kms: KmsClient) -> float:
    return (kms.now() - datetime.now(UTC)).total_seconds()


pytestmark = pytest.mark.usefixtures("loopback")


@pytest.mark.parametrize("seconds", [600, -600, 86_400])
def test_next_request_is_signed_by_the_kmss_clock(seconds: float) -> None:
    told: list[float] = []
    with (
        serving(Answers(dated(key_body(), ahead_seconds=seconds)), keep_alive=True) as server,
        client(server.address, on_skew=told.append) as kms,
    ):
        assert ahead(kms) == pytest.approx(0, abs=0.5)
        describe(kms)
        describe(kms)
        assert ahead(kms) == pytest.approx(seconds, abs=1.5)
    assert signed_at(server) == [pytest.approx(0, abs=3), pytest.approx(seconds, abs=3)]
    assert told == [pytest.approx(seconds, abs=2)] * 2


def test_refusal_by_the_kms_measures_too() -> None:
    answer = dated(error_body("Forbidden.KeyNotFound"), ahead_seconds=600, status=404)
    with serving(Answers(answer)) as server, client(server.address) as kms:
        with pytest.raises(KmsError):
            describe(kms)
        assert ahead(kms) == pytest.approx(600, abs=1.5)


NOT_THE_KMS: dict[str, Callable[[], bytes]] = {
    "gateway": dated(b"<html>", ahead_seconds=600, status=502),
    "JSON of another": dated({"message": "no"}, ahead_seconds=600, status=403),
    "unknown code": dated(error_body("Some.Code"), ahead_seconds=600, status=400),
    "no date": dated(key_body(), ahead_seconds=None),
    "date unreadable": lambda: reply_bytes(key_body(), headers={"Date": "tomorrow"}),
}


@pytest.mark.parametrize("answer", NOT_THE_KMS.values(), ids=NOT_THE_KMS)
def test_what_is_not_certainly_the_kmss_answer_with_its_date_measures_nothing(answer: Callable[[], bytes]) -> None:
    told: list[float] = []
    with serving(Answers(answer)) as server, client(server.address, on_skew=told.append) as kms:
        try:
            describe(kms)
        except KmsError as error:
            assert error.reason is not Reason.KMS_CLOCK_SKEW  # noqa: PT017  # both ways are tested
    assert told == []


@pytest.mark.parametrize("date", ["Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 GMT"])
def test_date_at_the_end_of_time_does_not_keep_the_next_request_from_being_signed(date: str) -> None:
    """A second after it there is no time: the broker would never send anything again."""
    answer = Answers(lambda: reply_bytes(key_body(), headers={"Date": date}))
    with serving(answer, keep_alive=True) as server, client(server.address) as kms:
        for _ in range(3):
            describe(kms)
    assert signed_at(server) == [pytest.approx(0, abs=3)] * 3


@pytest.mark.parametrize("seconds", [1200, -1200])
def test_read_refused_for_its_date_is_sent_once_more_with_the_kmss(seconds: float) -> None:
    refused = dated(SKEWED, ahead_seconds=seconds, status=400)
    good = dated(key_body(), ahead_seconds=seconds)
    with serving(Answers(refused, good), keep_alive=True) as server, client(server.address) as kms:
        describe(kms)
    assert signed_at(server) == [pytest.approx(0, abs=3), pytest.approx(seconds, abs=3)]


@pytest.mark.parametrize("send", [import_material, create])
def test_import_and_creation_refused_for_their_date_are_told_and_the_next_is_right(
    send: Callable[[KmsClient], object],
) -> None:
    refused = dated(SKEWED, ahead_seconds=1200, status=400)
    good = dated(key_body(), ahead_seconds=1200)
    with serving(Answers(refused, good), keep_alive=True) as server, client(server.address) as kms:
        with pytest.raises(KmsError) as caught:
            send(kms)
        assert (caught.value.reason, caught.value.committed_nothing) == (Reason.KMS_CLOCK_SKEW, True)
        assert len(server.requests) == 1
        send(kms)
    assert signed_at(server) == [pytest.approx(0, abs=3), pytest.approx(1200, abs=3)]


FINAL: dict[str, Callable[[], bytes]] = {
    "still refused": dated(SKEWED, ahead_seconds=1200, status=400),
    "no date": dated(SKEWED, ahead_seconds=None, status=400),
    "date is ours": dated(SKEWED, ahead_seconds=0, status=400),
    "proves nothing": dated(SKEWED, ahead_seconds=1200, status=500),
}


@pytest.mark.parametrize(("name", "requests"), [("still refused", 2), ("no date", 1), ("date is ours", 1)])
def test_refusal_that_another_date_does_not_help_is_told(name: str, requests: int) -> None:
    with serving(Answers(FINAL[name]), keep_alive=True) as server, client(server.address) as kms:
        with pytest.raises(KmsError) as caught:
            describe(kms)
        assert caught.value.reason is Reason.KMS_CLOCK_SKEW
        assert len(server.requests) == requests


@pytest.mark.parametrize(("before", "after", "requests"), [(0, 1200, 2), (1200, 0, 2), (1200, 1200.7, 1)])
def test_refusal_counts_for_more_than_what_was_heard_before(before: float, after: float, requests: int) -> None:
    heard_before = [dated(key_body(), ahead_seconds=before)] * 5
    refused = dated(SKEWED, ahead_seconds=after, status=400)
    with serving(Answers(*heard_before, refused), keep_alive=True) as server, client(server.address) as kms:
        for _ in heard_before:
            describe(kms)
        with pytest.raises(KmsError):
            describe(kms)
        assert signed_at(server)[5:] == [pytest.approx(skew, abs=3) for skew in (before, after)][:requests]


def test_refusal_with_a_status_that_proves_nothing_is_sent_once() -> None:
    with serving(Answers(FINAL["proves nothing"]), keep_alive=True) as server, client(server.address) as kms:
        with pytest.raises(KmsError) as caught:
            describe(kms)
        assert not caught.value.committed_nothing
        assert len(server.requests) == 1


def test_deadline_that_is_over_after_the_refusal_ends_the_call() -> None:
    clock = FakeClock()

    def slow() -> bytes:
        clock.advance(19.98)
        return dated(SKEWED, ahead_seconds=1200, status=400)()

    with serving(Answers(slow), keep_alive=True) as server, client(server.address) as kms:
        with pytest.raises(KmsError) as caught:
            kms.describe_key(KEY_ID, deadline=Deadline.after(20.0, monotonic=clock.monotonic))
        assert caught.value.reason is Reason.KMS_CLOCK_SKEW
        assert len(server.requests) == 1

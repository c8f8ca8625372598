"""A clock that moves when it is slept on, and values to build reports from."""

from datetime import UTC, datetime, timedelta
from typing import Any

from keybroker.probe.findings import Answer, Evidence, Outcome, Report

START = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def _do_nothing() -> None:
    return


class StoppedClock:
    def __init__(self) -> None:
        self._seconds = 0.0
        self.when_slept = _do_nothing

    def now(self) -> datetime:
        return START + timedelta(seconds=self._seconds)

    def monotonic(self) -> float:
        return self._seconds

    def sleep(self, seconds: float) -> None:
        self._seconds += seconds
        self.when_slept()


def evidence(**changes: Any) -> Evidence:
    values: dict[str, Any] = {
        "operation": "ImportKeyMaterial",
        "what": "other material",
        "outcome": Outcome.REFUSED,
        "http_status": 400,
        "code": "InvalidKeyMaterial",
        "request_id": "8cdf51fd-bcd6-d79a-0ef4-e52c9b5466dc",
        "sent_at": 1.0,
        "answered_at": 1.25,
    }
    return Evidence(**(values | changes))


def report(*answers: Answer, **changes: Any) -> Report:
    values: dict[str, Any] = {
        "instance": "main",
        "region": "cn-hangzhou",
        "dkms_instance_id": "kst-example",
        "run_id": "0" * 32,
        "started_at": START,
        "finished_at": START + timedelta(seconds=7),
        "ended": "completed",
        "calls": 33,
        "answers": answers,
        "cmks": (),
        "unaccounted": (),
    }
    return Report(**(values | changes))

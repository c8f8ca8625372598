"""Runs of the probe against an emulator whose time passes as fast as the probe waits."""

import time
from collections.abc import Callable
from typing import Any

from keybroker.adapters.clock import SystemClock
from keybroker.adapters.kms.credentials import Credentials
from keybroker.probe.course import Course
from keybroker.probe.findings import Answer, Interval, Report
from keybroker.probe.run import Probe, Target
from kms_emulator import Emulator
from kms_emulator.keys import Key
from tests.integration.conftest import ACCESS_KEY_ID, ACCESS_KEY_SECRET, broker_settings

THROWAWAY = "keybroker probe-kms"


class WaitingMovesTime(SystemClock):
    """The emulator's clock, which moves when the probe sleeps."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator

    def now(self) -> Any:
        return self._emulator.clock.now()

    def monotonic(self) -> float:
        return time.monotonic() + self._emulator.clock.offset_seconds

    def sleep(self, seconds: float) -> None:
        self._emulator.clock.advance(seconds)


class Run:
    """One finished run: the report and everything that was said on the way."""

    def __init__(self, report: Report, said: list[str]) -> None:
        self.report = report
        self.said = said
        self.answers = {answer.question: answer for answer in report.answers}

    def __getitem__(self, question: str) -> Answer:
        return self.answers[question]

    @property
    def readings(self) -> dict[str, Any]:
        return {name: position for answer in self.report.answers for name, position in answer.readings.items()}

    def agrees_with(self, emulator: Emulator) -> None:
        """Every position that is named is the emulator's; an interval has to hold the switch's value."""
        switches = emulator.readings.to_mapping()
        for name, position in self.readings.items():
            if isinstance(position, Interval):
                assert position.at_least <= switches[name], name
                assert position.at_most is None or switches[name] <= position.at_most, name
            else:
                assert position == switches[name], name


def run_probe(
    emulator: Emulator,
    *,
    seconds_budget: float = 300,
    clock: SystemClock | None = None,
    before_each_request: Callable[[int, Course], None] = lambda number, course: None,
    **instance: Any,
) -> Run:
    """A run; `before_each_request` is told the number of the request, from 1."""
    clock = clock or WaitingMovesTime(emulator)
    course = Course(clock=clock, seconds_budget=seconds_budget)
    requests, said = [0], list[str]()

    def credentials() -> Credentials:
        requests[0] += 1
        before_each_request(requests[0], course)
        return Credentials(ACCESS_KEY_ID, ACCESS_KEY_SECRET, "")

    settings = broker_settings(emulator, instance=instance).kms.instances["main"]
    target = Target(name="main", settings=settings, credentials=credentials)
    return Run(Probe(target=target, clock=clock, course=course, say=said.append).run(), said)


def throwaways(emulator: Emulator) -> list[Key]:
    """Every CMK of the emulator that a probe made: from the emulator, not from the report."""
    kms = emulator._kms
    return [key for key in kms.keyring.all(kms.clock.now()) if key.description.startswith(THROWAWAY)]


def unscheduled(emulator: Emulator) -> set[str]:
    """Those of them that are not scheduled for deletion."""
    return {key.key_id for key in throwaways(emulator) if key.state != "PendingDeletion"}

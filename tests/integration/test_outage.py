"""The KMS is gone, then back: fast failures that say when to come again, few attempts, service soon after.

KEYBROKER_OUTAGE_SECONDS sets how long it is gone: 6 here, 60 in `make soak`.
"""

import os
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from keybroker_client import KeyBrokerClient, KeyBrokerError
from kms_emulator import Emulator
from tests.integration.processes import BrokerProcess

OUTAGE_SECONDS = float(os.environ.get("KEYBROKER_OUTAGE_SECONDS", "6"))
CALLERS = 8
PAUSE_SECONDS = 0.05
PROBE_SECONDS = 0.1
FAST_SECONDS = 0.3
STALLED_SECONDS = 0.15  # of a probe of /livez, or between two: then it is the machine that is slow
ATTEMPTS_BEFORE = 8 + CALLERS  # FAILURES of the circuit, and one more of each caller that was under way
RETRY_RESERVE = 10
ATTEMPTS_A_SECOND = 1.0  # probes: every 2 s, sooner at first


class SilentListener:
    """Takes the KMS's place on its port. `is_silent`: connections stay unanswered; else they are closed at once."""

    def __init__(self, port: int, *, is_silent: bool) -> None:
        self.attempts = 0
        self._is_silent = is_silent
        self._held: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", port), backlog=256)
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.attempts += 1
            if self._is_silent:
                self._held.append(connection)
            else:
                connection.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for connection in self._held:
            connection.close()


@dataclass(frozen=True)
class Ended:
    """One call of the load: when it began, how long it took, and its error."""

    at: float
    seconds: float
    error: KeyBrokerError | None


class Load:
    """Callers that describe a CMK again and again, and a probe of /livez, until `end`."""

    def __init__(self, broker: BrokerProcess, key_id: str) -> None:
        self.ended: list[Ended] = []
        self.livez_seconds: list[float] = []
        self.stalls: list[tuple[float, float]] = []
        self._broker = broker
        self._key_id = key_id
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]
        self._threads.append(threading.Thread(target=self._probe))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        with KeyBrokerClient(self._broker.address, retries=0) as client:
            while not self._stop.wait(PAUSE_SECONDS):
                at, error = time.monotonic(), None
                try:
                    client.describe_key(key_id=self._key_id, timeout_seconds=10)
                except KeyBrokerError as failure:
                    error = failure
                self.ended.append(Ended(at, time.monotonic() - at, error))

    def _probe(self) -> None:
        before = time.monotonic()
        while not self._stop.wait(PROBE_SECONDS):
            started = time.monotonic()
            with urllib.request.urlopen(f"{self._broker.http_url}/livez", timeout=20) as reply:
                assert reply.status == 200
            ended = time.monotonic()
            self.livez_seconds.append(ended - started)
            if ended - before > PROBE_SECONDS + STALLED_SECONDS:
                self.stalls.append((before, ended))
            before = ended

    def is_slow(self, call: Ended) -> bool:
        """Whether it took long while the machine did not stand still."""
        ended_at = call.at + call.seconds
        stalled = any(call.at < end and begin < ended_at for begin, end in self.stalls)
        return call.seconds > FAST_SECONDS and not stalled


@contextmanager
def running(emulator: Emulator, folder: Path) -> Iterator[tuple[BrokerProcess, Load]]:
    key_id = emulator.create_key()
    with BrokerProcess(folder, emulator, instance={"read_timeout_seconds": 1.0}) as broker:
        load = Load(broker, key_id)
        load.start()
        try:
            yield broker, load
        finally:
            load.end()


def wait_until(condition: Callable[[], bool], seconds: float) -> float:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds
        time.sleep(0.02)
    return time.monotonic() - started


@pytest.mark.parametrize("is_silent", [False, True], ids=["closes", "silent"])
def test_outage_costs_few_attempts_and_service_is_back_soon(
    make_emulator: Callable[..., Emulator], tmp_path: Path, *, is_silent: bool
) -> None:
    emulator = make_emulator()
    port = int(emulator.endpoint.rpartition(":")[2])
    with running(emulator, tmp_path) as (_, load):
        wait_until(lambda: len(load.ended) > 3 * CALLERS, seconds=60)
        emulator.stop()
        gone_at = time.monotonic()
        listener = SilentListener(port, is_silent=is_silent)
        time.sleep(OUTAGE_SECONDS)
        listener.close()
        back_at = time.monotonic()
        emulator.start()
        wait_until(lambda: load.ended[-1].error is None, seconds=5)
        served_at = time.monotonic()
        time.sleep(0.5)
    settled = gone_at + (3.0 if is_silent else 2.0)
    during = [call for call in load.ended if settled < call.at < back_at - 1.0]
    assert len(during) > 10 * CALLERS
    assert {call.error.reason for call in during if call.error} == {"KMS_UNAVAILABLE"}
    assert all(call.error and call.error.retry_after_seconds for call in during)
    slow = [call for call in during if load.is_slow(call)]
    assert len(slow) <= (OUTAGE_SECONDS if is_silent else 1)  # the probes wait for their time-out
    assert listener.attempts <= ATTEMPTS_BEFORE + RETRY_RESERVE + CALLERS + ATTEMPTS_A_SECOND * OUTAGE_SECONDS
    assert served_at - back_at < 5
    assert all(call.error is None for call in load.ended if call.at > served_at)
    assert load.livez_seconds
    assert sum(seconds > 0.5 for seconds in load.livez_seconds) <= 2  # each second of an outage has ten of them

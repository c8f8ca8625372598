"""One candidate of shell_servers from outside: occupies its workers, calls it, has it probed."""

import json
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import grpc

from tests.benchmarks import processes
from tests.benchmarks.report import percentiles

_MODULE = "tests.benchmarks.shell_"
_EXTRA_CALLS = 16
_ECHO_CALLERS = 16
_PATIENCE_SECONDS = 20.0

Figures = dict[str, Any]


class Candidate:
    """A running server, and a client of it."""

    def __init__(self, process: "subprocess.Popen[str]", workers: int) -> None:
        self._process = process
        self._workers = workers
        self.port: int = json.loads(self._line())["port"]
        channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")
        self._block = channel.unary_unary("/shell.Shell/Block")
        self._echo = channel.unary_unary("/shell.Shell/Echo")
        self.close = channel.close

    def waiting(self, seconds: float) -> Figures:
        """Every worker waits; health is probed; some calls more than there are workers; memory."""
        calls = self._occupied(seconds + _PATIENCE_SECONDS, "wait")
        memory = self._memory()
        with self._probing(seconds) as probe:
            overload = self._one_too_many()
            health = _health(probe, seconds)
        self._release(calls)
        return {
            "health": health,
            "overload": {
                "median_ms": median(latency for latency, _ in overload),
                "codes": Counter(code for _, code in overload),
            },
            "memory": memory,
        }

    def computing(self, seconds: float) -> Figures:
        """Every worker waits and computes in turn, half a core's worth; health is probed."""
        calls = self._occupied(seconds + _PATIENCE_SECONDS, "spin")
        with self._probing(seconds) as probe:
            health = _health(probe, seconds)
        self._release(calls)
        return {"health": health}

    def rush(self, seconds: float) -> Figures:
        """Every worker waits, and what they wait for comes to all at once; health is probed around that moment."""
        calls = self._occupied(seconds + _PATIENCE_SECONDS, "rush")
        with self._probing(seconds) as probe:
            time.sleep(seconds / 4)
            self._release(calls)
            return {"health": _health(probe, seconds)}

    def cancelled(self, seconds: float) -> Figures:
        """All clients go away while the workers are busy and some calls more are waiting, if they may wait."""
        before = self._told("count")["started"]
        calls = self._occupied(seconds, "wait")
        waiting = [self._block.future(_order(0)) for _ in range(_EXTRA_CALLS)]
        time.sleep(0.2)
        for call in [*calls, *waiting]:
            call.cancel()
        cancelled_at = time.monotonic()
        tries = self._until_served()
        freed_seconds = time.monotonic() - cancelled_at
        time.sleep(0.5)
        counted = self._told("count")
        return {
            "work_left_seconds": seconds - 0.2,
            "next_call_served_after_seconds": freed_seconds,
            "tries": tries,
            "calls_run_for_nobody": counted["started"] - before - self._workers - 1,
        }

    def echo(self, seconds: float) -> Figures:
        """A handler that does nothing, called by several threads."""
        end = time.monotonic() + seconds

        def call_on(_: int) -> int:
            count = 0
            while time.monotonic() < end:
                if self._echo(b"hello", timeout=_PATIENCE_SECONDS) != b"hello":
                    raise processes.ProcessError("a wrong echo")
                count += 1
            return count

        cpu_before, started = processes.cpu_seconds(self._process.pid), time.monotonic()
        number = min(_ECHO_CALLERS, self._workers // 2)
        with ThreadPoolExecutor(number) as callers:
            count = sum(callers.map(call_on, range(number)))
        cpu = processes.cpu_seconds(self._process.pid) - cpu_before
        return {"calls_per_second": count / (time.monotonic() - started), "cpu_us": 1e6 * cpu / count}

    def _occupied(self, seconds: float, mode: str) -> list[Any]:
        """Calls that keep every worker busy from now on."""
        expected = self._told("count")["started"] + self._workers
        calls = [self._block.future(_order(seconds, mode)) for _ in range(self._workers)]
        _await(lambda: self._told("count")["started"] == expected)
        return calls

    def _release(self, calls: list[Any]) -> None:
        self._told("release")
        for call in calls:
            call.result(_PATIENCE_SECONDS)

    @contextmanager
    def _probing(self, seconds: float) -> Iterator["subprocess.Popen[str]"]:
        """A shell_probe that has begun."""
        with subprocess.Popen(
            [sys.executable, "-m", f"{_MODULE}probe", str(self.port), str(seconds)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=processes.ROOT,
        ) as process:
            if process.stdout is None or process.stdout.readline() != "ready\n":
                raise processes.ProcessError("the probe does not start")
            yield process

    def _one_too_many(self) -> list[tuple[float, str]]:
        def call_once(_: int) -> tuple[float, str]:
            started, code = time.perf_counter(), "OK"
            try:
                self._block(_order(0), timeout=1.0)
            except grpc.RpcError as error:
                code = error.code().name
            return 1000 * (time.perf_counter() - started), code

        return [call_once(number) for number in range(4)]

    def _until_served(self) -> int:
        tries = 0
        while True:
            tries += 1
            try:
                self._block(_order(0), timeout=_PATIENCE_SECONDS)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
                time.sleep(0.02)
            else:
                return tries

    def _memory(self) -> Figures:
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        rss, threads = re.search(r"VmRSS:\s+(\d+)", status), re.search(r"Threads:\s+(\d+)", status)
        return {"rss_mib": int(rss[1]) / 1024 if rss else 0.0, "threads": int(threads[1]) if threads else 0}

    def _told(self, line: str) -> dict[str, int]:
        if self._process.stdin is None:
            raise processes.ProcessError("a server without pipes")
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return json.loads(self._line())

    def _line(self) -> str:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise processes.ProcessError("a server ended early, see its error above")
        return line


@contextmanager
def running(name: str, workers: int) -> Iterator[Candidate]:
    """Starts a candidate."""
    with processes.conversation([f"{_MODULE}servers", name, str(workers)]) as process:
        candidate = Candidate(process, workers)
        try:
            yield candidate
        finally:
            candidate.close()


def _health(probe: "subprocess.Popen[str]", seconds: float) -> Figures:
    answers = json.loads(probe.communicate(timeout=seconds + _PATIENCE_SECONDS)[0])
    latencies = [latency for latency, _ in answers]
    p50, p99 = percentiles(latencies)
    answered = sum(code == "OK" for _, code in answers)
    return {
        "p50_ms": p50,
        "p99_ms": p99,
        "max_ms": max(latencies),
        "probes": len(answers),
        "ok_percent": 100 * answered / len(answers),
    }


def _order(seconds: float, mode: str = "wait") -> bytes:
    return json.dumps({"seconds": seconds, "mode": mode}).encode()


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise processes.ProcessError("the workers don't get busy")
        threading.Event().wait(0.02)

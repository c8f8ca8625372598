"""Brokers that die or pause at a named place: `python -m tests.integration.crashing_broker`.

It loads the broker once, then forks a process for each order that it reads, one JSON object a line:

    {"start": {"config": FILE, "log": FILE, "stop": {...} or null}}   answers {"pid": N}
    {"status": PID}   answers {"status": null while it runs, then the exit status, negative for a signal}

A stop is {"place": NAME, "nth": N, "seconds": S, "reached": FILE, "go_on": FILE or ""}: the N-th time that the place
is reached, S seconds later, the process kills itself; with `go_on` the thread waits instead until that file is there.
Either way it first makes the file `reached`. The places are those of keybroker/usecases/rows.py. At the end of its
input it kills its brokers.
"""

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from keybroker.app import App, serve
from keybroker.settings import load_settings
from keybroker.telemetry.logs import configure_logs

_POLL_SECONDS = 0.005


class Stopper:
    """The `at` hook."""

    def __init__(self, stop: Mapping[str, Any]) -> None:
        self._stop = stop
        self._lock = threading.Lock()
        self._left = int(stop["nth"])

    def __call__(self, place: str) -> None:
        """Told by the broker of each place that it comes to."""
        if place != self._stop["place"] or not self._is_the_one():
            return
        Path(self._stop["reached"]).touch()
        time.sleep(self._stop["seconds"])
        if not self._stop["go_on"]:
            os.kill(os.getpid(), signal.SIGKILL)
        while not Path(self._stop["go_on"]).exists():
            time.sleep(_POLL_SECONDS)

    def _is_the_one(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left == 0


def main() -> None:
    """Reads orders until its input ends."""
    running: set[int] = set()
    try:
        for line in sys.stdin:
            order = json.loads(line)
            if "start" in order:
                pid = _forked(order["start"])
                running.add(pid)
                _say({"pid": pid})
            else:
                _say({"status": _status(order["status"], running)})
    finally:
        for pid in running:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _forked(order: Mapping[str, Any]) -> int:
    pid = os.fork()
    if pid == 0:
        _run(order)
    return pid


def _run(order: Mapping[str, Any]) -> NoReturn:
    """The child: a broker as `keybroker serve` runs it, and nothing else."""
    try:
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(0, 1)
        os.dup2(os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 2)
        settings = load_settings(Path(order["config"]))
        configure_logs(settings.logs.level)
        at: Callable[[str], None] | None = Stopper(order["stop"]) if order["stop"] else None
        asyncio.run(serve(App(settings, at=at)))
        os._exit(0)
    except BaseException as error:  # noqa: BLE001  # the parent's stack must not unwind in the child
        sys.stderr.write(f"{error!r}\n")
        sys.stderr.flush()
        os._exit(1)


def _status(pid: int, running: set[int]) -> int | None:
    if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        return None
    running.discard(pid)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _say(answer: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

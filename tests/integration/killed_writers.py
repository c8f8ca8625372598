"""Processes that write an audit log until they are killed: `python -m tests.integration.killed_writers FILE SEED N`.

It forks N of them, one after the other, and kills each at a random moment. Printed is a JSON list of the ids of the
events whose write() had returned.
"""

import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from random import Random
from typing import NoReturn

from keybroker.adapters.audit.log import ChainedAuditLog
from keybroker.adapters.clock import SystemClock
from keybroker.domain.audit import AuditEvent
from keybroker.telemetry.logs import configure_logs


def main() -> None:
    """Prints the ids."""
    configure_logs("INFO")
    file, seed, count = sys.argv[1:]
    random = Random(int(seed))
    told: list[str] = []
    for number in range(int(count)):
        told += _life(Path(file), random, number)
    print(json.dumps(told))  # noqa: T201


def _life(file: Path, random: Random, number: int) -> list[str]:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _write(file, Random(number), writer, f"{number}")
    os.close(writer)
    try:
        said = _read_until_first(reader)
        ends_at = time.monotonic() + random.uniform(0, 0.08)
        while (left := ends_at - time.monotonic()) > 0:
            if select.select([reader], [], [], left)[0]:
                said += os.read(reader, 65536)
        os.kill(pid, signal.SIGKILL)
        while chunk := os.read(reader, 65536):
            said += chunk
    finally:
        os.close(reader)
        os.waitpid(pid, 0)
    return said.decode().split("\n")[:-1]


def _read_until_first(reader: int) -> bytes:
    """So that each has begun; how far it then comes is chance."""
    return os.read(reader, 65536)


def _write(file: Path, random: Random, writer: int, name: str) -> NoReturn:
    """Batches of up to 40 long lines, each by one write."""
    try:
        log = ChainedAuditLog(file=file, stdout=None, clock=SystemClock(), version="1.0")
        log.open()
        number = 0
        while True:
            fields = {"event": "before", "text": "é" * 500}
            events = [AuditEvent(f"{name}-{number + one}", fields) for one in range(random.randrange(1, 40))]
            number += len(events)
            log.write(events)
            os.write(writer, "".join(f"{event.id}\n" for event in events).encode())
    finally:
        os._exit(1)


if __name__ == "__main__":
    main()

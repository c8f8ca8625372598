"""A process of its own over a ledger's files: what it prints has returned. `python -m tests.unit.ledger.process`."""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import structlog

from keybroker.domain.attempt import Attempt
from keybroker.domain.errors import BrokerError, Reason
from keybroker.ports import CmkHeld, StaleVersion
from tests.unit.ledger.support import Files, attempt, cmk, prepared


def write(files: Files, name: str) -> None:
    """New rows until it is killed."""
    ledger = files.ledger()
    number = 0
    while True:
        number += 1
        row = ledger.insert(attempt(f"{name}-{number}"))
        _say(row.request_id, row.version)
        row = ledger.update(prepared(row))
        _say(row.request_id, row.version)


def claim(files: Files, name: str) -> None:
    """The same CMKs as somebody else."""
    ledger = files.ledger()
    for number in range(100):
        try:
            _written(partial(ledger.insert, attempt(f"{name}-{number}", cmk=cmk(f"key-{number}"))))
        except CmkHeld:
            _say("held", number)
        else:
            _say("won", number)


def count(files: Files, name: str) -> None:
    """Adds one to one row, a hundred times."""
    ledger = files.ledger()
    for _ in range(100):
        while True:
            row = ledger.find("jwt:caller", "request-1")
            if row is None:
                raise ValueError(name)
            try:
                written = _written(partial(ledger.update, replace(row, sends=row.sends + 1)))
            except StaleVersion:
                continue
            break
        _say(written.version)


def _written(write: Callable[[], Attempt]) -> Attempt:
    """What it returns, once the ledger is free: the other process may be stalled while it holds it."""
    while True:
        try:
            return write()
        except BrokerError as error:
            if error.reason is not Reason.LEDGER_UNAVAILABLE:
                raise


def _say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    what, folder, who = sys.argv[1:]
    {"write": write, "claim": claim, "count": count}[what](Files(Path(folder)), who)

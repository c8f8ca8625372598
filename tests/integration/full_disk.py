"""An audit log on a disk that becomes full: `python -m tests.integration.full_disk FOLDER`, on a small tmpfs.

Prints a JSON object of what was seen. The disk is filled by a file beside the log.
"""

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from keybroker.adapters.audit.log import ChainedAuditLog
from keybroker.adapters.audit.reading import verify
from keybroker.adapters.clock import SystemClock
from keybroker.domain.audit import AuditEvent
from keybroker.domain.errors import BrokerError
from keybroker.telemetry.logs import configure_logs

_MOST = 64 * 1024


def main() -> None:
    """Prints what was seen."""
    configure_logs("INFO")
    folder = Path(sys.argv[1])
    print(json.dumps({"running": running(folder), "starting": starting(folder)}))  # noqa: T201


def running(folder: Path) -> dict[str, Any]:
    """The disk becomes full while a log is written."""
    file = folder / "running.jsonl"
    with closing(_log(file)) as log:
        log.open()
        fill(folder)
        number, reasons, size = 0, [], 0
        while len(reasons) < 3:
            assert number < _MOST / 100, "the disk does not become full"
            size = size if reasons else file.stat().st_size
            reason = _try(log, number)
            reasons += [reason] if reason else []
            number += not reason
        grown = file.stat().st_size - size
        sound_when_full = _is_sound(file, log.head)
        free(folder)
        last = _try(log, number)
    ids = [json.loads(line)["id"] for line in file.read_bytes().splitlines()][1:]
    expected = [f"event-{one}" for one in range(number + 1)]
    return {
        "reasons": reasons,
        "grown": grown,
        "sound_when_full": sound_when_full,
        "afterwards": last,
        "sound_afterwards": _is_sound(file, log.head),
        "each_once": ids == expected,
    }


def starting(folder: Path) -> dict[str, Any]:
    """The disk is full when the process starts."""
    file = folder / "starting.jsonl"
    fill(folder)
    with closing(_log(file)) as log:
        log.open()
        while_full = _try(log, 0)
        free(folder)
        afterwards = _try(log, 0)
    lines = [json.loads(line)["event"] for line in file.read_bytes().splitlines()]
    return {"while_full": while_full, "afterwards": afterwards, "lines": lines, "sound": _is_sound(file, log.head)}


def fill(folder: Path) -> None:
    """Until not one byte goes in. Raises AssertionError if this is no small disk."""
    with (folder / "filler").open("wb", buffering=0) as filler:
        for _ in range(1024):
            try:
                filler.write(bytes(1024))
            except OSError:
                return
    raise AssertionError("this is no small disk")


def free(folder: Path) -> None:
    """There is space again."""
    (folder / "filler").unlink()


def _log(file: Path) -> ChainedAuditLog:
    return ChainedAuditLog(file=file, stdout=None, clock=SystemClock(), version="1.0")


def _try(log: ChainedAuditLog, number: int) -> str:
    """The reason that it failed for."""
    try:
        log.write([AuditEvent(f"event-{number}", {"event": "before", "text": "a" * 200})])
    except BrokerError as error:
        return error.reason.value
    return ""


def _is_sound(file: Path, head: str) -> bool:
    with file.open("rb") as lines:
        return verify([(file.name, lines)], heads=[head]).is_sound


if __name__ == "__main__":
    main()

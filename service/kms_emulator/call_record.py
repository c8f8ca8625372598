"""What the emulator was asked: counters by operation and a bounded log of answers."""

import threading
from collections import Counter, deque
from typing import NamedTuple

CALL_LOG_LENGTH = 10_000


class LoggedCall(NamedTuple):
    """One answered request: `http_status` is 0 when a fault dropped the connection."""

    operation: str
    key_id: str
    http_status: int


class CallRecord:
    """How often each operation was asked for, and the last 10,000 answers in order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()
        self._log: deque[LoggedCall] = deque(maxlen=CALL_LOG_LENGTH)

    def count(self, operation: str) -> None:
        """One request has arrived that names `operation`."""
        with self._lock:
            self._calls[operation] += 1

    def answered(self, call: LoggedCall) -> None:
        """One answer is about to leave."""
        with self._lock:
            self._log.append(call)

    def calls(self) -> Counter[str]:
        """A copy of the counters."""
        with self._lock:
            return Counter(self._calls)

    def log(self) -> list[LoggedCall]:
        """A copy of the log."""
        with self._lock:
            return list(self._log)

    def reset(self) -> None:
        """Start counting and logging afresh."""
        with self._lock:
            self._calls.clear()
            self._log.clear()

"""The dial itself: which faults are in force, and which of them strike a call."""

import random
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kms_emulator.faults import ANY_OPERATION, Fault, When


@dataclass(slots=True)
class _Armed:
    fault: Fault
    seen: int = 0
    struck: int = 0

    @property
    def spent(self) -> bool:
        return 0 < self.fault.count <= self.struck


class FaultDial:
    """The faults in force, in the order they were added; safe to use from many threads."""

    def __init__(self, faults: Iterable[Fault] = (), *, seed: int | None = None) -> None:
        self._lock = threading.Lock()
        self._random = random.Random(seed)  # noqa: S311 -- chance of a fault, nothing secret
        self._armed: list[_Armed] = [_Armed(fault) for fault in faults]

    def add(self, fault: Fault) -> None:
        """Arm one more fault."""
        with self._lock:
            self._armed.append(_Armed(fault))

    def clear(self) -> None:
        """Disarm all."""
        with self._lock:
            self._armed.clear()

    def armed(self) -> list[tuple[Fault, int]]:
        """Faults that may still strike, each with how often it has struck."""
        with self._lock:
            return [(entry.fault, entry.struck) for entry in self._armed]

    def strike(self, operation: str, when: When) -> list[Fault]:
        """The faults that strike this call at this moment, those of the public key left out."""
        return self._strike(lambda fault: not fault.public_key and fault.when == when, operation)

    def strike_public_key(self, operation: str) -> Fault | None:
        """The public-key fault that strikes this call, if any."""
        return next(iter(self._strike(lambda fault: fault.public_key, operation)), None)

    def _strike(self, concerns: Callable[[Fault], bool], operation: str) -> list[Fault]:
        with self._lock:
            matching = [
                entry
                for entry in self._armed
                if entry.fault.operation in {ANY_OPERATION, operation} and concerns(entry.fault)
            ]
            struck = [entry.fault for entry in matching if self._hits(entry)]
            self._armed = [entry for entry in self._armed if not entry.spent]
            return struck

    def _hits(self, entry: _Armed) -> bool:
        entry.seen += 1
        if entry.seen <= entry.fault.skip or self._random.random() >= entry.fault.probability:
            return False
        entry.struck += 1
        return True

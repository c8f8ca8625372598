"""Calls that a hold fault stops until somebody releases them."""

import threading
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class _Held:
    operation: str
    released: threading.Event = field(default_factory=threading.Event)


class HeldCalls:
    """The calls held now, in the order of their arrival; safe to use from many threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: list[_Held] = []
        self._closed = False

    def hold(self, operation: str) -> None:
        """Block until `release` or `close`; after `close`, not at all."""
        held = _Held(operation)
        with self._changed:
            if self._closed:
                return
            self._held.append(held)
            self._changed.notify_all()
        held.released.wait()

    def operations(self) -> list[str]:
        """Which operations are held."""
        with self._changed:
            return [held.operation for held in self._held]

    def wait_for(self, count: int, timeout_seconds: float) -> bool:
        """Wait until at least `count` calls are held; whether they are."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._held) >= count, timeout_seconds)

    def release(self) -> list[str]:
        """Let all held calls go on, and name their operations; a call that comes later may be held again."""
        with self._changed:
            released, self._held = self._held, []
        for held in released:
            held.released.set()
        return [held.operation for held in released]

    def close(self) -> None:
        """Release, and hold nothing any more."""
        with self._changed:
            self._closed = True
        self.release()

    def reopen(self) -> None:
        """Undo `close`."""
        with self._changed:
            self._closed = False

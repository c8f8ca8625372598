"""Forces an exception in a function of the broker, any of those that a call runs through.

Which functions there are is found out by watching calls that go well: a new one is struck without being listed. A
function that returns is struck as it does, with all that it holds still there; a generator or a coroutine at its first
line. The exception is of the kinds that are caught most (OSError, ValueError), and its text is a secret.
"""

import inspect
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import keybroker

_ROOT = str(Path(keybroker.__file__).parent)
_SUSPENDING = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class Unforeseen(OSError, ValueError):
    """What nobody expects."""


def place_of(code: CodeType) -> str:
    """File and name of a function, without what all have in common."""
    return f"{code.co_filename[len(_ROOT) + 1 :]} {code.co_qualname}"


class Tracer:
    """What `tracing` installs. Threads may live longer than that: then it is `off`."""

    def __init__(self) -> None:
        self.off = False


class Watch(Tracer):
    """Keeps the functions of the broker that are run, in the order of their first calls, and the places it came to."""

    def __init__(self, *, until: str) -> None:
        super().__init__()
        self.places: dict[str, None] = {}
        self.run: dict[CodeType, None] = {}
        self.run_later: dict[CodeType, None] = {}
        self._now = self.run
        self._until = until

    def at(self, place: str) -> None:
        """Told of each place. From `until` on it is later."""
        self.places.setdefault(place)
        if place == self._until:
            self._now = self.run_later

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Told of each call of a function."""
        code = frame.f_code
        if code.co_filename.startswith(_ROOT) and not code.co_name.startswith("<") and not self.off:
            self._now.setdefault(code)


class Strike(Tracer):
    """Raises once, in `target`, while it is `armed`. `error` is what was raised, `held` what the target held then."""

    def __init__(self, target: CodeType | None, text: str, *, armed: bool = True) -> None:
        super().__init__()
        self.text = text
        self.armed = armed
        self.error: Unforeseen | None = None
        self.held = ""
        self._target = target
        self._lock = threading.Lock()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        """Told of each call of a function."""
        if frame.f_code is not self._target or not self.armed or self.off or self.error is not None:
            return None
        return self._within

    @property
    def shown(self) -> str:
        """What somebody would print who prints the exception with its locals, as Python can."""
        trace = self.error.__traceback__ if self.error is not None else None
        values = [value for frame, _ in traceback.walk_tb(trace) for value in frame.f_locals.values()]
        return "\n".join([repr(self.error), *map(_shown, values)])

    def raise_once(self) -> None:
        """The first time."""
        with self._lock:
            first = self.error is None
            self.error = self.error or Unforeseen(self.text)
        if first:
            raise self.error

    def _within(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == ("line" if frame.f_code.co_flags & _SUSPENDING else "return"):
            self.held = "\n".join(map(_shown, frame.f_locals.values()))
            self.raise_once()
        return self._within


def _shown(value: object) -> str:
    """An object that was not built to its end may have no repr."""
    with suppress(AttributeError):
        return repr(value)
    return ""


@contextmanager
def tracing(tracer: Watch | Strike) -> Iterator[None]:
    """In this thread, and in those that are started meanwhile."""
    before = sys.gettrace()
    threading.settrace(tracer)
    sys.settrace(tracer)
    try:
        yield
    finally:
        tracer.off = True
        sys.settrace(before)
        threading.settrace(None)  # type: ignore[arg-type]  # what it was before

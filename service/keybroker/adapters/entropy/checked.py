"""An HSM's random bytes, tested before they are used; reconnects, and stays closed until a start-up test passes.

Each piece is drawn as the end of a window of its own: bytes that nobody uses fill the window, then the piece itself is
read into the caller's buffer, and both tests judge the whole (health.py). A generator that breaks between two imports
is seen at the next, and not after the bytes of sixteen keys.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

import structlog

from keybroker.adapters.entropy.failures import HealthTestFailed, SourceFailed, unavailable
from keybroker.adapters.entropy.health import RECOVERY_SAMPLES, START_UP_SAMPLES, WINDOW, HealthTests

TURN_SECONDS = 5.0
"""How long a call waits while another one talks to the HSM: one that hangs must not hold every worker."""


class Generator(Protocol):
    """A connection to a generator of random bytes. Never used by two threads at once. Raises SourceFailed."""

    def connect(self) -> None:
        """Connects, leaving nothing of an earlier connection."""

    def check(self) -> None:
        """Returns if the connection still leads to the generator."""

    def read_into(self, buffer: memoryview) -> None:
        """Overwrites the whole buffer."""

    def disconnect(self) -> None:
        """Lets go of the connection."""


class CheckedEntropy:
    """ports.EntropySource on a Generator."""

    is_health_tested = True

    def __init__(
        self,
        *,
        name: str,
        generator: Generator,
        tests: HealthTests | None = None,
        turn_seconds: float = TURN_SECONDS,
    ) -> None:
        self._name = name
        self._generator = generator
        self._tests = tests or HealthTests()
        self._turn_seconds = turn_seconds
        self._lock = threading.Lock()
        self._connected = False
        self._doubted = False  # a test has failed since the last that passed
        self._hangs = False  # somebody waited in vain for the call that is under way
        self._told = ""  # the failure that the log has last

    @property
    def name(self) -> str:
        """As in the port."""
        return self._name

    def check(self) -> None:
        """Connects, with a start-up test, unless it is connected. Reasons: ENTROPY_UNAVAILABLE."""
        with self._turn():
            self._do(lambda: None)

    def fill(self, buffer: memoryview) -> None:
        """Overwrites the buffer with bytes that passed both tests. Reasons: ENTROPY_UNAVAILABLE."""
        with self._turn():
            self._do(lambda: self._draw(buffer))

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=0 if self._hangs else self._turn_seconds):
            self._hangs = True  # so one call waited, or those of one moment; the next ones don't
            self._tell("NoAnswer")
            raise unavailable(self._name, "does not answer in time")
        try:
            yield
            if self._told:
                self._tell_ready()
        except SourceFailed as error:
            self._shut(error.kind)
            raise unavailable(self._name, "does not answer") from None
        except HealthTestFailed as error:
            self._doubted = True
            self._shut(f"{error.test} test")
            raise unavailable(self._name, f"failed its {error.test} test") from None
        finally:
            self._hangs = False
            self._lock.release()

    def _do(self, work: Callable[[], None]) -> None:
        """Once more on a new connection if the one at hand has gone; a failed test is never tried again here."""
        if self._connected:
            with suppress(SourceFailed):
                self._generator.check()
                work()
                return
        self._connect()
        work()

    def _connect(self) -> None:
        self._connected = False
        self._generator.connect()
        sample = bytearray(RECOVERY_SAMPLES if self._doubted else START_UP_SAMPLES)
        self._generator.read_into(memoryview(sample))
        self._tests.run(sample)
        self._connected, self._doubted = True, False
        self._tell_ready()

    def _draw(self, buffer: memoryview) -> None:
        lead = bytearray(WINDOW - len(buffer) % WINDOW)  # never empty: no byte of the buffer is a window's first
        self._generator.read_into(memoryview(lead))
        self._generator.read_into(buffer)
        self._tests.run(lead, buffer)

    def _shut(self, kind: str) -> None:
        self._connected = False
        with suppress(SourceFailed):
            self._generator.disconnect()
        self._tell(kind)

    def _tell_ready(self) -> None:
        structlog.get_logger().info("entropy_source_ready", source=self._name)
        self._told = ""

    def _tell(self, kind: str) -> None:
        if kind != self._told:
            self._told = kind
            structlog.get_logger().error("entropy_source_failed", source=self._name, kind=kind)

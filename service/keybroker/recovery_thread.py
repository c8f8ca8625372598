"""Runs the recovery in a thread of its own, from the start of the broker to its stop."""

import threading
from collections.abc import Callable

import structlog

from keybroker.domain.errors import BrokerError
from keybroker.telemetry.logs import exception_chain
from keybroker.usecases.recovery import Recovery
from keybroker.usecases.trail import Trail

_PAUSE_SECONDS = 1.0
_PRUNE_EVERY_PASSES = 60


class RecoveryThread:
    """Passes of the recovery, a second apart, after each what is due to the audit log; `prune` now and then."""

    def __init__(self, *, recovery: Recovery, trail: Trail, prune: Callable[[], None]) -> None:
        self._recovery = recovery
        self._trail = trail
        self._prune = prune
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recovery", daemon=True)

    def start(self) -> None:
        """Returns at once."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Ends after the pass that is under way, which is waited for at most so long."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(seconds)
        self._do(self._trail.catch_up)

    def _run(self) -> None:
        passes = 0
        while not self._stopping.is_set():
            self._do(self._recovery.run_due)
            if passes % _PRUNE_EVERY_PASSES == 0:
                self._do(self._prune)
            self._do(self._trail.catch_up)
            passes += 1
            self._stopping.wait(_PAUSE_SECONDS)

    def _do(self, work: Callable[[], object]) -> None:
        """Whatever one piece of work meets, the others go on."""
        try:
            work()
        except BrokerError as error:
            structlog.get_logger().warning("recovery goes on later", reason=error.reason.value)
        except Exception as error:  # noqa: BLE001  # it must go on
            structlog.get_logger().error("recovery failed", exceptions=exception_chain(error))

"""What real calls told of each KMS instance, for /readyz. Nothing is called to find out."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from keybroker.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class _LastCall:
    operation: str
    code: str
    at: float


class Upstream:
    """Records each request to a KMS instance in the metrics, and keeps the last of each instance."""

    def __init__(self, *, metrics: Metrics, monotonic: Callable[[], float]) -> None:
        self._metrics = metrics
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._last: dict[str, _LastCall] = {}

    def observer(self, instance: str) -> Callable[[str, str, float], None]:
        """What the instance's client calls with operation, code and seconds after each request."""

        def observe(operation: str, code: str, seconds: float) -> None:
            self._metrics.kms_request(operation, code, seconds)
            with self._lock:
                self._last[instance] = _LastCall(operation, code, self._monotonic())

        return observe

    def summary(self) -> dict[str, object]:
        """The last request of each instance that had one: operation, code, seconds ago."""
        now = self._monotonic()
        with self._lock:
            return {
                instance: {"operation": call.operation, "code": call.code, "seconds_ago": round(now - call.at, 1)}
                for instance, call in self._last.items()
            }

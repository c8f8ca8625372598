"""Measures import calls: one duration and, for an error, one failure each, however the call ends.

A replay is no import: it is not measured, nor is a repeat that leaves open what was open before. An attempt that the
recovery brings to an end counts there, once.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from keybroker.domain.attempt import Attempt, State
from keybroker.domain.errors import BrokerError, Reason
from keybroker.telemetry.metrics import Metrics
from keybroker.usecases.answers import REPLAYED, error_of
from keybroker.usecases.progress import Progress


@dataclass(slots=True)
class Measured:
    """What a call knows of itself by its end."""

    progress: Progress = field(default_factory=Progress)
    wrapping_algorithm: str = "unknown"
    outcome: str = "imported"


class ImportMeter:
    """keybroker_import_duration_seconds, keybroker_import_failures_total, keybroker_imports_in_flight."""

    def __init__(self, *, metrics: Metrics) -> None:
        self._metrics = metrics

    @contextmanager
    def measure(self) -> Iterator[Measured]:
        """Around one import call."""
        measured = Measured()
        started = time.perf_counter()
        try:
            with self._metrics.imports_in_flight.track_inprogress():
                yield measured
        except BaseException as error:
            reason = error.reason if isinstance(error, BrokerError) else Reason.INTERNAL
            still_open = measured.progress.goes_on and reason is Reason.IMPORT_UNRESOLVED
            if still_open or (isinstance(error, BrokerError) and REPLAYED in error.metadata):
                measured.outcome = REPLAYED
                raise
            measured.outcome = "unresolved" if reason is Reason.IMPORT_UNRESOLVED else "failed"
            self._metrics.import_failed(reason)
            raise
        finally:
            if measured.outcome != REPLAYED:
                parameters = measured.progress.parameters
                self._metrics.import_duration.labels(
                    measured.outcome, measured.wrapping_algorithm, parameters.value if parameters else "none"
                ).observe(time.perf_counter() - started)

    def resolved_late(self, attempt: Attempt, seconds: float) -> None:
        """Counts an attempt that the recovery has brought to an end, `seconds` after it began."""
        outcome = "imported" if attempt.state is State.IMPORTED else "failed"
        self._metrics.import_duration.labels(
            outcome, attempt.algorithm or "unknown", attempt.parameters or "none"
        ).observe(seconds)
        if outcome == "failed":
            self._metrics.import_failed(error_of(attempt).reason)

    def refused(self, reason: Reason) -> None:
        """Counts an import call that never started."""
        self._metrics.import_failed(reason)

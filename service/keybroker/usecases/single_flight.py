"""Callers who want the same thing at the same time share one call for it."""

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Generic, TypeVar

from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import BrokerError, Reason

T = TypeVar("T")

_OUT_OF_TIME = 0.1  # seconds: a leader with less left failed for want of time


@dataclass(slots=True)
class _Flight(Generic[T]):
    deadline: Deadline
    landed: Future[T]


class SingleFlight(Generic[T]):
    """The first caller for a key makes the call; those who come while it runs get its answer, or its error."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[Hashable, _Flight[T]] = {}

    def run(self, key: Hashable, call: Callable[[], T], *, deadline: Deadline) -> T:
        """Returns what `call` returns, here or in another thread.

        A leader whose own deadline ends the call fails alone: the next caller leads. Reasons: those of `call`,
        DEADLINE_TOO_SHORT.
        """
        while True:
            with self._lock:
                flight = self._flights.get(key)
                leads = flight is None
                if flight is None:
                    flight = self._flights[key] = _Flight(deadline, Future())
            if leads:
                return self._lead(key, flight, call)
            try:
                return flight.landed.result(timeout=deadline.require(0.001, step="waiting for the same read"))
            except FutureTimeoutError:
                continue
            except BrokerError as error:
                if error.reason is Reason.DEADLINE_TOO_SHORT or flight.deadline.remaining_seconds() <= _OUT_OF_TIME:
                    continue
                raise BrokerError(
                    error.reason,
                    error.message,
                    metadata=error.metadata,
                    retry_after_seconds=error.retry_after_seconds,
                ) from error

    def _lead(self, key: Hashable, flight: _Flight[T], call: Callable[[], T]) -> T:
        try:
            result = call()
        except BaseException as error:
            self._land(key)
            flight.landed.set_exception(error)
            raise
        self._land(key)
        flight.landed.set_result(result)
        return result

    def _land(self, key: Hashable) -> None:
        with self._lock:
            del self._flights[key]

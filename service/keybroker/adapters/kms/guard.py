"""What stands between a call and the KMS: its turn in the quota, the instance's circuit, repetitions where allowed.

Each request waits its turn (pacer.py), unless the instance does not answer (circuit.py). What failed is sent again, by
domain/retry_policy.py, after a wait with jitter, inside the deadline and the instance's budget (retry_budget.py). One
request is not seen here: the client's own repetition with renewed credentials (client.py).
"""

import random
from collections.abc import Callable, Mapping
from typing import TypeVar

from keybroker.adapters.kms.circuit import Circuit, Pass, not_sent, tell
from keybroker.adapters.kms.pacer import QUOTA_OF, SEND_SECONDS, CalledOff, Pacer
from keybroker.adapters.kms.retry_budget import RetryBudget
from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import BrokerError, KmsError, Reason
from keybroker.domain.retry_policy import MAX_TRIES, ONE_CALL, Happened, may_repeat, wait_seconds, what_happened
from keybroker.ports import Clock

RETRY_AFTER_SECONDS = 1.0
RECORDED_SENDS = frozenset({"CreateKey", "ImportKeyMaterial"})

_T = TypeVar("_T")


class Guard:
    """Of one instance. `pacers` are by quota class; a class without one is not paced.

    `on_retry(operation)` is told of each repetition that is sent, `on_circuit(is_open)` of each change of the circuit.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        pacers: Mapping[str, Pacer],
        on_retry: Callable[[str], None],
        on_circuit: Callable[[bool], None],
        rng: Callable[[], float] | None = None,
    ) -> None:
        self._clock = clock
        self._pacers = pacers
        self._on_retry = on_retry
        self._on_circuit = on_circuit
        self._rng = rng or random.Random().random  # noqa: S311  # spreads load; not the process's, which others may seed
        self._budget = RetryBudget(monotonic=clock.monotonic)
        self._circuit = Circuit(monotonic=clock.monotonic, on_change=self._changed)

    def call(self, operation: str, send: Callable[[], _T], deadline: Deadline) -> _T:
        """What `send` returns, which sends one request.

        Reasons: those of `send`; KMS_UNAVAILABLE and KMS_QUOTA_BUSY without it; DEADLINE_TOO_SHORT.
        """
        if deadline.is_repeating and operation in RECORDED_SENDS:
            return self._repeated(operation, send, deadline)
        attempt = 1
        while True:
            leave = self._await_turn(operation, deadline, is_repetition=attempt > 1)
            try:
                return self._sent(operation, send, leave, deadline)
            except KmsError as error:
                wait = self._wait_before_next(operation, attempt, error, deadline)
                if wait is None:
                    raise
            attempt += 1
            self._clock.sleep(wait)

    def _repeated(self, operation: str, send: Callable[[], _T], deadline: Deadline) -> _T:
        """One more send of what a use case has sent before: from the budget, unless it succeeds."""
        if not self._budget.take():
            raise not_sent(
                "The KMS fails too often: what was sent before is not sent again for a while.",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            )
        leave = self._await_turn(operation, deadline, is_repetition=True)
        try:
            result = self._sent(operation, send, leave, deadline)
        except KmsError as error:
            if self._is_paced_throttling(operation, error):
                self._budget.give_back()
            raise
        self._budget.give_back()
        return result

    def _await_turn(self, operation: str, deadline: Deadline, *, is_repetition: bool) -> Pass:
        """Waits; what it raises says that nothing was sent. What goes is counted."""
        try:
            leave = self._turn(operation, deadline)
        except BrokerError:
            if is_repetition:
                self._budget.give_back()
            raise
        if is_repetition:
            self._on_retry(operation)
        else:
            self._budget.first_try()
        return leave

    def _turn(self, operation: str, deadline: Deadline) -> Pass:
        pacer = self._pacers.get(QUOTA_OF[operation])
        while True:
            deadline.require(SEND_SECONDS, step=operation)
            self._circuit.check()
            try:
                if pacer is not None:
                    pacer.turn(deadline, owner=self)
            except CalledOff:
                continue  # the circuit says why, or has closed again
            return self._circuit.admit()

    def _sent(self, operation: str, send: Callable[[], _T], leave: Pass, deadline: Deadline) -> _T:
        started = self._clock.monotonic()
        try:
            result = send()
        except KmsError as error:
            seconds = self._clock.monotonic() - started
            tell(self._circuit, leave, error, seconds=seconds, remaining_seconds=deadline.remaining_seconds())
            if error.reason is Reason.KMS_THROTTLED and QUOTA_OF[operation] in self._pacers:
                self._pacers[QUOTA_OF[operation]].throttled()
            raise
        except BrokerError:
            self._circuit.not_sent(leave)
            raise
        self._circuit.answered()
        return result

    def _wait_before_next(self, operation: str, attempt: int, error: KmsError, deadline: Deadline) -> float | None:
        """How long to wait before the next try. None: there is none, and the caller is told when to come again."""
        if may_repeat(operation, error) and attempt < MAX_TRIES:
            wait = wait_seconds(attempt, error, self._rng)
            if wait + SEND_SECONDS < deadline.remaining_seconds() and self._may_spend(operation, error):
                return wait
        passes = what_happened(error) is not Happened.FINAL
        if passes and ONE_CALL[operation] and error.retry_after_seconds is None:
            error.retry_after_seconds = RETRY_AFTER_SECONDS
        return None

    def _may_spend(self, operation: str, error: KmsError) -> bool:
        """A throttled request that waits for another turn takes a slot, not more of the KMS: it needs no budget."""
        return self._is_paced_throttling(operation, error) or self._budget.take()

    def _is_paced_throttling(self, operation: str, error: KmsError) -> bool:
        return QUOTA_OF[operation] in self._pacers and what_happened(error) is Happened.THROTTLED

    def _changed(self, is_open: bool) -> None:  # noqa: FBT001  # a hook's signature
        self._on_circuit(is_open)
        if is_open:
            for pacer in self._pacers.values():
                pacer.call_off(self)

"""Whether an instance of the KMS is worth asking at all: after a row of calls that nobody answered, hardly.

Closed, every call goes. FAILURES in a row open it: calls then fail at once, nothing is sent, and the caller is told
when to come again. From time to time one real call goes through as a probe; the first answer closes the circuit. A
probe that hangs does not hold up the next, so that the KMS's return is seen within PROBE_EVERY_SECONDS.

What counts is whether the KMS answered, not what: a refusal is an answer, and so is a reply that can't be read, if it
is no 5xx. A call that its own deadline ended counts only once nobody has had an answer for SILENCE_SECONDS, or
impatient callers could shut a slow KMS to all others. Nor does a failure of a call
that was let through before the circuit last closed: it tells of the past.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from keybroker.domain.errors import KmsError, Reason
from keybroker.domain.retry_policy import Happened, what_happened

FAILURES = 8  # more than one call makes: a CMK on which the KMS fails must not shut out the others
FIRST_PROBE_SECONDS = 0.5
PROBE_EVERY_SECONDS = 2.0
PATIENCE_SECONDS = 1.0
SILENCE_SECONDS = 5.0
SHORTEST_RETRY_SECONDS = 0.1

_NOBODY_ANSWERED = frozenset(
    {
        Happened.NEVER_CONNECTED,
        Happened.CONNECTION_BROKE,
        Happened.TIMED_OUT,
        Happened.SERVER_ERROR,
        Happened.UNREADABLE,
    }
)
_NOT_SENT = "other"  # with committed_nothing: no credentials to sign with, or no KMS at the other end


@dataclass(frozen=True, slots=True)
class Pass:
    """Leave to send one request. `age`: how often the circuit had closed when it was given."""

    age: int
    is_probe: bool = False


class Circuit:
    """The circuit of one instance. `on_change(open)` is told while a lock is held: it must be quick."""

    def __init__(self, *, monotonic: Callable[[], float], on_change: Callable[[bool], None]) -> None:
        self._monotonic = monotonic
        self._on_change = on_change
        self._lock = threading.Lock()
        self._age = 0
        self._failures = 0
        self._is_open = False
        self._probe_at = 0.0
        self._probe_wait_seconds = FIRST_PROBE_SECONDS
        self._answered_at = monotonic()

    @property
    def silent_seconds(self) -> float:
        """How long ago the last answer came."""
        with self._lock:
            return self._monotonic() - self._answered_at

    def check(self) -> None:
        """Raises what `admit` would raise now; lets nothing through."""
        with self._lock:
            self._require_closed_or_due()

    def admit(self) -> Pass:
        """Leave to send; while the circuit is open, only as a probe. Reasons: KMS_UNAVAILABLE with retry_after."""
        with self._lock:
            self._require_closed_or_due()
            if self._is_open:
                self._schedule_probe()
            return Pass(self._age, is_probe=self._is_open)

    def answered(self) -> None:
        """The KMS answered, whatever it said."""
        with self._lock:
            self._failures = 0
            self._answered_at = self._monotonic()
            if self._is_open:
                self._age += 1
                self._probe_wait_seconds = FIRST_PROBE_SECONDS
                self._set(is_open=False)

    def failed(self, leave: Pass) -> None:
        """Nobody answered."""
        with self._lock:
            if leave.age != self._age or self._is_open:
                return
            self._failures += 1
            if self._failures >= FAILURES:
                self._schedule_probe()
                self._set(is_open=True)

    def not_sent(self, leave: Pass) -> None:
        """A call that was let through sent nothing after all: if it was the probe, another one may be at once."""
        with self._lock:
            if leave.is_probe and leave.age == self._age:
                self._probe_at = self._monotonic()

    def _set(self, *, is_open: bool) -> None:
        self._is_open = is_open
        self._on_change(is_open)

    def _require_closed_or_due(self) -> None:
        wait = self._probe_at - self._monotonic()
        if self._is_open and wait > 0:
            raise not_sent(
                "The KMS has not answered the last requests; this one was not sent.",
                retry_after_seconds=max(wait, SHORTEST_RETRY_SECONDS),
            )

    def _schedule_probe(self) -> None:
        self._probe_at = self._monotonic() + self._probe_wait_seconds
        self._probe_wait_seconds = min(PROBE_EVERY_SECONDS, 2 * self._probe_wait_seconds)


def not_sent(message: str, *, retry_after_seconds: float) -> KmsError:
    """The broker's own refusal: it fails at once, and nothing was done."""
    refusal = KmsError(
        Reason.KMS_UNAVAILABLE,
        message,
        kms_code="connection",
        committed_nothing=True,
        retry_after_seconds=retry_after_seconds,
    )
    refusal.fails_fast = True
    return refusal


def tell(circuit: Circuit, leave: Pass, error: KmsError, *, seconds: float, remaining_seconds: float) -> None:
    """Tells the circuit what a request says of the KMS's reach that failed after `seconds`."""
    if error.kms_code == _NOT_SENT and error.committed_nothing:
        circuit.not_sent(leave)
    elif what_happened(error) not in _NOBODY_ANSWERED or error.reason is Reason.KMS_RESPONSE_INVALID:
        circuit.answered()
    elif remaining_seconds > 0 or (seconds >= PATIENCE_SECONDS and circuit.silent_seconds >= SILENCE_SECONDS):
        circuit.failed(leave)

"""When the clients repeat a call, after how long, and what an error means after the tries before it. No I/O.

Repeated are reads, and the changes that the broker knows again by their request_id: the import RPCs and
CreateExternalKey. All tries send the same message, so one call binds at most one material whatever got lost.
Not repeated are deletions; a call with allow_second_key, which consents to one more CMK and not to several; and
health checks, which ask about now.

A try that got no answer leaves the whole call unresolved: that the next try was refused for lack of quota says
nothing of the first. Only reasons that the broker gives about the request itself settle it.

Source: key_broker_service.proto ("Retries", "Outcomes"); docs/errors.md, column Retry (a test compares them).
"""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING

import grpc

from keybroker_client import calls
from keybroker_client.errors import KeyBrokerError, UnresolvedError
from keybroker_client.translation import translate

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

    Clock = Callable[[], float]
    Uniform = Callable[[float, float], float]

DEFAULT_RETRIES = 5
FIRST_BACKOFF_SECONDS = 0.25
MAX_BACKOFF_SECONDS = 4.0
MIN_TRY_SECONDS = 1.0
"""A last try with less time would only replace an error that says something by a deadline that does not."""

RETRYABLE_REASONS = frozenset(
    {
        "UNWRAP_REFUSALS_EXHAUSTED",
        "IMPORT_UNRESOLVED",
        "IMPORT_IN_PROGRESS",
        "CREATE_OUTCOME_UNKNOWN",
        "CHANGE_OUTCOME_UNKNOWN",  # of an alias; of a deletion too, but deletions are not repeated at all
        "BROKER_OVERLOADED",
        "KMS_THROTTLED",
        "KMS_UNAVAILABLE",
        "KMS_INSTANCE_NOT_READY",
        "KMS_RESPONSE_INVALID",
        "CALLER_RATE_LIMITED",
        "LEDGER_UNAVAILABLE",
        "KMS_QUOTA_BUSY",
        "ENTROPY_UNAVAILABLE",
        "AUDIT_UNAVAILABLE",
    }
)
"""Without DEADLINE_TOO_SHORT: the next try has still less time."""

SETTLING_REASONS = frozenset(
    {
        "KEY_MATERIAL_ALREADY_BOUND",
        "NOT_IMPORTED",
        "ENABLED_UNATTRIBUTED",
        "WRAPPED_KEY_MATERIAL_REFUSED",
        "GENERATED_MATERIAL_REFUSED",
        "ALIAS_ALREADY_EXISTS",
        # These depend on the request and on what of a CMK never changes: no try got past them.
        "INVALID_FIELD",
        "REQUEST_ID_REUSED",
        "KEY_NOT_FOUND",
        "KEY_ORIGIN_NOT_EXTERNAL",
        "KEY_SPEC_UNSUPPORTED",
        "KEY_NOT_ON_INSTANCE",
    }
)
"""What the broker says of all tries of a request, not of the last one alone."""


class Budget:
    """How many repeats a client may spend on an outage: 10 at once, then one each second. Threads can share it."""

    CAPACITY = 10.0
    PER_SECOND = 1.0

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._left, self._at = self.CAPACITY, clock()

    def take(self) -> bool:
        """Takes one repeat out, if there is one."""
        with self._lock:
            now = self._clock()
            self._left = min(self.CAPACITY, self._left + (now - self._at) * self.PER_SECOND)
            self._at = now
            if self._left < 1:
                return False
            self._left -= 1
            return True


class Retries:
    """A client's way to repeat calls. count: how often one call is repeated at most; 0: never."""

    def __init__(
        self,
        count: int = DEFAULT_RETRIES,
        *,
        clock: Clock = time.monotonic,
        uniform: Uniform = random.uniform,
    ) -> None:
        if count < 0:
            raise ValueError("retries can't be negative")
        self.count = count
        self.clock = clock
        self.uniform = uniform
        self.budget = Budget(clock=clock)

    def start(self, request: Message, timeout_seconds: float) -> Call:
        """The call that is about to be made for the request, all of its tries within the timeout."""
        return Call(request, timeout_seconds, self)


class Call:
    """One call: how long its next try may last, and whether there is a next one."""

    def __init__(self, request: Message, timeout_seconds: float, retries: Retries) -> None:
        self._request = request
        self._retries = retries
        self._ends_at = retries.clock() + timeout_seconds
        self._repeats_left = retries.count if calls.can_be_repeated(request) else 0
        self._backoff_seconds = FIRST_BACKOFF_SECONDS
        self._unresolved = False
        self._created_key_id = ""

    def remaining_seconds(self) -> float:
        """What is left of the call's timeout."""
        return max(0.0, self._ends_at - self._retries.clock())

    def pause_seconds(self, failure: grpc.RpcError) -> float:
        """How long to wait before the next try, after this one failed. Raises the call's error if there is none."""
        error = self._in_view_of_earlier_tries(translate(failure, self._request))
        pause = (error.retry_after_seconds or 0.0) + self._retries.uniform(0.0, self._backoff_seconds)
        if not self._may_repeat(error, pause):
            raise error from failure
        self._repeats_left -= 1
        self._backoff_seconds = min(2 * self._backoff_seconds, MAX_BACKOFF_SECONDS)
        return pause

    def _may_repeat(self, error: KeyBrokerError, pause_seconds: float) -> bool:
        return (
            self._repeats_left > 0
            and is_retryable(error)
            and pause_seconds + MIN_TRY_SECONDS <= self.remaining_seconds()
            # Last, because it takes. The other codes come from a broker that is there and knows its load.
            and (error.code is not grpc.StatusCode.UNAVAILABLE or self._retries.budget.take())
        )

    def _in_view_of_earlier_tries(self, error: KeyBrokerError) -> KeyBrokerError:
        self._created_key_id = error.created_key_id or self._created_key_id
        if self._created_key_id:
            error.metadata["created_key_id"] = self._created_key_id
        if self._unresolved and not error.outcome_unknown and error.reason not in SETTLING_REASONS:
            error = _as_unresolved(error)
        self._unresolved = error.outcome_unknown
        return error


def is_retryable(error: KeyBrokerError) -> bool:
    """Whether the same call makes sense again: by the broker's reason; without one, if nobody answered."""
    return error.reason in RETRYABLE_REASONS if error.reason else error.code is grpc.StatusCode.UNAVAILABLE


def _as_unresolved(error: KeyBrokerError) -> UnresolvedError:
    parts = vars(error) | {
        "message": f"{error.message.removesuffix('.')}. Whether the change happened in an earlier try is unknown"
    }
    return UnresolvedError(**parts)

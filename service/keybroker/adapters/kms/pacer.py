"""Requests wait their turn for the KMS's quota: as many a second as it allows, fair between callers, within deadlines.

One Pacer holds one quota class of one account and region, for all instances there. A request that comes while nobody
waits and a slot is free goes at once. The others queue, each on an event of its own; one of those who wait, the
leader, sleeps until the next slot, gives it to who is next and hands the lead on. So a slot wakes one thread or two,
however many wait, and there is no thread that must be ended.
"""

import threading
from collections.abc import Callable, Mapping

from keybroker.adapters.kms.fair_queue import FairQueue, Waiter
from keybroker.adapters.kms.schedule import Schedule
from keybroker.adapters.kms.turns import TurnsOfACall
from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import KmsError, Reason

SEND_SECONDS = 0.05  # what must be left of the deadline after the wait
LONGEST_RETRY_SECONDS = 60.0

QUOTA_OF: Mapping[str, str] = {
    "CreateKey": "create",
    "GetParametersForImport": "read",
    "DescribeKey": "read",
    "ListKeys": "read",
    "ImportKeyMaterial": "write",
    "ScheduleKeyDeletion": "write",
    "CancelKeyDeletion": "write",
    "CreateAlias": "write",
    "Encrypt": "crypto",
    "ListResourceTags": "resource_tags",
}
"""The quota class of each operation in use. Source: contract section 5."""


class CalledOff(Exception):  # noqa: N818  # reads as what it says
    """The wait was ended by `call_off`."""


class Pacer:
    """The turns of one quota class. `on_wait` is told how long each request waited, in seconds."""

    def __init__(
        self,
        limit_per_second: float,
        *,
        monotonic: Callable[[], float],
        on_wait: Callable[[float], None],
        turns_of_a_call: float = 1.0,
    ) -> None:
        self._turns = TurnsOfACall(turns_of_a_call)
        self._monotonic = monotonic
        self._on_wait = on_wait
        self._lock = threading.Lock()
        self._queue = FairQueue()
        self._leader: Waiter | None = None
        self._schedule = Schedule(limit_per_second, now=monotonic())

    @property
    def rate_per_second(self) -> float:
        """The rate in force."""
        with self._lock:
            return self._schedule.rate_per_second

    def throttled(self) -> None:
        """The KMS refused a request of this class for its quota: a little slower, for a while."""
        with self._lock:
            self._schedule.throttled(self._monotonic())

    def turn(self, deadline: Deadline, *, owner: object) -> None:
        """Returns when a request may be sent. Raises CalledOff.

        Reasons: KMS_QUOTA_BUSY, at once if the turn would come too late for the deadline.
        """
        started = self._monotonic()
        with self._lock:
            waiter = None if self._may_go_now(started) else self._joined(deadline, owner, started)
        if waiter is not None:
            self._wait(waiter)
        with self._lock:
            self._turns.count(deadline)
        self._on_wait(self._monotonic() - started)

    def call_off(self, owner: object) -> None:
        """Ends the waits of an owner: its instance does not answer."""
        with self._lock:
            for waiter in self._queue.remove_all_of(owner):
                waiter.is_called_off = True
                waiter.event.set()

    def _may_go_now(self, now: float) -> bool:
        if self._queue or self._schedule.next_at(now, queued=False) > now:
            return False
        self._schedule.take(now, queued=False)
        return True

    def _joined(self, deadline: Deadline, owner: object, now: float) -> Waiter:
        ends_at = now + deadline.remaining_seconds() - SEND_SECONDS
        ahead = self._queue.ahead_of(deadline.caller, ends_at) * self._turns.mean
        wait = self._schedule.seconds_for(ahead, now)
        if now + wait > ends_at:
            raise _busy(wait)
        waiter = Waiter(caller=deadline.caller, owner=owner, ends_at=ends_at)
        self._queue.push(waiter)
        self._leader = self._leader or waiter
        return waiter

    def _wait(self, waiter: Waiter) -> None:
        while True:
            with self._lock:
                waiter.event.clear()
                timeout = self._step(waiter, self._monotonic())
                if timeout is None:
                    self._hand_on(waiter)
                    break
            waiter.event.wait(timeout)
        if waiter.is_called_off:
            raise CalledOff
        if not waiter.is_granted:
            raise _busy(self._queue_seconds())

    def _queue_seconds(self) -> float:
        """How long those who wait now will take."""
        with self._lock:
            waiting = len(self._queue) * self._turns.mean
            return self._schedule.seconds_for(waiting, self._monotonic())

    def _step(self, waiter: Waiter, now: float) -> float | None:
        """Serves the slots that are due, if it leads. How long to sleep then; None when its wait is over."""
        if self._leader is waiter:
            self._serve(now)
        if waiter.is_granted or waiter.is_called_off:
            return None
        if now >= waiter.ends_at:
            self._queue.remove(waiter)
            return None
        wake_at = waiter.ends_at
        if self._leader is waiter:
            wake_at = min(wake_at, self._schedule.next_at(now, queued=True))
        return wake_at - now

    def _serve(self, now: float) -> None:
        while self._queue and self._schedule.next_at(now, queued=True) <= now:
            self._schedule.take(now, queued=True)
            served = self._queue.pop()
            served.is_granted = True
            served.event.set()

    def _hand_on(self, waiter: Waiter) -> None:
        if self._leader is waiter:
            self._leader = self._queue.first()
            if self._leader is not None:
                self._leader.event.set()


def _busy(wait: float) -> KmsError:
    """Nothing was sent: as certain as it can be that nothing was done."""
    return KmsError(
        Reason.KMS_QUOTA_BUSY,
        "The broker's share of the KMS's quota is used up by calls before this one.",
        kms_code="other",
        committed_nothing=True,
        retry_after_seconds=min(max(wait, SEND_SECONDS), LONGEST_RETRY_SECONDS),
    )

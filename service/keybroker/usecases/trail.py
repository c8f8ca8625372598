"""The audit trail: no change without an event before it, and the event after it is never lost.

What comes after is kept by the ledger, in the same transaction as the outcome that it tells, until the log has it: an
outcome is told to its caller also while the log can't be written. Nothing new is begun then: `before` writes what is
due first. Source: docs/audit.md; ADR 13.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from uuid import uuid4

from keybroker.domain.audit import AuditEvent, CmkChange
from keybroker.domain.errors import BrokerError, Reason
from keybroker.ports import AuditLog, AuditOutbox

_TURN_SECONDS = 5.0
_SHORT_TURN_SECONDS = 0.2


@dataclass(slots=True)
class Reply:
    """What the KMS said to a change."""

    kms_request_id: str = ""


class Trail:
    """Writes to `log`; without one, nothing. Any thread may use it.

    `failing`: the last attempt to write failed. `waiting`: how many events were due then.
    """

    def __init__(self, *, outbox: AuditOutbox, log: AuditLog | None) -> None:
        self._outbox = outbox
        self._log = log
        self._lock = threading.Lock()
        self._delivered = 0  # the sequence up to which the log has everything
        self._written: list[str] = []  # ids that the log has and the ledger may forget
        self._unrecorded: list[AuditEvent] = []  # outcomes that the ledger could not take yet
        self._head = ""
        self._kept_head = ""  # what the ledger has
        self.failing = False
        self.waiting = 0

    @property
    def is_on(self) -> bool:
        """Whether anything is audited."""
        return self._log is not None

    def before(self, event: AuditEvent) -> str:
        """Writes the event, and before it whatever is due. Returns its line's hash; "" where nothing is audited.

        Reasons: AUDIT_UNAVAILABLE, LEDGER_UNAVAILABLE.
        """
        if self._log is None:
            return ""
        with self._turn(_TURN_SECONDS):
            return self._write(self._log, event)

    def deliver(self) -> None:
        """Writes what is due, if that is possible now."""
        if self._log is None:
            return
        with suppress(BrokerError), self._turn(_SHORT_TURN_SECONDS):
            self._write(self._log)

    def take_over(self, head: str) -> None:
        """At the start: what an earlier process could not tell is told now, its outcome unknown. As `deliver`.

        `head` is the hash of the log's last line; "" if its chain could not be begun.
        """
        if self._log is None:
            return
        self._head, self.failing = head, not head
        with suppress(BrokerError):
            self._outbox.release_held_audit()
        self.deliver()
        with suppress(BrokerError):
            self.tidy()

    def catch_up(self) -> None:
        """Now and then: as `deliver`, and sees whether a log that failed can be written again, also if nothing is due.

        Then what the log has is let go of by the ledger.
        """
        if self._log is None:
            return
        self.deliver()
        with suppress(BrokerError):
            if self.failing and not self.waiting:
                with self._turn(_SHORT_TURN_SECONDS):
                    self._append(self._log, ())
            self.tidy()

    def tidy(self) -> None:
        """Lets the ledger forget what the log has, and keep the log's head.

        Reasons: LEDGER_UNAVAILABLE, AUDIT_UNAVAILABLE.
        """
        with self._turn(_SHORT_TURN_SECONDS):
            ids, head, up_to = list(self._written), self._head, self._delivered
        if not ids and head == self._kept_head:
            return
        self._outbox.drop_audit_due(ids, head=head, up_to=up_to)
        self._kept_head = head
        with self._turn(_SHORT_TURN_SECONDS):
            del self._written[: len(ids)]

    @contextmanager
    def change(self, change: CmkChange) -> Iterator[Reply]:
        """Around a change that has no row. Reasons, before anything is done: those of `before`."""
        reply = Reply()
        if self._log is None:
            yield reply
            return
        record_id = str(uuid4())
        said = change.after(record_id, "UNKNOWN")
        self._outbox.put_audit_due(said, held=True)
        try:
            self.before(change.before(record_id))
        except BaseException:
            with suppress(BrokerError):  # told at the next start, as unknown
                self._outbox.drop_audit_due([f"{record_id}:after"], head=self._head)
            raise
        try:
            yield reply
            said = change.after(record_id, "DONE", kms_request_id=reply.kms_request_id)
        except BrokerError as error:
            said = change.after_failure(record_id, error)
            raise
        finally:
            self._put(said)
            self.deliver()

    def _put(self, said: AuditEvent) -> None:
        """In place of the held one. If the ledger can't take it, nothing else is begun until it does.

        If the process dies before, the held one is told at the next start.
        """
        try:
            self._outbox.put_audit_due(said)
        except BrokerError:
            self._unrecorded.append(said)

    @contextmanager
    def _turn(self, seconds: float) -> Iterator[None]:
        if not self._lock.acquire(timeout=seconds):
            self.failing = self.failing or seconds == _TURN_SECONDS
            raise BrokerError(Reason.AUDIT_UNAVAILABLE, "The broker's audit log does not answer in time.")
        try:
            yield
        finally:
            self._lock.release()

    def _write(self, log: AuditLog, *events: AuditEvent) -> str:
        while self._unrecorded:
            self._outbox.put_audit_due(self._unrecorded[0])
            del self._unrecorded[0]
        due = self._outbox.audit_due(after=self._delivered)
        self.waiting = len(due)
        if not due and not events:
            return self._head
        self._append(log, [*(one.event for one in due), *events])
        if due:
            self._delivered = due[-1].sequence
            self._written += [one.event.id for one in due]
        self.waiting = 0
        return self._head

    def _append(self, log: AuditLog, events: Sequence[AuditEvent]) -> None:
        try:
            self._head = log.write(events)
        except BrokerError:
            self.failing = True
            raise
        self.failing = False

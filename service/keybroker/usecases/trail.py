"""The audit trail: no change without an event before it, and the event after it is never lost.

What comes after is kept by the ledger, in the same transaction as the outcome that it tells, until the log has it: an
outcome is told to its caller also while the log can't be written. Nothing new is begun then: `before` writes what is
due first. Source: docs/audit.md; ADR 13.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from uuid import uuid4

from keybroker.domain.audit import AuditEvent, Deletion, outcome_unknown
from keybroker.domain.errors import BrokerError, Reason
from keybroker.ports import AuditLog, AuditOutbox

_TURN_SECONDS = 5.0
_SHORT_TURN_SECONDS = 0.2


@dataclass(slots=True)
class Reply:
    """What the KMS said to a change."""

    kms_request_id: str = ""


class Trail:
    """Writes to `log`; without one, nothing. Any thread may use it."""

    def __init__(self, *, outbox: AuditOutbox, log: AuditLog | None) -> None:
        self._outbox = outbox
        self._log = log
        self._lock = threading.Lock()
        self._delivered = 0  # the sequence up to which the log has everything
        self._written: list[str] = []  # ids that the log has and the ledger may forget
        self._head = ""
        self.failing = False

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

    def take_over(self) -> None:
        """At the start: what an earlier process could not tell is told now, its outcome unknown. As `deliver`."""
        if self._log is not None:
            with suppress(BrokerError):
                self._outbox.release_held_audit()
            self.deliver()

    def tidy(self) -> None:
        """Lets the ledger forget what the log has. Reasons: LEDGER_UNAVAILABLE."""
        with self._lock:
            ids, head = list(self._written), self._head
        if ids:
            self._outbox.drop_audit_due(ids, head=head)
            with self._lock:
                del self._written[: len(ids)]

    @contextmanager
    def change(self, deletion: Deletion) -> Iterator[Reply]:
        """Around a change that has no row. Reasons, before anything is done: those of `before`."""
        reply = Reply()
        if self._log is None:
            yield reply
            return
        record_id = str(uuid4())
        self._outbox.put_audit_due(deletion.after(record_id, "UNKNOWN"), held=True)
        try:
            self.before(deletion.before(record_id))
        except BaseException:
            with suppress(BrokerError):  # told at the next start, as unknown
                self._outbox.drop_audit_due([f"{record_id}:after"], head=self._head)
            raise
        reason: Reason | None = None
        outcome = "UNKNOWN"
        try:
            yield reply
            outcome = "DONE"
        except BrokerError as error:
            reason = error.reason
            outcome = "UNKNOWN" if outcome_unknown(reason) else "REFUSED"
            raise
        finally:
            said = deletion.after(
                record_id, outcome, reason=reason.value if reason else "", kms_request_id=reply.kms_request_id
            )
            with suppress(BrokerError):  # the held one stays, and is told at the next start
                self._outbox.put_audit_due(said)
            self.deliver()

    @contextmanager
    def _turn(self, seconds: float) -> Iterator[None]:
        if not self._lock.acquire(timeout=seconds):
            raise BrokerError(Reason.AUDIT_UNAVAILABLE, "The broker's audit log does not answer in time.")
        try:
            yield
        finally:
            self._lock.release()

    def _write(self, log: AuditLog, *events: AuditEvent) -> str:
        due = self._outbox.audit_due(after=self._delivered)
        if not due and not events:
            return self._head
        try:
            self._head = log.write([*(one.event for one in due), *events])
        except BrokerError:
            self.failing = True
            raise
        self.failing = False
        if due:
            self._delivered = due[-1].sequence
            self._written += [one.event.id for one in due]
        return self._head

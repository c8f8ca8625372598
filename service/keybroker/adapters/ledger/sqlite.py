"""ports.Ledger over SQLite. Rows: records.py; sealed values: values.py; the mark: mark.py and restores.py."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from keybroker.adapters.ledger import audit_due, records, restores, schema
from keybroker.adapters.ledger import handed_out as tokens
from keybroker.adapters.ledger.database import Connection, Database, NotUnique
from keybroker.adapters.ledger.instants import from_microseconds, to_microseconds
from keybroker.adapters.ledger.mark import Mark
from keybroker.adapters.ledger.reader import RowReader
from keybroker.adapters.ledger.sealing import Keyring
from keybroker.adapters.ledger.values import sealed_values
from keybroker.domain.attempt import Attempt, HandedOut
from keybroker.domain.audit import AuditEvent
from keybroker.domain.external_key import CmkName
from keybroker.ports import Clock, CmkHeld, DueEvent, RequestKnown, Restored, StaleVersion

TOMBSTONES_KEPT = timedelta(days=400)
_OF_REQUEST = "caller = ? AND request_id = ?"
_OF_CMK = "account = ? AND region = ? AND key_id = ?"
_HOLDING = f"{_OF_CMK} AND {schema.HOLDS}"


def _no_event(_: Attempt) -> None:
    """Nothing is audited."""


class SqliteLedger:
    """The ledger in `file`, or in memory without one. `mark_file` should be on another volume.

    `clock` dates rows. `to_audit` makes the event of a row that was written, if there is one to be told, which is kept
    in the same transaction. To be connected before use and closed after it; any thread may use it. Every method but
    tag() raises BrokerError LEDGER_UNAVAILABLE; from one that writes it means that it is not known whether it did.
    """

    def __init__(  # noqa: PLR0913  # what it is made of
        self,
        *,
        keyring: Keyring,
        clock: Clock,
        file: Path | None = None,
        mark_file: Path | None = None,
        tombstones_kept: timedelta = TOMBSTONES_KEPT,
        to_audit: Callable[[Attempt], AuditEvent | None] = _no_event,
    ) -> None:
        self._keyring = keyring
        self._clock = clock
        self._database = Database(file=file)
        self._mark = Mark(path=mark_file) if mark_file else None
        self._rows = RowReader(keyring=keyring)
        self._tombstones_kept = tombstones_kept
        self._to_audit = to_audit

    def connect(self) -> None:
        """Opens or makes the files, and sees whether the ledger was restored.

        Raises LedgerFileError, a ValueError, for a file that can't be used.
        """
        try:
            if self._mark:
                self._mark.connect()
            self._database.connect(str(uuid.uuid4()))
            if self._mark:
                self._compare(self._mark)
            elif self._database.file:
                structlog.get_logger().warning("ledger_without_mark")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the files."""
        self._database.close()
        if self._mark:
            self._mark.close()

    def find(self, caller: str, request_id: str) -> Attempt | None:
        """The caller's row."""
        return self._one(_OF_REQUEST, caller, request_id)

    def holder(self, cmk: CmkName) -> Attempt | None:
        """The row that holds the CMK."""
        return self._one(_HOLDING, *_triple(cmk))

    def find_tag(self, tag: str) -> Attempt | None:
        """The row whose creation has this tag."""
        return self._one("tag = ?", tag)

    def insert(self, attempt: Attempt) -> Attempt:
        """Writes a new row. Raises RequestKnown, CmkHeld."""
        now = self._clock.now()
        with self._writing() as (connection, version):
            written = replace(attempt, version=version, created_at=attempt.created_at or now, updated_at=now)
            values = self._values(written, now)
            places = ", ".join("?" * len(values))
            try:
                connection.execute(
                    f"INSERT INTO attempts ({', '.join(values)}) VALUES ({places})",  # noqa: S608  # names of ours
                    tuple(values.values()),
                )
            except NotUnique:
                if self._first(connection, _OF_REQUEST, attempt.caller, attempt.request_id):
                    raise RequestKnown from None
                self._raise_if_held(connection, attempt)
                raise
            self._put_due(connection, written)
        return written

    def update(self, attempt: Attempt) -> Attempt:
        """Writes over the row if it has attempt.version. Raises StaleVersion, CmkHeld."""
        now = self._clock.now()
        with self._writing() as (connection, version):
            written = replace(attempt, version=version, updated_at=now)
            values = self._values(written, now)
            names = ", ".join(f"{name} = ?" for name in values)
            try:
                cursor = connection.execute(
                    f"UPDATE attempts SET {names} WHERE record_id = ? AND version = ?",  # noqa: S608  # names of ours
                    (*values.values(), attempt.record_id, attempt.version),
                )
            except NotUnique:
                self._raise_if_held(connection, attempt)
                raise
            if cursor.rowcount != 1:
                raise StaleVersion
            self._put_due(connection, written)
        return written

    def unfinished(self) -> Sequence[Attempt]:
        """All rows in UNFINISHED that can be read, oldest change first. Others are logged once."""
        with self._database.reading() as connection:
            rows = connection.execute(_select(f"{schema.IS_UNFINISHED} ORDER BY version")).fetchall()
        return [attempt for row in rows if (attempt := self._rows.read_or_log(row))]

    def attempted(self, cmk: CmkName) -> bool:
        """Whether any row ever named this CMK."""
        with self._database.reading() as connection:
            return connection.execute(_select(_OF_CMK), _triple(cmk)).fetchone() is not None

    def tag(self, caller: str, request_id: str) -> str:
        """HMAC-SHA256 in hex, under a key derived from the ledger's current one."""
        return self._keyring.tag(caller, request_id)

    def hand_out(self, handed_out: HandedOut) -> None:
        """Remembers that a pair went to a caller."""
        with self._writing() as (connection, _):
            tokens.remember(connection, handed_out)

    def find_handed_out(self, token_digest: bytes) -> HandedOut | None:
        """What is known of a token, until an hour after its expiry."""
        with self._database.reading() as connection:
            return tokens.find(connection, token_digest)

    def handed_out(self, cmk: CmkName) -> bool:
        """Whether a pair of this CMK that is still remembered went to a caller."""
        with self._database.reading() as connection:
            return tokens.has_one_of(connection, cmk)

    def restored(self) -> Restored | None:
        """Set for ever once the ledger was recognised as restored; its date is of the last time."""
        with self._database.reading() as connection:
            restored, at = connection.execute("SELECT restored, restored_at FROM meta").fetchone()
        return Restored(None if at is None else from_microseconds(at)) if restored else None

    def date_restore(self, at: datetime) -> None:
        """Sets Restored.at, once."""
        with self._writing() as (connection, _):
            connection.execute(
                "UPDATE meta SET restored_at = ? WHERE restored AND restored_at IS NULL", (to_microseconds(at),)
            )

    def audit_due(self, *, after: int = 0) -> Sequence[DueEvent]:
        """The events that are due, in the order in which they became it, of those with a later sequence."""
        with self._database.reading() as connection:
            return audit_due.read(connection, after)

    def put_audit_due(self, event: AuditEvent, *, held: bool = False) -> None:
        """Keeps an event, or what it has become; a held one is not due before release_held_audit()."""
        with self._writing() as (connection, version):
            audit_due.put(connection, event, version, held=held)

    def drop_audit_due(self, ids: Sequence[str], *, head: str, up_to: int | None = None) -> None:
        """Forgets events that the audit log has, not later ones than `up_to`; `head` is the hash of its last line."""
        with self._writing() as (connection, version):
            audit_due.drop(connection, ids, version if up_to is None else up_to)
            if head:
                connection.execute("UPDATE meta SET audit_head = ?", (head,))

    def release_held_audit(self) -> None:
        """What a process that has ended had held is due."""
        with self._writing() as (connection, version):
            audit_due.release_held(connection, version)

    def audit_head(self) -> str:
        """The hash of the last line that the audit log is known to have."""
        with self._database.reading() as connection:
            head: str = connection.execute("SELECT audit_head FROM meta").fetchone()[0]
        return head

    def prune(self, now: datetime) -> None:
        """Forgets tokens an hour after their expiry, and old tombstones of new CMKs. Empties the write-ahead log."""
        tombstones = f"attempts WHERE {schema.IS_TOMBSTONE} AND updated_at < ?"
        for old, limit in (
            tokens.too_old(now),
            (tombstones, to_microseconds(now - self._tombstones_kept)),
        ):
            with self._database.reading() as connection:
                if connection.execute(f"SELECT 1 FROM {old} LIMIT 1", (limit,)).fetchone() is None:  # noqa: S608
                    continue
            with self._writing() as (connection, _):
                connection.execute(f"DELETE FROM {old}", (limit,))  # noqa: S608  # conditions of ours
        self._database.empty_log()

    def _compare(self, mark: Mark) -> None:
        with self._database.writing() as connection:
            text, sequence = connection.execute("SELECT ledger_id, sequence FROM meta").fetchone()
            ledger_id, reading = uuid.UUID(text), mark.read()
            if restores.is_restored(ledger_id, sequence, reading):
                sequence = restores.note_restore(connection, sequence, reading)
                structlog.get_logger().error("ledger_restored")
        mark.claim(ledger_id, sequence)
        if mark.device() == self._database.device():
            structlog.get_logger().warning("ledger_mark_on_the_same_file_system")

    @contextmanager
    def _writing(self) -> Iterator[tuple[Connection, int]]:
        """A transaction and its place in the ledger's sequence. The mark knows of it before this returns."""
        if self._mark:
            self._mark.settle()
        with self._database.writing() as connection:
            connection.execute("UPDATE meta SET sequence = sequence + 1")
            version: int = connection.execute("SELECT sequence FROM meta").fetchone()[0]
            yield connection, version
        if self._mark:
            self._mark.raise_to(version)

    def _values(self, attempt: Attempt, now: datetime) -> dict[str, str | int | bytes | None]:
        body = records.encode(attempt)
        fixed = records.columns(attempt)
        return {**fixed, "updated_at": to_microseconds(now), "body": body, **sealed_values(attempt, self._keyring)}

    def _put_due(self, connection: Connection, written: Attempt) -> None:
        event = self._to_audit(written)
        if event is not None:
            audit_due.put(connection, event, written.version, held=False)

    def _raise_if_held(self, connection: Connection, attempt: Attempt) -> None:
        if attempt.cmk and self._first(connection, _HOLDING, *_triple(attempt.cmk)):
            raise CmkHeld from None

    def _one(self, condition: str, *parameters: str) -> Attempt | None:
        with self._database.reading() as connection:
            return self._first(connection, condition, *parameters)

    def _first(self, connection: Connection, condition: str, *parameters: str) -> Attempt | None:
        row = connection.execute(_select(condition), parameters).fetchone()
        return None if row is None else self._rows.read(row)


def _select(condition: str) -> str:
    return f"SELECT * FROM attempts WHERE {condition}"  # noqa: S608  # conditions of ours


def _triple(cmk: CmkName) -> tuple[str, str, str]:
    return cmk.account, cmk.region, cmk.key_id

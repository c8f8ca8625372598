"""SQLite as the ledger needs it: what is committed is on the disk, one writer at a time, errors in our words.

Two connections, each behind a lock: one writes, one reads, so that who only looks does not wait for the disk. In
memory they are one. A file may be used by two processes at once; BEGIN IMMEDIATE keeps their writes apart.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import structlog

from keybroker.adapters.ledger import schema
from keybroker.adapters.ledger.files import LedgerFileError, check_private, create
from keybroker.domain.errors import BrokerError, Reason

Connection = sqlite3.Connection
Row = sqlite3.Row
NotUnique = sqlite3.IntegrityError
PATIENCE_SECONDS = 5.0  # with the threads of this process, which write one after the other
BUSY_SECONDS = 0.2  # with another process, whose writes are as short as ours


class Database:
    """The connections. `file` None: in memory, gone with the process."""

    def __init__(self, *, file: Path | None, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self.file = file
        self._patience_seconds = patience_seconds
        self._writer_lock = threading.Lock()
        self._reader_lock = threading.Lock() if file else self._writer_lock
        self._writer: Connection | None = None
        self._reader: Connection | None = None
        self._identity: tuple[int, int] | None = None

    def connect(self, ledger_id: str) -> None:
        """Opens the file, or makes one with this ledger id. Raises LedgerFileError."""
        try:
            if self.file is not None:
                create(self.file)
                check_private(self.file)
                self._identity = _identity(self.file)
            self._writer = self._connect()
            _prepare(self._writer, ledger_id)
            self._reader = self._connect() if self.file is not None else self._writer
            if self.file is not None:
                self._reader.execute("PRAGMA query_only = ON")
            for connection in (self._writer, self._reader):
                connection.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")
        except OSError as error:
            raise LedgerFileError(f"can't open the ledger {self.file}: {error.strerror}") from None
        except sqlite3.Error as error:
            raise LedgerFileError(f"can't open the ledger {self.file}: {error}") from None

    def device(self) -> int | None:
        """The file system that it is on."""
        return self._identity[0] if self._identity else None

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """The connection that reads. Raises BrokerError LEDGER_UNAVAILABLE."""
        with self._taken(self._reader_lock), _in_our_words():
            yield _opened(self._reader)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction: committed and on the disk at the end, undone if the block raises.

        Raises BrokerError LEDGER_UNAVAILABLE; whether it was committed is then not known.
        """
        with self._taken(self._writer_lock), _in_our_words():
            self._check_in_place()
            connection = _opened(self._writer)
            with _transaction(connection, "BEGIN IMMEDIATE"):
                yield connection

    def empty_log(self) -> None:
        """Moves all of the write-ahead log into the file, as far as nobody reads, and cuts it to nothing."""
        with self._taken(self._writer_lock), _in_our_words(), closing(_opened(self._writer).cursor()) as cursor:
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Closes both connections."""
        for connection in (self._reader, self._writer):
            if connection is not None:
                connection.close()
        self._reader = self._writer = None

    def _connect(self) -> Connection:
        connection = sqlite3.connect(
            self.file or ":memory:",
            timeout=self._patience_seconds,
            isolation_level=None,  # transactions are begun here, by name
            check_same_thread=False,  # the locks see to it
        )
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA synchronous = FULL")  # in WAL mode: each commit is on the disk
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        return connection

    @contextmanager
    def _taken(self, lock: threading.Lock) -> Iterator[None]:
        if not lock.acquire(timeout=self._patience_seconds):
            raise _unavailable()
        try:
            yield
        finally:
            lock.release()

    def _check_in_place(self) -> None:
        """A file that was replaced under us would take writes that nobody finds again."""
        if self.file is None:
            return
        try:
            same = _identity(self.file) == self._identity
        except OSError:
            same = False
        if not same:
            structlog.get_logger().error("ledger_file_replaced")
            raise _unavailable()


def _prepare(connection: Connection, ledger_id: str) -> None:
    with _transaction(connection, "BEGIN"):
        _check_ours(connection)
    connection.execute("PRAGMA journal_mode = WAL")
    with _transaction(connection, "BEGIN IMMEDIATE"):
        if _is_empty(connection):
            _run(connection, schema.CREATE)
            connection.execute("INSERT INTO meta (one, ledger_id, sequence) VALUES (1, ?, 0)", (ledger_id,))
        while (version := _version(connection)) < schema.USER_VERSION:
            _run(connection, schema.MIGRATIONS[version])


def _check_ours(connection: Connection) -> None:
    if _is_empty(connection):
        return
    if connection.execute("PRAGMA application_id").fetchone()[0] != schema.APPLICATION_ID:
        raise LedgerFileError("the ledger's file is another program's database")
    if (version := _version(connection)) > schema.USER_VERSION:
        raise LedgerFileError(f"the ledger's file is of a newer keybroker (schema {version})")


def _version(connection: Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _run(connection: Connection, statements: str) -> None:
    for statement in filter(str.strip, statements.split(";")):
        connection.execute(statement)


def _is_empty(connection: Connection) -> bool:
    return bool(connection.execute("SELECT count(*) = 0 FROM sqlite_master").fetchone()[0])


@contextmanager
def _transaction(connection: Connection, begin: str) -> Iterator[None]:
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            with suppress(sqlite3.Error):  # what went wrong before is what counts
                connection.execute("ROLLBACK")


def _identity(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_dev, status.st_ino


def _opened(connection: Connection | None) -> Connection:
    if connection is None:
        raise _unavailable()
    return connection


@contextmanager
def _in_our_words() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        structlog.get_logger().error("ledger_unavailable", kind=getattr(error, "sqlite_errorname", "other"))
        raise _unavailable() from error


def _unavailable() -> BrokerError:
    return BrokerError(Reason.LEDGER_UNAVAILABLE, "The broker's ledger can't be read or written now.")

"""The file: durable, of one owner, and errors in our words."""

import re
import shutil
import sqlite3
import threading
import time
from contextlib import closing, suppress
from dataclasses import replace

import pytest
import structlog

from keybroker.adapters.ledger import schema
from keybroker.adapters.ledger.database import Database
from keybroker.adapters.ledger.files import LedgerFileError
from keybroker.domain.attempt import HOLDS_CMK, TERMINAL, UNFINISHED, State
from keybroker.domain.errors import BrokerError, Reason
from tests.unit.ledger.support import Files, attempt, cmk


def test_each_commit_is_on_the_disk(files: Files) -> None:
    ledger = files.ledger()
    with ledger._database.writing() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
        assert connection.execute("PRAGMA secure_delete").fetchone()[0] == 1


def test_block_that_raises_writes_nothing(files: Files) -> None:
    ledger = files.ledger()
    row = ledger.insert(attempt())
    with suppress(ZeroDivisionError), ledger._database.writing() as connection:
        connection.execute("DELETE FROM attempts")
        _ = 1 / 0
    assert ledger.find("jwt:caller", "request-1") == row


def test_writer_keeps_others_out_from_its_first_look_on(files: Files) -> None:
    ledger = files.ledger()
    with closing(sqlite3.connect(files.file, isolation_level=None, timeout=0)) as other:
        with ledger._database.writing(), pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.execute("BEGIN IMMEDIATE")


def test_files_are_of_their_owner_alone(files: Files) -> None:
    files.ledger().insert(attempt())
    modes = {path.name: path.stat().st_mode & 0o777 for path in files.folder.iterdir()}
    assert modes == dict.fromkeys(["ledger.db", "ledger.db-wal", "ledger.db-shm", "mark"], 0o600)


def test_group_may_use_the_file_but_not_everybody(files: Files) -> None:
    files.ledger()
    files.close()
    files.file.chmod(0o660)
    files.ledger()
    files.close()
    files.file.chmod(0o664)
    with pytest.raises(LedgerFileError, match=re.escape(f"{files.file} is open to every user")):
        files.ledger()


def test_file_that_is_no_database_is_refused(files: Files) -> None:
    files.file.write_bytes(b"not a database, but long enough to look" * 100)
    files.file.chmod(0o600)
    with pytest.raises(LedgerFileError, match="file is not a database"):
        files.ledger()


def test_database_of_another_program_is_refused_and_left_alone(files: Files) -> None:
    files.execute("CREATE TABLE other (x)")
    files.file.chmod(0o600)
    before = files.file.read_bytes()
    with pytest.raises(LedgerFileError, match="another program's database"):
        files.ledger()
    assert files.file.read_bytes() == before


def test_file_of_a_newer_schema_is_refused(files: Files) -> None:
    files.ledger()
    files.close()
    files.execute(f"PRAGMA user_version = {schema.USER_VERSION + 1}")
    with pytest.raises(LedgerFileError, match=r"of a newer keybroker \(schema 3\)"):
        files.ledger()


def test_file_of_the_first_schema_becomes_one_of_this_and_keeps_its_rows(files: Files) -> None:
    row = files.ledger().insert(attempt())
    fresh = columns(files)
    files.close()
    for statement in (
        "DROP TABLE audit_due",
        "ALTER TABLE meta DROP COLUMN audit_head",
        "PRAGMA user_version = 1",
    ):
        files.execute(statement)
    ledger = files.ledger()
    assert ledger.find("jwt:caller", "request-1") == row
    assert columns(files) == fresh
    assert (ledger.audit_due(), ledger.audit_head()) == ([], "")
    files.close()
    files.ledger()  # and it is one of this schema for good


def columns(files: Files) -> dict[str, set[tuple[object, ...]]]:
    """Of each table the names, types and defaults of its columns."""
    with closing(sqlite3.connect(files.file)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return {name: {row[1:] for row in connection.execute(f"PRAGMA table_info({name})")} for (name,) in tables}


@pytest.mark.parametrize("kind", ["no folder", "a folder"])
def test_file_that_can_not_be_made_is_refused(files: Files, kind: str) -> None:
    if kind == "a folder":
        files.file.mkdir(mode=0o700)
    else:
        shutil.rmtree(files.folder)
    with pytest.raises(LedgerFileError, match=r"can't open the (ledger|mark)"):
        files.ledger()


def test_empty_file_becomes_a_ledger(files: Files) -> None:
    """As a process leaves it that was killed right after it made it."""
    files.file.touch(mode=0o600)
    files.ledger().insert(attempt())


def test_ledger_that_another_process_holds_is_unavailable(files: Files) -> None:
    ledger = files.ledger(with_mark=False)
    ledger.insert(attempt(1))
    impatient = Database(file=files.file, patience_seconds=0.05)
    impatient.connect("unused")
    ledger._database, patient = impatient, ledger._database
    other = sqlite3.connect(files.file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with structlog.testing.capture_logs() as logs, pytest.raises(BrokerError) as caught:
        ledger.insert(attempt(2))
    assert caught.value.reason is Reason.LEDGER_UNAVAILABLE
    assert logs == [{"event": "ledger_unavailable", "log_level": "error", "kind": "SQLITE_BUSY"}]
    assert ledger.find("jwt:caller", "request-1")  # who looks does not wait
    other.execute("ROLLBACK")
    other.close()
    ledger.insert(attempt(2))
    patient.close()


def test_full_disk_is_unavailable_and_writes_nothing(files: Files) -> None:
    ledger = files.ledger()
    row = ledger.insert(attempt(1))
    with ledger._database.reading():
        pages = files.execute("PRAGMA page_count")[0][0]
    writer = ledger._database._writer
    assert writer is not None
    writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(BrokerError) as caught:
        ledger.update(replace(row, material_id="x" * 100_000))
    assert caught.value.reason is Reason.LEDGER_UNAVAILABLE
    assert caught.value.rule.retryable
    assert ledger.find("jwt:caller", "request-1") == row
    writer.execute("PRAGMA max_page_count = 100000")
    assert ledger.update(replace(row, sends=1)).sends == 1


def test_damaged_file_is_unavailable(files: Files) -> None:
    ledger = files.ledger()
    for number in range(50):
        ledger.insert(attempt(number))
    files.close()
    content = bytearray(files.file.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    files.file.write_bytes(content)
    with pytest.raises((BrokerError, LedgerFileError)) as caught:
        files.ledger().find("jwt:caller", "request-1")
    assert isinstance(caught.value, LedgerFileError) or caught.value.reason is Reason.LEDGER_UNAVAILABLE


@pytest.mark.parametrize("use", ["before", "after"])
def test_ledger_that_is_not_open_is_unavailable(files: Files, use: str) -> None:
    ledger = files.ledger()
    ledger.close()
    if use == "before":
        ledger._database = Database(file=files.file)
    for ask in (lambda: ledger.find("a", "b"), lambda: ledger.insert(attempt())):
        with pytest.raises(BrokerError) as caught:
            ask()
        assert caught.value.reason is Reason.LEDGER_UNAVAILABLE


def test_who_looks_does_not_wait_for_who_writes(files: Files) -> None:
    ledger = files.ledger()
    row = ledger.insert(attempt())
    with ledger._database.writing():
        found: list[object] = []
        thread = threading.Thread(target=lambda: found.append(ledger.find("jwt:caller", "request-1")))
        thread.start()
        thread.join(30)
        assert found == [row]


# What stands in SQL is what stands in the domain


def listed(condition: str) -> frozenset[State]:
    return frozenset(State(name) for name in re.findall(r"'([A-Z_]+)'", condition.partition(" IN ")[2]))


def test_conditions_have_the_states_of_the_domain() -> None:
    assert listed(schema.HOLDS) == frozenset(State) - HOLDS_CMK
    assert listed(schema.IS_UNFINISHED) == UNFINISHED
    assert listed(schema.IS_TOMBSTONE) == TERMINAL


def test_second_holder_is_refused_by_the_table_itself(files: Files) -> None:
    ledger = files.ledger()
    ledger.insert(attempt(1))
    ledger.insert(attempt(2, cmk=cmk("key-1"), state=State.RELEASED))
    with pytest.raises(sqlite3.IntegrityError):
        files.execute("UPDATE attempts SET state = 'PREPARED' WHERE record_id = 'record-2'")
    with pytest.raises(sqlite3.IntegrityError):
        files.execute("UPDATE attempts SET state = 'NO_SUCH_STATE' WHERE record_id = 'record-2'")


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (f"{schema.IS_UNFINISHED} ORDER BY version", "attempts_unfinished"),
        (f"account = '' AND region = '' AND key_id = '' AND {schema.HOLDS}", "attempts_holding"),
        ("account = '' AND region = '' AND key_id = ''", "attempts_of_cmk"),
        ("tag = ''", "attempts_by_tag"),
        (f"{schema.IS_TOMBSTONE} AND updated_at < 0", "attempts_tombstones"),
        ("caller = '' AND request_id = ''", "sqlite_autoindex_attempts_2"),
    ],
)
def test_no_search_reads_all_rows(files: Files, query: str, index: str) -> None:
    files.ledger()
    (plan,) = files.execute(f"EXPLAIN QUERY PLAN SELECT * FROM attempts WHERE {query}")
    assert f"USING INDEX {index}" in plan[3]


def test_ledger_that_another_process_keeps_locked_fails_soon(files: Files) -> None:
    """A handler must not outlive its deadline for it."""
    ledger = files.ledger()
    with closing(sqlite3.connect(files.file, isolation_level=None, timeout=0)) as other:
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        with pytest.raises(BrokerError) as caught:
            ledger.insert(attempt())
        assert caught.value.reason is Reason.LEDGER_UNAVAILABLE
        assert time.monotonic() - started < 4.0  # SQLite's own patience would be 5 s

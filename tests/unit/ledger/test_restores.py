"""A ledger that is an older copy is recognised by its mark; one that only stopped is not taken for one."""

import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from keybroker.adapters.ledger.restores import JUMP
from keybroker.adapters.ledger.sqlite import SqliteLedger
from keybroker.domain.attempt import HandedOut, State
from keybroker.ports import Restored, StaleVersion
from tests.unit.ledger.support import EXPIRY, PKCS1, Files, attempt, cmk, prepared


def copied(files: Files) -> Path:
    """A copy of the ledger's file as it is now, made while nobody has it open."""
    files.close()
    copy = files.folder.parent / "copy.db"
    shutil.copy(files.file, copy)
    return copy


def put_back(files: Files, copy: Path) -> SqliteLedger:
    files.close()
    shutil.copy(copy, files.file)
    return files.ledger()


def sequence(files: Files) -> int:
    number: int = files.execute("SELECT sequence FROM meta")[0][0]
    return number


def test_ledger_that_is_opened_again_is_not_restored(files: Files) -> None:
    files.ledger()
    for number in range(3):
        files.close()
        ledger = files.ledger()
        assert ledger.restored() is None
        ledger.insert(attempt(number))


@pytest.mark.parametrize("lost", ["insert", "update", "hand_out", "date_restore", "prune"])
def test_copy_that_lacks_one_write_is_recognised(files: Files, lost: str) -> None:
    ledger = files.ledger()
    row = ledger.insert(attempt(1))
    pair = HandedOut(b"\1" * 32, cmk(), PKCS1, EXPIRY)
    ledger.hand_out(pair)
    copy = copied(files)
    ledger = files.ledger()
    {
        "insert": lambda: ledger.insert(attempt(2)),
        "update": lambda: ledger.update(replace(row, state=State.RELEASED)),
        "hand_out": lambda: ledger.hand_out(replace(pair, token_digest=b"\2" * 32)),
        "date_restore": lambda: ledger.date_restore(EXPIRY),
        "prune": lambda: ledger.prune(EXPIRY + timedelta(days=1)),
    }[lost]()
    assert put_back(files, copy).restored() == Restored()


def test_copy_that_lacks_nothing_is_not_a_restore(files: Files) -> None:
    files.ledger().insert(attempt(1))
    assert put_back(files, copied(files)).restored() is None


def test_restore_is_known_for_ever(files: Files) -> None:
    ledger = files.ledger()
    ledger.insert(attempt(1))
    copy = copied(files)
    files.ledger().insert(attempt(2))
    put_back(files, copy).insert(attempt(3))
    files.close()
    assert files.ledger().restored() == Restored()


def test_restore_is_dated_once_and_anew_by_the_next(files: Files) -> None:
    copy = copied_before_a_write(files)
    ledger = put_back(files, copy)
    ledger.date_restore(EXPIRY)
    ledger.date_restore(EXPIRY + timedelta(hours=1))
    assert ledger.restored() == Restored(EXPIRY)
    files.close()
    assert files.ledger().restored() == Restored(EXPIRY)
    later = copied(files)
    files.ledger().insert(attempt(9))
    ledger = put_back(files, later)
    assert ledger.restored() == Restored(None)  # what was lost this time was later than the first date
    ledger.date_restore(EXPIRY + timedelta(hours=1))
    assert ledger.restored() == Restored(EXPIRY + timedelta(hours=1))


def copied_before_a_write(files: Files) -> Path:
    ledger = files.ledger()
    ledger.update(prepared(ledger.insert(attempt(1))))
    ledger.insert(attempt(2))
    copy = copied(files)
    files.ledger().insert(attempt(3))
    return copy


def test_prepared_rows_of_a_restored_ledger_are_marked(files: Files) -> None:
    ledger = put_back(files, copied_before_a_write(files))
    one, two = (ledger.find("jwt:caller", f"request-{number}") for number in (1, 2))
    assert one is not None
    assert two is not None
    assert one.restored
    assert one.import_token
    assert not two.restored
    assert ledger.update(replace(one, sends=2)).restored


def test_version_of_before_the_restore_writes_nothing(files: Files) -> None:
    copy = copied_before_a_write(files)
    before = files.ledger().find("jwt:caller", "request-1")
    assert before is not None
    ledger = put_back(files, copy)
    with pytest.raises(StaleVersion):
        ledger.update(replace(before, state=State.NOT_IMPORTED))
    row = ledger.find("jwt:caller", "request-1")
    assert row is not None
    assert row.version > before.version


def test_versions_jump_past_those_that_were_lost(files: Files) -> None:
    copy = copied_before_a_write(files)
    lost = sequence(files)
    ledger = put_back(files, copy)
    assert ledger.insert(attempt(4)).version > lost + JUMP - 10


def test_prepared_row_whose_key_is_gone_is_marked_all_the_same(files: Files) -> None:
    copy = copied_before_a_write(files)
    files.close()
    shutil.copy(copy, files.file)
    files.ledger(key=bytes(32))
    files.close()
    row = files.ledger().find("jwt:caller", "request-1")
    assert row is not None
    assert row.restored


def test_prepared_row_that_can_not_be_read_does_not_stop_the_start(files: Files) -> None:
    copy = copied_before_a_write(files)
    files.close()
    shutil.copy(copy, files.file)
    files.execute("UPDATE attempts SET body = '{' WHERE record_id = 'record-1'")
    assert files.ledger().restored() == Restored()


def test_backup_of_a_running_ledger_is_recognised_when_it_is_put_back(files: Files) -> None:
    """As docs/ledger.md says to make it and to put it back."""
    ledger = files.ledger()
    ledger.insert(attempt(1))
    copy = files.folder.parent / "copy.db"
    with closing(sqlite3.connect(files.file)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    copy.chmod(0o600)
    ledger.insert(attempt(2))
    for left in ("-wal", "-shm"):
        Path(f"{files.file}{left}").unlink()
    ledger = put_back(files, copy)
    assert ledger.restored() == Restored()
    assert ledger.find("jwt:caller", "request-1")
    assert ledger.find("jwt:caller", "request-2") is None


# The mark and the ledger apart


def test_ledger_that_is_gone_is_recognised(files: Files) -> None:
    files.ledger().insert(attempt(1))
    files.close()
    files.file.unlink()
    ledger = files.ledger()
    assert ledger.restored() == Restored()
    assert ledger.insert(attempt(2)).version > JUMP


def test_mark_that_is_gone_is_recognised(files: Files) -> None:
    files.ledger().insert(attempt(1))
    files.close()
    files.mark_file.unlink()
    assert files.ledger().restored() == Restored()


def test_mark_that_is_new_to_a_ledger_with_rows_is_recognised(files: Files) -> None:
    files.ledger(with_mark=False).insert(attempt(1))
    files.close()
    assert files.ledger().restored() == Restored()


@pytest.mark.parametrize("with_rows", [True, False])
def test_mark_that_is_damaged_is_recognised(files: Files, with_rows: bool) -> None:  # noqa: FBT001
    ledger = files.ledger()
    if with_rows:
        ledger.insert(attempt(1))
    files.close()
    files.mark_file.write_bytes(b"\1" * 8192)
    assert files.ledger().restored() == Restored()
    files.close()
    assert files.ledger().insert(attempt(2)).version > JUMP


def test_other_ledger_with_a_lower_sequence_is_recognised(files: Files) -> None:
    ledger = files.ledger()
    for number in range(5):
        ledger.insert(attempt(number))
    copy = copied(files)
    files.file.unlink()
    files.mark_file.unlink()
    files.ledger().insert(attempt(1))
    assert put_back(files, copy).restored() == Restored()
    files.close()
    ledger = files.ledger()
    ledger.insert(attempt(9))
    assert ledger.find("jwt:caller", "request-4")


def test_both_gone_is_a_new_ledger(files: Files) -> None:
    files.ledger().insert(attempt(1))
    files.close()
    for path in files.folder.iterdir():
        path.unlink()
    assert files.ledger().restored() is None


def test_ledger_and_mark_that_were_never_written_are_new(files: Files) -> None:
    files.ledger()
    files.close()
    files.file.unlink()
    assert files.ledger().restored() is None


def test_ledger_ahead_of_its_mark_is_not_restored(files: Files, tmp_path: Path) -> None:
    """It stopped between the commit and the mark."""
    files.ledger().insert(attempt(1))
    mark = files.mark_file.read_bytes()
    files.ledger().insert(attempt(2))
    files.close()
    files.mark_file.write_bytes(mark)
    assert files.ledger().restored() is None
    files.close()
    copy = copied(files)
    files.ledger().insert(attempt(3))
    assert put_back(files, copy).restored() == Restored()


def test_ledger_that_stopped_before_its_first_mark_is_new(files: Files) -> None:
    files.ledger()
    files.close()
    files.mark_file.write_bytes(bytes(8192))
    assert files.ledger().restored() is None


def test_restore_under_a_running_process_stops_its_writes(files: Files) -> None:
    """Whoever renames a copy into place leaves the process with a file that nobody finds again."""
    ledger = files.ledger()
    ledger.insert(attempt(1))
    copy = files.folder.parent / "copy.db"
    shutil.copy(files.file, copy)
    copy.rename(files.file)
    with pytest.raises(Exception, match="can't be read or written"):
        ledger.insert(attempt(2))
    files.file.unlink()
    with pytest.raises(Exception, match="can't be read or written"):
        ledger.insert(attempt(2))

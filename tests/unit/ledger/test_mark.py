"""The mark: durable, never backwards, and never lower for a write that was torn."""

import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from keybroker.adapters.ledger.files import LedgerFileError
from keybroker.adapters.ledger.mark import Mark, Recorded
from keybroker.domain.errors import BrokerError, Reason

LEDGER = uuid.UUID(int=7)
OTHER = uuid.UUID(int=8)
SLOTS = (0, 4096)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mark"


@pytest.fixture
def mark(path: Path) -> Iterator[Mark]:
    mark = connected(path)
    mark.claim(LEDGER, 0)
    yield mark
    mark.close()


def connected(path: Path, patience_seconds: float = 30.0) -> Mark:
    mark = Mark(path=path, patience_seconds=patience_seconds)
    mark.connect()
    return mark


def recorded(path: Path) -> Recorded | None:
    mark = connected(path)
    try:
        return mark.read().recorded
    finally:
        mark.close()


def damage(path: Path, *offsets: int) -> None:
    with path.open("r+b") as file:
        for offset in offsets:
            file.seek(offset + 30)
            byte = file.read(1)[0]
            file.seek(offset + 30)
            file.write(bytes([byte ^ 1]))


def test_new_mark_is_blank_and_of_its_owner_alone(path: Path) -> None:
    mark = connected(path)
    reading = mark.read()
    mark.close()
    assert reading.recorded is None
    assert reading.blank
    assert path.stat().st_mode & 0o777 == 0o600


def test_mark_says_what_it_was_raised_to(mark: Mark, path: Path) -> None:
    for sequence in (1, 2, 5, 2**40):
        mark.raise_to(sequence)
        assert recorded(path) == Recorded(LEDGER, sequence)


def test_mark_never_goes_backwards(mark: Mark, path: Path) -> None:
    mark.raise_to(5)
    mark.raise_to(3)
    mark.claim(LEDGER, 4)
    assert recorded(path) == Recorded(LEDGER, 5)


def test_mark_of_two_processes_never_goes_backwards(mark: Mark, path: Path) -> None:
    second = connected(path)
    second.claim(LEDGER, 0)
    second.raise_to(9)
    mark.raise_to(8)
    second.close()
    assert recorded(path) == Recorded(LEDGER, 9)


def test_raises_of_many_threads_end_at_the_highest(mark: Mark, path: Path) -> None:
    second = connected(path)
    second.claim(LEDGER, 0)
    failures: list[BaseException] = []

    def climb(mine: Mark, start: int) -> None:
        try:
            for sequence in range(start, 400, 4):
                mine.raise_to(sequence)
                now = mine.read().recorded
                assert now is not None
                assert now.sequence >= sequence
        except BaseException as error:  # noqa: BLE001  # shown below
            failures.append(error)

    threads = [threading.Thread(target=climb, args=((mark, second)[start % 2], start)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    second.close()
    assert not failures
    assert recorded(path) == Recorded(LEDGER, 399)


@pytest.mark.parametrize("slot", SLOTS)
def test_torn_slot_leaves_the_one_before_it(mark: Mark, path: Path, slot: int) -> None:
    mark.raise_to(1)
    mark.raise_to(2)
    damage(path, slot)
    found = recorded(path)
    assert found is not None
    assert found.sequence in {1, 2}
    mark.raise_to(3)  # over the torn one
    assert recorded(path) == Recorded(LEDGER, 3)
    mark.raise_to(4)
    assert recorded(path) == Recorded(LEDGER, 4)


def test_slots_are_written_by_turns(mark: Mark, path: Path) -> None:
    before = path.read_bytes()
    changed = []
    for sequence in range(1, 5):
        mark.raise_to(sequence)
        after = path.read_bytes()
        changed.append([slot for slot in SLOTS if before[slot : slot + 64] != after[slot : slot + 64]])
        before = after
    assert changed in ([[0], [4096], [0], [4096]], [[4096], [0], [4096], [0]])


def test_damaged_mark_says_nothing_and_is_not_blank(mark: Mark, path: Path) -> None:
    mark.raise_to(1)
    damage(path, *SLOTS)
    reading = mark.read()
    assert reading.recorded is None
    assert not reading.blank
    with pytest.raises(BrokerError) as caught:
        mark.raise_to(2)
    assert caught.value.reason is Reason.LEDGER_UNAVAILABLE


@pytest.mark.parametrize("length", [0, 10, 63, 4100])
def test_truncated_mark_is_read_without_an_error(mark: Mark, path: Path, length: int) -> None:
    mark.raise_to(1)
    os.truncate(path, length)
    reading = mark.read()
    assert reading.blank == (length == 0)


def test_mark_of_another_ledger_is_not_raised(mark: Mark, path: Path) -> None:
    mark.raise_to(50)
    other = connected(path)
    other.claim(OTHER, 3)
    other.close()
    assert recorded(path) == Recorded(OTHER, 3)
    with pytest.raises(BrokerError, match="another ledger"):
        mark.raise_to(51)
    assert recorded(path) == Recorded(OTHER, 3)


def test_each_raise_is_on_the_disk_when_it_returns(mark: Mark, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Recorded | None] = []
    real = os.fdatasync

    def fdatasync(descriptor: int) -> None:
        real(descriptor)
        synced.append(mark._read()[0].recorded)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    mark.raise_to(1)
    mark.raise_to(2)
    assert synced == [Recorded(LEDGER, 1), Recorded(LEDGER, 2)]


def test_raise_that_failed_is_made_up_for(mark: Mark, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, content: bytes, offset: int) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        for fails in (lambda: mark.raise_to(1), mark.settle):
            with pytest.raises(BrokerError) as caught:
                fails()
            assert caught.value.reason is Reason.LEDGER_UNAVAILABLE
    mark.settle()
    assert recorded(path) == Recorded(LEDGER, 1)


def test_mark_that_a_stopped_process_holds_is_not_waited_for_for_long(mark: Mark, path: Path) -> None:
    impatient = connected(path, patience_seconds=0.1)
    impatient.claim(LEDGER, 0)
    with mark._locked(), pytest.raises(BrokerError, match="held by somebody else"):
        impatient.raise_to(1)
    impatient.raise_to(2)
    impatient.close()
    assert recorded(path) == Recorded(LEDGER, 2)


@pytest.mark.parametrize("kind", ["no folder", "a folder", "open to others"])
def test_mark_that_can_not_be_used_is_refused(path: Path, kind: str) -> None:
    if kind == "a folder":
        path.mkdir(mode=0o700)
    if kind == "open to others":
        path.touch()
        path.chmod(0o604)
    with pytest.raises(LedgerFileError, match="mark"):
        connected(path / "x" if kind == "no folder" else path)

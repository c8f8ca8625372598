"""The mark: a small file outside the ledger that knows how far the ledger had come.

It holds the ledger's id and the highest committed sequence. Two slots are written by turns, each with a checksum, so
that a write which is torn leaves the slot before it. The file is locked (flock) while it is written, so two processes
never take it backwards. Whether the ledger was restored is judged in restores.py.
"""

import fcntl
import hashlib
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from keybroker.adapters.ledger.files import LedgerFileError, check_private, create
from keybroker.domain.errors import BrokerError, Reason

_MAGIC = b"KBMARK1\n"
_HEAD_BYTES = len(_MAGIC) + 16 + 8
_SLOT_BYTES = _HEAD_BYTES + 32
_SLOT_OFFSETS = (0, 4096)  # blocks of their own: what tears one does not touch the other
_FILE_BYTES = 2 * 4096
_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the mark says."""

    ledger_id: uuid.UUID
    sequence: int


@dataclass(frozen=True, slots=True)
class Reading:
    """`recorded` is None if the mark says nothing: because it is `blank`, or else because it is damaged."""

    recorded: Recorded | None
    blank: bool


class Mark:
    """One mark file. Every method but connect() raises BrokerError LEDGER_UNAVAILABLE."""

    def __init__(self, *, path: Path, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        self._path = path
        self._patience_seconds = patience_seconds
        self._lock = threading.Lock()
        self._due_lock = threading.Lock()
        self._due = 0
        self._done = 0
        self._ledger_id = uuid.UUID(int=0)
        self._descriptor = -1

    def connect(self) -> None:
        """Opens the file, or makes a blank one. Raises LedgerFileError."""
        try:
            create(self._path, bytes(_FILE_BYTES))
            check_private(self._path)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise LedgerFileError(f"can't open the mark {self._path}: {error.strerror}") from None

    def device(self) -> int:
        """The file system that it is on."""
        return os.fstat(self._descriptor).st_dev

    def read(self) -> Reading:
        """What it says now."""
        with self._locked():
            return self._read()[0]

    def claim(self, ledger_id: uuid.UUID, sequence: int) -> None:
        """Makes it this ledger's, at this sequence or, if it was this ledger's, at a higher one that it has."""
        with self._locked():
            self._ledger_id = ledger_id
            recorded = self._read()[0].recorded
            before = recorded.sequence if recorded and recorded.ledger_id == ledger_id else -1
            if before < sequence:
                self._write(sequence)

    def raise_to(self, sequence: int) -> None:
        """Returns once the mark on the disk is at least `sequence`, which is committed."""
        with self._due_lock:
            self._due = max(self._due, sequence)
        self.settle()

    def settle(self) -> None:
        """Makes up for a raise_to that failed."""
        wanted = self._due
        if self._done >= wanted:
            return
        with self._locked():
            recorded = self._read()[0].recorded
            if recorded is None or recorded.ledger_id != self._ledger_id:
                raise _unavailable("The mark of the broker's ledger is damaged or another ledger's.")
            if recorded.sequence < wanted:
                self._write(self._due)  # what other threads have committed meanwhile goes with it
            self._done = max(self._done, wanted)

    def close(self) -> None:
        """Lets go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _read(self) -> tuple[Reading, int]:
        """What it says, and the slot to write next."""
        slots = [os.pread(self._descriptor, _SLOT_BYTES, offset) for offset in _SLOT_OFFSETS]
        known = [(record.sequence, place, record) for place, slot in enumerate(slots) if (record := _parsed(slot))]
        newest = max(known, key=lambda entry: entry[0], default=None)
        recorded = newest[2] if newest else None
        return Reading(recorded, blank=not any(map(any, slots))), 1 - newest[1] if newest else 0

    def _write(self, sequence: int) -> None:
        head = _MAGIC + self._ledger_id.bytes + sequence.to_bytes(8)
        slot = head + hashlib.sha256(head).digest()
        reading, place = self._read()
        self._put(slot, _SLOT_OFFSETS[place])
        if reading.recorded and reading.recorded.ledger_id != self._ledger_id:
            self._put(bytes(_SLOT_BYTES), _SLOT_OFFSETS[1 - place])  # another ledger's, which may be the higher one

    def _put(self, content: bytes, offset: int) -> None:
        if os.pwrite(self._descriptor, content, offset) != len(content):
            raise _unavailable("The mark of the broker's ledger can't be written.")
        os.fdatasync(self._descriptor)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone among threads and processes, for a moment. A process that is stopped meanwhile is not waited for."""
        ends_at = time.monotonic() + self._patience_seconds
        if not self._lock.acquire(timeout=self._patience_seconds):
            raise _unavailable("The mark of the broker's ledger is held by somebody else.")
        try:
            self._flock(ends_at)
            try:
                yield
            finally:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        except OSError as error:
            raise _unavailable("The mark of the broker's ledger can't be written.") from error
        finally:
            self._lock.release()

    def _flock(self, ends_at: float) -> None:
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > ends_at:
                    raise _unavailable("The mark of the broker's ledger is held by somebody else.") from None
                time.sleep(0.001)
            else:
                return


def _parsed(slot: bytes) -> Recorded | None:
    head, checksum = slot[:_HEAD_BYTES], slot[_HEAD_BYTES:]
    if not head.startswith(_MAGIC) or hashlib.sha256(head).digest() != checksum:
        return None
    return Recorded(uuid.UUID(bytes=head[8:24]), int.from_bytes(head[24:]))


def _unavailable(message: str) -> BrokerError:
    return BrokerError(Reason.LEDGER_UNAVAILABLE, message)

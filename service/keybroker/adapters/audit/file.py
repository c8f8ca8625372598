"""The file of the audit log: appended to, on the disk when append() returns, cut back when that fails.

It knows nothing of what lines say. Not thread-safe: log.py has the lock. What hangs here, as a disk behind a network
that is gone, holds its caller for as long as the kernel does.
"""

import errno
import fcntl
import os
import stat
from pathlib import Path

import structlog

from keybroker.adapters.audit.lines import LINE_BEGINS, MAX_LINE_BYTES

_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_WONT_PASS = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENAMETOOLONG,
    errno.ENXIO,
    errno.ENODEV,
}
_CLOSED = -1


class AuditFileError(ValueError):
    """The file can't be used, and waiting won't help. The text names it and says why."""


class AuditFile:
    """One file for one process at a time. `_good` is its length up to the last line that counts.

    Each method raises OSError, and ready() also AuditFileError.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = _CLOSED
        self._inode = (0, 0)
        self._good = 0
        self._doubtful = b""  # what may stand after _good, of ours, and does not count

    def ready(self) -> None:
        """Opens what the path names now, if that is another file than before, and looks at its length."""
        if self._descriptor != _CLOSED and not self._is_at_path():
            self.close()
        if self._descriptor == _CLOSED:
            self._open()
        self._cut_back()
        size = os.fstat(self._descriptor).st_size
        if size != self._good:
            event = "audit_file_cut" if size < self._good else "audit_file_grew"
            structlog.get_logger().error(event, bytes=size, expected_bytes=self._good)
            self._good = size

    def trim(self) -> int:
        """Cuts an incomplete last line off, of a process that died; returns how many bytes it had.

        What can't be the beginning of one of ours stays, for verify to find: it may be another program's file.
        """
        torn = self._tail().rpartition(b"\n")[2]
        if not torn or len(torn) >= MAX_LINE_BYTES or not _may_be_ours(torn):
            return 0
        self._good -= len(torn)
        os.ftruncate(self._descriptor, self._good)
        return len(torn)

    def last_line(self) -> bytes | None:
        """The last line without its newline; None if there is none."""
        return self._tail().removesuffix(b"\n").rpartition(b"\n")[2] if self._good else None

    def append(self, data: bytes) -> None:
        """Writes whole lines. After a failure none of them is there, or they go away before the next one comes."""
        if self._good and os.pread(self._descriptor, 1, self._good - 1) != b"\n":
            data = b"\n" + data  # somebody else's line has no end
        self._doubtful = data
        try:
            self._write(data)
        except OSError:
            self._try_to_cut_back()
            raise
        self._good += len(data)
        self._doubtful = b""

    def take_back(self, data: bytes) -> None:
        """Removes what append() has just added, or the end of it; raises nothing: else it happens before the next."""
        self._good -= len(data)
        self._doubtful = data
        self._try_to_cut_back()

    def close(self) -> None:
        """Lets go of the file and its lock."""
        if self._descriptor != _CLOSED:
            os.close(self._descriptor)
            self._descriptor = _CLOSED

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:  # once, except on a disk that has just become full: then the second time says so
            rest = rest[os.write(self._descriptor, rest) :]
        os.fdatasync(self._descriptor)

    def _try_to_cut_back(self) -> None:
        try:
            self._cut_back()
        except OSError:  # whatever is wrong with this descriptor, the next one may be better
            self.close()

    def _cut_back(self) -> None:
        """Removes what does not count; bytes that are not ours stay."""
        if not self._doubtful:
            return
        found = os.pread(self._descriptor, len(self._doubtful) + 1, self._good)
        if found and self._doubtful.startswith(found):
            os.ftruncate(self._descriptor, self._good)
            os.fdatasync(self._descriptor)
        self._doubtful = b""

    def _is_at_path(self) -> bool:
        try:
            found = self._path.lstat()
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == self._inode

    def _open(self) -> None:
        try:
            descriptor = os.open(self._path, _FLAGS, 0o600)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise AuditFileError(f"{self._path} is a symbolic link") from None
            if error.errno in _WONT_PASS:
                raise AuditFileError(f"{self._path} can't be opened: {error.strerror}") from None
            raise
        try:
            self._take(descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    def _take(self, descriptor: int) -> None:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise AuditFileError(f"{self._path} is no regular file")
        if found.st_mode & stat.S_IRWXO:  # the group may: Kubernetes' fsGroup needs it
            raise AuditFileError(f"{self._path} is open to every user of this machine: chmod o= it")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AuditFileError(f"{self._path} is in use by another process") from None
        inode = (found.st_dev, found.st_ino)
        size = os.fstat(descriptor).st_size
        if inode != self._inode:
            self._inode, self._good, self._doubtful = inode, size, b""
        if not size:
            self._see_the_name_onto_the_disk()
        self._descriptor = descriptor

    def _see_the_name_onto_the_disk(self) -> None:
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _tail(self) -> bytes:
        """Enough for a torn line and a whole one."""
        start = max(0, self._good - 2 * MAX_LINE_BYTES)
        return os.pread(self._descriptor, self._good - start, start)


def _may_be_ours(torn: bytes) -> bool:
    """Whether a line of ours begins so; a power cut can leave zeros in place of what was to come."""
    begun = torn.rstrip(b"\0")[: len(LINE_BEGINS)]
    return LINE_BEGINS.startswith(begun)

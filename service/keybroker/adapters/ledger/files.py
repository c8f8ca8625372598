"""Files that the ledger makes, and what it says when they can't be used."""

import os
import stat
from pathlib import Path

_OTHERS = stat.S_IRWXO


class LedgerFileError(ValueError):
    """A file of the ledger can't be used. The text names it and says why."""


def create(path: Path, content: bytes = b"") -> bool:
    """Makes the file if it is not there, for its owner alone, and sees it onto the disk. Raises OSError."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return False
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return True


def check_private(path: Path) -> None:
    """Refuses a file that everybody on the machine may read or write. The group may: Kubernetes' fsGroup needs it.

    Raises LedgerFileError, OSError.
    """
    if path.stat().st_mode & _OTHERS:
        raise LedgerFileError(f"{path} is open to every user of this machine: chmod o= it")

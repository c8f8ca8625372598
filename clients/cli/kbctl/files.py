"""Reads and writes the files of the OpenSSL path: public key, import token, wrapped key material."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from kbctl.failures import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

STDIN = "-"
MAX_INPUT_BYTES = 64 * 1024


def read_input(path: str) -> bytes:
    """The contents of a file, or of stdin for "-"; at most 64 KiB."""
    try:
        if path == STDIN and sys.stdin is None:
            raise UsageError("standard input is closed")
        if path == STDIN:
            data = sys.stdin.buffer.read(MAX_INPUT_BYTES + 1)
        else:
            with Path(path).open("rb") as file:
                data = file.read(MAX_INPUT_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    if len(data) > MAX_INPUT_BYTES:
        raise UsageError(f"{path}: longer than {MAX_INPUT_BYTES} bytes")
    return data


def check_outputs(paths: Iterable[Path], *, force: bool) -> None:
    """Refuses files that write_private would not write, before anything is asked of the broker."""
    chosen = [path.absolute() for path in paths]
    if len(set(chosen)) < len(chosen):
        raise UsageError("the output files must be different files")
    for path in chosen:
        if not path.parent.is_dir():
            raise UsageError(f"{path.parent}: no such directory")
        if os.path.lexists(path) and not (force and path.is_file()):
            raise UsageError(f"{path} exists: choose another name, or --force to replace a regular file")


def write_private(contents: Mapping[Path, bytes]) -> None:
    """Writes files with mode 0600, all of them or none.

    They belong together: a public key beside the token of another answer would make key material that
    nobody can unwrap. So each is written beside its place first, and then moved there.
    """
    staged: list[tuple[Path, Path]] = []
    try:
        for path, data in contents.items():
            descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
            staged.append((Path(temporary), path))
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
        for temporary_path, path in staged:
            temporary_path.replace(path)
    except OSError as error:
        raise UsageError(str(error)) from error
    finally:
        for temporary_path, _ in staged:
            temporary_path.unlink(missing_ok=True)

"""A disk that is full when a test wants it: a tmpfs of 64 KiB. Mounting one needs root."""

import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

_FILLER = "filler"


class SmallDisk:
    """Mounted on `folder` inside the `with`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Self:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", self.folder], check=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        subprocess.run(["umount", "--lazy", self.folder], check=True)

    def fill(self) -> None:
        """Leaves room for nothing."""
        with (self.folder / _FILLER).open("wb", buffering=0) as filler:
            for size in (4096, 1):
                try:
                    while True:
                        filler.write(bytes(size))
                except OSError:
                    continue

    def clear(self) -> None:
        """Gives the room back."""
        (self.folder / _FILLER).unlink()

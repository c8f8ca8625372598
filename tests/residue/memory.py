"""What is left of secrets in the memory of another process, or in a core image of it.

Looked for is every run of 8 bytes of a secret, at every address, and the same run backwards: OpenSSL keeps big numbers
with their lowest byte first, so material that was padded and not masked (PKCS#1 v1.5) would stand there backwards.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from io import FileIO
from pathlib import Path

_WINDOW_BYTES = 8
_PART_BYTES = 1 << 22
_PAGE_BYTES = 4096
_MAPPING = re.compile(r"(?P<start>[0-9a-f]+)-(?P<end>[0-9a-f]+) rw.. \S+ \S+ \S+ *(?P<name>.*)")


class Windows:
    """The runs of 8 bytes of some secrets, and the number of the secret that each is of."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._secret_of = {
            int.from_bytes(order[at : at + _WINDOW_BYTES], sys.byteorder): number
            for number, secret in enumerate(secrets)
            for order in (secret, secret[::-1])
            for at in range(len(order) - _WINDOW_BYTES + 1)
        }
        self._windows = frozenset(self._secret_of)

    def found_in(self, memory: bytes) -> set[int]:
        """The numbers of the secrets of which a run is in `memory`."""
        view = memoryview(memory)
        found: set[int] = set()
        for offset in range(_WINDOW_BYTES):
            length = (len(view) - offset) // _WINDOW_BYTES * _WINDOW_BYTES
            found |= self._windows.intersection(view[offset : offset + length].cast("Q"))
        return {self._secret_of[window] for window in found}


def residues(pid: int, secrets: Sequence[bytes]) -> dict[str, set[int]]:
    """Where in the memory that the process can write runs of the secrets are: their numbers by mapping."""
    windows = Windows(secrets)
    found: dict[str, set[int]] = {}
    mappings = list(_writable_mappings(pid))
    assert mappings, "the process has gone"
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for start, end, name in mappings:
            for part in _parts(memory, start, end):
                if numbers := windows.found_in(part):
                    found.setdefault(f"{name or 'anonymous'} {start:x}-{end:x}", set()).update(numbers)
    return found


def residues_in_file(path: Path, secrets: Sequence[bytes]) -> set[int]:
    """The numbers of the secrets of which runs are in a file."""
    windows = Windows(secrets)
    with path.open("rb", buffering=0) as image:
        return set().union(*(windows.found_in(part) for part in _parts(image, 0, path.stat().st_size)))


def _writable_mappings(pid: int) -> Iterator[tuple[int, int, str]]:
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if match := _MAPPING.match(line):
            yield int(match["start"], 16), int(match["end"], 16), match["name"]


def _parts(memory: FileIO, start: int, end: int) -> Iterator[bytes]:
    """Its bytes, less pages of zeros. Parts overlap, so that a run at their border is in one of them."""
    while start < end:
        memory.seek(start)
        length = min(_PART_BYTES + _WINDOW_BYTES - 1, end - start)
        part = memory.read(length)
        assert len(part) == length, "a part that can't be read is not one without secrets"
        yield _without_empty_pages(part)
        start += _PART_BYTES


def _without_empty_pages(part: bytes) -> bytes:
    pages = (part[at : at + _PAGE_BYTES] for at in range(0, len(part), _PAGE_BYTES))
    return b"".join(page for page in pages if page.count(0) != len(page))

"""Memory for secrets: locked where the system allows it, left out of core images, never given back to an allocator.

A slot is one `bytes` object at an address that is chosen here, since OpenSSL's binding takes nothing but `bytes` and
Python's own allocator would put it among others, on pages that can't be locked for one object. The object is made by
copying another one's header: the layout of CPython with a global lock, which `_check_layout` compares. Its reference
count starts so high that CPython never frees it. A slot is used again when nobody refers to it any more, so a reference
that was kept by mistake sees zeros, never the next secret.

Locking can fail (RLIMIT_MEMLOCK); the memory is then used unlocked, and `all_locked` says so. No file is mapped.
Source: mmap(2), mlock(2), madvise(2).
"""

import ctypes
import sys
import threading
from typing import Never

SLOT_BYTES = 128
_PAGE_BYTES = 4096
_HEADER_BYTES = bytes.__basicsize__ - 1  # where the data of a bytes object starts
_KNOWN_HEADER_BYTES = 32  # reference count, type, length, hash
_REFERENCES = 1 << 28  # more than are ever dropped; far from the counts that mean "immortal" to CPython 3.12 and later
_PROT_READ_WRITE = 0x1 | 0x2
_MAP_PRIVATE_ANONYMOUS = 0x02 | 0x20
_MADV_DONTDUMP = 16
_MAP_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Slot:
    """Memory of one secret. `secret` is the bytes object in it while the slot is taken. It can't be pickled."""

    __slots__ = ("_address", "secret")

    def __init__(self, address: int) -> None:
        self._address = address
        self.secret: bytes | None = None

    @property
    def is_free(self) -> bool:
        """Whether nothing refers to the bytes object."""
        return _reference_count(self._address).value in {0, _REFERENCES}

    def make(self, length_bytes: int) -> memoryview:
        """Makes the bytes object, of zeros, and gives a view to write into it."""
        blank = bytes(length_bytes)
        ctypes.memmove(self._address, id(blank), _HEADER_BYTES + length_bytes + 1)
        _reference_count(self._address).value = _REFERENCES
        self.secret = ctypes.cast(self._address, ctypes.py_object).value
        return memoryview((ctypes.c_ubyte * length_bytes).from_address(self._address + _HEADER_BYTES)).cast("B")

    def wipe(self) -> None:
        """Overwrites the secret with zeros and lets go of it. Can be called again."""
        if self.secret is not None:
            ctypes.memset(self._address + _HEADER_BYTES, 0, len(self.secret))
            self.secret = None

    def __reduce__(self) -> Never:
        raise TypeError("a slot of secret memory can't be copied or pickled")


class SecretMemory:
    """The slots of a process. They are mapped by `prepare`, or a page at a time when they are needed, and kept."""

    def __init__(self, *, exclude_from_dumps: bool = True) -> None:
        self.exclude_from_dumps = exclude_from_dumps
        self.all_locked = True
        self.all_excluded = True
        self._lock = threading.Lock()
        self._free: list[Slot] = []

    def take(self) -> Slot:
        """A slot of the caller's own, until `give_back`. Raises MemoryError if no page can be had."""
        with self._lock:
            for at, slot in enumerate(self._free):
                if slot.is_free:
                    return self._free.pop(at)
            self._map_page()
            return self._free.pop()

    def give_back(self, slot: Slot) -> None:
        """Wipes the slot. It is taken again once nothing refers to what was in it."""
        slot.wipe()
        with self._lock:
            self._free.append(slot)

    def prepare(self, secrets: int) -> None:
        """Maps pages for so many secrets, so that `all_locked` and `all_excluded` say what is true of all of them."""
        with self._lock:
            while len(self._free) < secrets:
                self._map_page()

    def _map_page(self) -> None:
        _check_layout()
        page = _libc.mmap(None, _PAGE_BYTES, _PROT_READ_WRITE, _MAP_PRIVATE_ANONYMOUS, -1, 0)
        if page == _MAP_FAILED:
            raise MemoryError("no memory for key material")
        if _libc.mlock(page, _PAGE_BYTES) != 0:
            self.all_locked = False
        if not self.exclude_from_dumps or _libc.madvise(page, _PAGE_BYTES, _MADV_DONTDUMP) != 0:
            self.all_excluded = False
        self._free += [Slot(page + offset) for offset in range(0, _PAGE_BYTES, SLOT_BYTES)]


def _reference_count(address: int) -> ctypes.c_ssize_t:
    return ctypes.c_ssize_t.from_address(address)


def _check_layout() -> None:
    """Raises RuntimeError on a Python whose bytes objects look different."""
    probe = bytes.fromhex("5ec4e7")
    data = ctypes.string_at(id(probe) + _HEADER_BYTES, len(probe))
    counted = 0 < _reference_count(id(probe)).value <= sys.getrefcount(probe)
    if _HEADER_BYTES != _KNOWN_HEADER_BYTES or data != probe or not counted:
        raise RuntimeError("the layout of this Python's bytes objects is not known: key material can't be held")


MEMORY = SecretMemory()
"""The one of this process: what is locked and left out of dumps is a matter of the process."""

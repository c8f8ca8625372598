"""What the process asks of the system so that its memory stays its own, and what came of it.

`protect_from_dumps` is called once, by `serve` and `probe-kms`, before the first secret is read: no core file
(RLIMIT_CORE), and not dumpable, which also keeps core handlers that ignore the limit, and every other process without
CAP_SYS_PTRACE, from its memory.
Key material itself is locked and left out of core images by domain/secret_memory.py.
Source: core(5), PR_SET_DUMPABLE(2const), proc_swaps(5), proc_pid_status(5).
"""

import ctypes
import os
import re
import resource
from collections.abc import Mapping
from pathlib import Path

from keybroker.domain.secret_memory import SecretMemory
from keybroker.settings import HardeningSettings

_PR_GET_DUMPABLE = 3
_PR_SET_DUMPABLE = 4
_VM_SWAP = re.compile(r"^VmSwap:\s+(\d+) kB$", re.MULTILINE)
_PROC = Path("/proc")


def protect_from_dumps() -> None:
    """No core image of this process, and no reading of its memory by others. Raises OSError if the system refuses."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if _prctl(_PR_SET_DUMPABLE, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Hardening:
    """The state of the protections, for readiness. Looked up at each call: swap can be switched on at any time."""

    def __init__(self, settings: HardeningSettings, *, memory: SecretMemory, proc: Path = _PROC) -> None:
        self._settings = settings
        self._memory = memory
        self._proc = proc

    def state(self) -> Mapping[str, object]:
        """What is known, in plain values. None: the system does not say."""
        return {
            "memory_locked": self._memory.all_locked,
            "memory_excluded_from_dumps": self._memory.all_excluded,
            "dumps_off": _prctl(_PR_GET_DUMPABLE) == 0 and resource.getrlimit(resource.RLIMIT_CORE)[1] == 0,
            "swap": self._swap(),
            "swapped_kib": self._swapped_kib(),
        }

    def is_as_required(self) -> bool:
        """Whether everything holds that the settings require. What can't be found out does not hold."""
        locked = self._memory.all_locked or not self._settings.require_memory_lock
        return locked and (self._swap() is False or not self._settings.require_no_swap)

    def _swap(self) -> bool | None:
        """Whether the machine has swap: /proc/swaps has a line beside its heading."""
        text = self._read("swaps")
        return None if text is None else len(text.splitlines()) > 1

    def _swapped_kib(self) -> int | None:
        """How much of this process is swapped out."""
        match = _VM_SWAP.search(self._read("self/status") or "")
        return None if match is None else int(match[1])

    def _read(self, name: str) -> str | None:
        try:
            return (self._proc / name).read_text(encoding="ascii", errors="replace")
        except OSError:
            return None


def _prctl(option: int, value: int = 0) -> int:
    return int(ctypes.CDLL(None, use_errno=True).prctl(option, ctypes.c_ulong(value), *[ctypes.c_ulong(0)] * 3))

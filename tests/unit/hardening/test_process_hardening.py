import subprocess
import sys
from pathlib import Path

import pytest

from keybroker.domain.secret_memory import SecretMemory
from keybroker.process_hardening import Hardening
from keybroker.settings import HardeningSettings

HEADING = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
SWAP = HEADING + "/dev/vda2                               partition\t2097148\t\t0\t\t-2\n"

PROTECTED = """
from pathlib import Path
import resource
from keybroker.domain.secret_memory import SecretMemory
from keybroker.process_hardening import Hardening, protect_from_dumps
from keybroker.settings import HardeningSettings
most = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (most, most))
hardening = Hardening(HardeningSettings(), memory=SecretMemory())
assert hardening.state()["dumps_off"] is False
protect_from_dumps()
assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
assert hardening.state()["dumps_off"] is True
assert hardening.state()["swapped_kib"] is not None
"""


def proc(folder: Path, *, swaps: str | None = HEADING, swapped_kib: int = 0) -> Path:
    """What the system says, as files."""
    if swaps is not None:
        (folder / "swaps").write_text(swaps)
    (folder / "self").mkdir()
    (folder / "self" / "status").write_text(f"Name:\tkeybroker\nVmRSS:\t   64 kB\nVmSwap:\t   {swapped_kib} kB\n")
    return folder


def hardening(folder: Path, *, locked: bool = True, **required: bool) -> Hardening:
    memory = SecretMemory()
    memory.all_locked = locked
    return Hardening(HardeningSettings(**required), memory=memory, proc=folder)


def test_protect_from_dumps_holds_for_the_process() -> None:
    subprocess.run([sys.executable, "-c", PROTECTED], check=True)


@pytest.mark.parametrize(("swaps", "told"), [(HEADING, False), (SWAP, True), (None, None)])
def test_state_tells_of_swap(tmp_path: Path, swaps: str | None, told: bool | None) -> None:  # noqa: FBT001
    state = hardening(proc(tmp_path, swaps=swaps, swapped_kib=12)).state()
    assert state["swap"] is told
    assert state["swapped_kib"] == 12


def test_state_without_proc_says_that_it_is_not_known(tmp_path: Path) -> None:
    state = hardening(tmp_path / "nothing").state()
    assert (state["swap"], state["swapped_kib"]) == (None, None)


@pytest.mark.parametrize(
    ("required", "locked", "swaps", "fine"),
    [
        ({}, False, SWAP, True),
        ({"require_memory_lock": True}, True, SWAP, True),
        ({"require_memory_lock": True}, False, HEADING, False),
        ({"require_no_swap": True}, False, HEADING, True),
        ({"require_no_swap": True}, True, SWAP, False),
        ({"require_no_swap": True}, True, None, False),
        ({"require_no_swap": True, "require_memory_lock": True}, True, HEADING, True),
    ],
)
def test_is_as_required(
    tmp_path: Path,
    required: dict[str, bool],
    locked: bool,  # noqa: FBT001
    swaps: str | None,
    fine: bool,  # noqa: FBT001
) -> None:
    assert hardening(proc(tmp_path, swaps=swaps), locked=locked, **required).is_as_required() is fine


def test_swap_that_is_switched_on_later_is_seen(tmp_path: Path) -> None:
    watched = hardening(proc(tmp_path), require_no_swap=True)
    assert watched.is_as_required()
    (tmp_path / "swaps").write_text(SWAP)
    assert not watched.is_as_required()

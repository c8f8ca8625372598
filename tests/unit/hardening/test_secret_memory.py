import gc
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keybroker.domain.secret_memory import SLOT_BYTES, SecretMemory, Slot

SECRET = bytes(range(0xC0, 0xE0))
SLOTS_A_PAGE = 4096 // SLOT_BYTES
LENGTHS = [16, 24, 32]

UNLOCKABLE = """
import os, resource
from keybroker.domain.secret_memory import SecretMemory
resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
if os.geteuid() == 0:
    os.setgroups([])
    os.setuid(65534)
memory = SecretMemory()
slot = memory.take()
with slot.make(32) as view:
    view[:] = bytes(range(32))
assert slot.secret == bytes(range(32))
assert not memory.all_locked
assert memory.all_excluded
"""

LITTLE_LOCKABLE = """
import os, resource
from keybroker.domain.secret_memory import SecretMemory
resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
if os.geteuid() == 0:
    os.setgroups([])
    os.setuid(65534)
memory = SecretMemory()
memory.prepare(512)
assert memory.all_locked
memory.prepare(513)
assert not memory.all_locked
"""


def filled(memory: SecretMemory, content: bytes = SECRET) -> Slot:
    slot = memory.take()
    with slot.make(len(content)) as view:
        view[:] = content
    return slot


def secret_of(slot: Slot) -> bytes:
    assert slot.secret is not None
    return slot.secret


def flags_of(address: int) -> set[str]:
    """What the kernel says about the mapping of the address: VmFlags in proc_pid_smaps(5)."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(match[1], 16) <= address < int(match[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return set(line.split()[1:])
    raise AssertionError("no such mapping")


@pytest.mark.parametrize("length_bytes", LENGTHS)
def test_slot_holds_a_bytes_object_as_any_other(length_bytes: int) -> None:
    secret = secret_of(filled(SecretMemory(), SECRET[:length_bytes]))
    assert type(secret) is bytes
    assert secret == SECRET[:length_bytes]
    assert len(secret) == length_bytes
    assert secret[3:7] == SECRET[3:7]
    assert hash(secret) == hash(SECRET[:length_bytes])
    gc.collect()


def test_pages_are_locked_and_excluded_from_dumps() -> None:
    memory = SecretMemory()
    flags = flags_of(id(secret_of(filled(memory))))
    assert {"lo", "dd"} <= flags
    assert memory.all_locked
    assert memory.all_excluded


def test_exclusion_from_dumps_can_be_left_out_and_is_told() -> None:
    memory = SecretMemory(exclude_from_dumps=False)
    assert "dd" not in flags_of(id(secret_of(filled(memory))))
    assert not memory.all_excluded


def test_memory_that_can_not_be_locked_is_used_and_told() -> None:
    subprocess.run([sys.executable, "-c", UNLOCKABLE], check=True)


def test_256_secrets_need_no_more_than_the_smallest_usual_limit_of_locked_memory() -> None:
    memory = SecretMemory()
    memory.prepare(256)
    slots = [filled(memory, number.to_bytes(2, "big") * 16) for number in range(256)]
    pages = {id(slot.secret) // 4096 for slot in slots}
    assert len(pages) * 4096 <= 64 * 1024
    assert len({slot.secret for slot in slots}) == 256


def test_wipe_leaves_zeros_and_no_secret() -> None:
    slot = filled(SecretMemory())
    kept = secret_of(slot)
    slot.wipe()
    assert kept == bytes(32)
    assert slot.secret is None


def test_slot_is_taken_again_after_it_was_given_back() -> None:
    memory = SecretMemory()
    places = set()
    for _ in range(10 * SLOTS_A_PAGE):
        slot = filled(memory)
        places.add(id(slot.secret))
        memory.give_back(slot)
    assert len(places) <= SLOTS_A_PAGE


def test_reference_that_was_kept_never_shows_the_next_secret() -> None:
    memory = SecretMemory()
    slot = filled(memory)
    kept = secret_of(slot)
    memory.give_back(slot)
    others = [filled(memory) for _ in range(2 * SLOTS_A_PAGE)]
    assert id(kept) not in {id(other.secret) for other in others}
    assert kept == bytes(32)


def test_slot_is_taken_again_once_the_kept_reference_is_gone() -> None:
    memory = SecretMemory()
    slot = filled(memory)
    kept = [secret_of(slot)]
    place = id(kept[0])
    memory.give_back(slot)
    kept.clear()
    assert place in {id(slot.secret) for slot in [filled(memory) for _ in range(SLOTS_A_PAGE)]}


def test_threads_never_share_a_slot() -> None:
    memory = SecretMemory()
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait()
        for turn in range(200):
            content = bytes([number, turn]) * 16
            slot = filled(memory, content)
            assert slot.secret == content
            memory.give_back(slot)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


def test_prepare_says_what_the_system_allows_before_there_is_a_secret() -> None:
    memory = SecretMemory(exclude_from_dumps=False)
    assert memory.all_excluded
    memory.prepare(1)
    assert not memory.all_excluded


def test_prepare_tells_at_once_that_the_limit_is_less_than_all_calls_need() -> None:
    """And not under load, when the page that can't be locked is taken."""
    subprocess.run([sys.executable, "-c", LITTLE_LOCKABLE], check=True)


def test_prepared_memory_is_enough_for_that_many_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = SecretMemory()
    memory.prepare(SLOTS_A_PAGE + 1)
    monkeypatch.setattr(memory, "_map_page", lambda: pytest.fail("another page"))
    assert len({id(filled(memory).secret) for _ in range(SLOTS_A_PAGE + 1)}) == SLOTS_A_PAGE + 1

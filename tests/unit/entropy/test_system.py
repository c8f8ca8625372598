"""The operating system's generator, and what happens when it gives too little."""

import os
from pathlib import Path

import pytest

from keybroker.adapters.entropy import SystemEntropy, system
from keybroker.domain.errors import BrokerError, Reason


def test_fill_overwrites_the_whole_buffer_with_other_bytes_each_time() -> None:
    entropy = SystemEntropy()
    entropy.check()
    one, other = bytearray(64), bytearray(64)
    entropy.fill(memoryview(one))
    entropy.fill(memoryview(other))
    assert one != other
    assert bytes(16) not in (one[-16:], other[-16:])
    assert entropy.name == "os"


@pytest.mark.parametrize("content", [None, b"", b"x" * 15])
def test_source_that_is_missing_or_gives_too_little_is_unavailable(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / "source").write_bytes(content)
    monkeypatch.setattr(system, "_SOURCE", str(tmp_path / "source"))
    with pytest.raises(BrokerError) as caught:
        SystemEntropy().fill(memoryview(bytearray(16)))
    assert caught.value.reason is Reason.ENTROPY_UNAVAILABLE
    assert caught.value.metadata == {"entropy_source": "os"}
    assert str(tmp_path) not in caught.value.message


def test_generator_that_is_not_seeded_yet_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    def getrandom(size: int, flags: int) -> bytes:
        assert flags == os.GRND_NONBLOCK  # without it the call would wait
        raise BlockingIOError

    monkeypatch.setattr(system.os, "getrandom", getrandom)
    with pytest.raises(BrokerError, match="not seeded yet") as caught:
        SystemEntropy().check()
    assert caught.value.reason is Reason.ENTROPY_UNAVAILABLE


def test_its_output_is_not_said_to_be_tested() -> None:
    """The kernel's own tests are the kernel's to tell of (docs/entropy.md)."""
    assert not SystemEntropy().is_health_tested

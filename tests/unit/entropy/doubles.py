"""Generators that behave as they are told. Their bytes come from Python's own generator, with a seed."""

import random
from collections.abc import Callable, Iterator

from keybroker.adapters.entropy.failures import SourceFailed


class Noise:
    """Bytes that pass. `calls` holds what was asked, with the lengths read."""

    def __init__(self, seed: int = 1) -> None:
        self.random = random.Random(seed)
        self.calls: list[str | int] = []
        self.down = ""  # where it fails: "connect", "check" or "read"
        self.given: list[bytes] = []

    def connect(self) -> None:
        self._do("connect")

    def check(self) -> None:
        self._do("check")

    def read_into(self, buffer: memoryview) -> None:
        self.calls.append(len(buffer))
        self._fail("read")
        buffer[:] = self.some(len(buffer))
        self.given.append(bytes(buffer))

    def disconnect(self) -> None:
        self.calls.append("disconnect")

    def some(self, length: int) -> bytes:
        return self.random.randbytes(length)

    def _do(self, what: str) -> None:
        self.calls.append(what)
        self._fail(what)

    def _fail(self, what: str) -> None:
        if self.down == what:
            raise SourceFailed(f"{what} failed")


class Switched(Noise):
    """Noise until `broken` says what it gives instead."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__(seed)
        self.broken: Callable[[random.Random], Iterator[int]] | None = None

    def some(self, length: int) -> bytes:
        if self.broken is None:
            return super().some(length)
        source = self.broken(self.random)
        return bytes(next(source) for _ in range(length))


def stuck(_: random.Random) -> Iterator[int]:
    """One value for ever."""
    while True:
        yield 0x5A


def biased(noise: random.Random) -> Iterator[int]:
    """Every second byte is zero, in no order, and never more than four in a row: only the proportion tells."""
    run = 0
    while True:
        sample = 0 if noise.random() < 0.5 and run < 4 else noise.randrange(1, 256)
        run = run + 1 if sample == 0 else 0
        yield sample


def digits(noise: random.Random) -> Iterator[int]:
    """The bytes of hexadecimal text: 4 bits where 8 are claimed."""
    while True:
        yield noise.choice(b"0123456789abcdef")

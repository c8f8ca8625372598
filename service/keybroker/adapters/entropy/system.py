"""Random bytes from the operating system's CSPRNG.

The seed: make sure that the source of randomness meets the requirements. On Linux /dev/urandom and getrandom(2) read
the same generator. It is read unbuffered into the caller's buffer, so that no copy of the bytes is made on the way.
Until the kernel's generator is seeded, in a machine's first moments, /dev/urandom may answer all the same; getrandom
says so, and is asked. Not tested here: the kernel tests its own noise sources, and what it gives is the output of a
generator (health.py).
"""

import os

from keybroker.adapters.entropy.failures import unavailable

_SOURCE = "/dev/urandom"


class SystemEntropy:
    """ports.EntropySource on the operating system."""

    name = "os"
    is_health_tested = False

    def check(self) -> None:
        """Reasons: ENTROPY_UNAVAILABLE, if the kernel's generator is not seeded yet."""
        try:
            os.getrandom(1, os.GRND_NONBLOCK)
        except OSError:
            raise unavailable(self.name, "is not seeded yet") from None

    def fill(self, buffer: memoryview) -> None:
        """Overwrites the buffer. Reasons: ENTROPY_UNAVAILABLE."""
        try:
            with open(_SOURCE, "rb", buffering=0) as source:  # noqa: PTH123  # unbuffered, into place
                filled = source.readinto(buffer)
        except OSError:
            filled = 0
        if filled != len(buffer):
            raise unavailable(self.name, "did not answer")

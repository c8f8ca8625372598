"""Random bytes from the operating system's CSPRNG.

The seed: make sure that the source of randomness meets the requirements. On Linux /dev/urandom and getrandom(2) read
the same generator. It is read unbuffered into the caller's buffer, so that no copy of the bytes is made on the way.
"""

_SOURCE = "/dev/urandom"


class SystemEntropy:
    """ports.EntropySource on the operating system."""

    def fill(self, buffer: memoryview) -> None:
        """Overwrites the buffer. Raises OSError if the system gives too few bytes."""
        with open(_SOURCE, "rb", buffering=0) as source:  # noqa: PTH123  # unbuffered, into place
            if source.readinto(buffer) != len(buffer):
                raise OSError(f"{_SOURCE} gave too few bytes")

"""A process with a secret: `python -m tests.residue.lodger [undumped] [excluded] [user]`.

`undumped` protects the process, `excluded` leaves the secret's memory out of core images, `user` makes it nobody's, as
others are. It prints the secret's address and waits for the end of its input.
"""

import ctypes
import os
import resource
import sys

from keybroker.domain.secret_memory import SecretMemory
from keybroker.process_hardening import protect_from_dumps

SECRET_BYTES = 26
NOBODY = 65534
_PR_SET_DUMPABLE = 4
_HEADER_BYTES = 32


def byte_of_secret(number: int) -> int:
    """The secret is written byte by byte, so that it stands in one place only."""
    return (number * 97 + 11) % 256


def become_nobody() -> None:
    """Needs root."""
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def main() -> None:
    """See the module."""
    most = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (most, most))
    if "user" in sys.argv:
        become_nobody()
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, *[ctypes.c_ulong(word) for word in (1, 0, 0, 0)])
    if "undumped" in sys.argv:
        protect_from_dumps()
    slot = SecretMemory(exclude_from_dumps="excluded" in sys.argv).take()
    with slot.make(SECRET_BYTES) as buffer:
        for number in range(SECRET_BYTES):
            buffer[number] = byte_of_secret(number)
    sys.stdout.write(f"{id(slot.secret) + _HEADER_BYTES}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()

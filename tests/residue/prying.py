"""Another process of the same user, which prints what of the first one's memory it can read.

`python -m tests.residue.prying PID ADDRESS LENGTH [user]`; `user` as for tests.residue.lodger.
"""

import sys
from pathlib import Path

from tests.residue.lodger import become_nobody

if __name__ == "__main__":
    pid, address, length = (int(argument) for argument in sys.argv[1:4])
    if "user" in sys.argv:
        become_nobody()
    try:
        with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
            memory.seek(address)
            sys.stdout.write(memory.read(length).hex())
    except OSError as error:
        sys.stdout.write(type(error).__name__)

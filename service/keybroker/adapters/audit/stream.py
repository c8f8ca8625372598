"""Standard output as a place for audit lines. A reader that has stopped reading holds nobody beyond a time-out.

Each line leaves by one write of at most PIPE_BUF bytes once there is room for it, so on a pipe it arrives whole. Where
half of one leaves all the same (no pipe, or a death), nothing can take it back: its rest goes first the next time.
"""

import errno
import os
import select
import time
from collections.abc import Sequence

from keybroker.adapters.audit.lines import MAX_LINE_BYTES

PATIENCE_SECONDS = 5.0
_PAUSE_SECONDS = 0.01


class StreamStoppedError(OSError):
    """Only the first `sent` lines left; the last of them may have its rest still to come."""

    def __init__(self, cause: OSError, sent: int) -> None:
        super().__init__(cause.errno, cause.strerror)
        self.sent = sent


class LineStream:
    """Writes lines to a descriptor. `patience_seconds` is for one call, however many lines it has."""

    def __init__(self, descriptor: int, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._descriptor = descriptor
        self._patience_seconds = patience_seconds
        self._rest = b""
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def finish(self) -> None:
        """Writes what was left of a line. Raises OSError."""
        self._send_rest(time.monotonic() + self._patience_seconds)

    def send(self, lines: Sequence[bytes]) -> None:
        """Writes lines, each with its newline. Raises StreamStoppedError."""
        ends_at = time.monotonic() + self._patience_seconds
        for number, line in enumerate(lines):
            self._rest = line
            try:
                self._send_rest(ends_at)
            except OSError as error:
                begun = len(self._rest) < len(line)
                if not begun:
                    self._rest = b""
                raise StreamStoppedError(error, number + begun) from error

    def _send_rest(self, ends_at: float) -> None:
        while self._rest:
            left = max(0.0, ends_at - time.monotonic())
            if not self._poll.poll(left * 1000):
                raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            try:
                sent = os.write(self._descriptor, self._rest[:MAX_LINE_BYTES])
            except BlockingIOError:  # somebody else's write took the room
                time.sleep(_PAUSE_SECONDS)
                continue
            self._rest = self._rest[sent:]

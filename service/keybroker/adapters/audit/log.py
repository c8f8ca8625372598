"""ports.AuditLog: hash-chained lines to a file, to standard output, or to both.

A process writes one chain. Its first line, `started`, is linked to the last line that was there before. What a failed
write left of the file is cut off again, so events that were refused are in the log at most once when they come again.
Source: docs/audit.md; ADR 13.
"""

import errno
import threading
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import structlog

from keybroker.adapters.audit.file import AuditFile, AuditFileError
from keybroker.adapters.audit.lines import NotALineError, Position, read_line
from keybroker.adapters.audit.stream import PATIENCE_SECONDS, LineStream, StreamStoppedError
from keybroker.domain.audit import AuditEvent, Value
from keybroker.domain.errors import BrokerError, Reason
from keybroker.ports import Clock

__all__ = ["AuditFileError", "ChainedAuditLog"]


class ChainedAuditLog:
    """To `file`, and to the descriptor `stdout`. Any thread may write; `version` is the broker's."""

    def __init__(
        self,
        *,
        file: Path | None,
        stdout: int | None,
        clock: Clock,
        version: str,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._file = None if file is None else AuditFile(file)
        self._stream = None if stdout is None else LineStream(stdout, patience_seconds=patience_seconds)
        self._clock = clock
        self._version = version
        self._lock = threading.Lock()
        self._last_head = ""
        self._position = Position(chain=str(uuid4()))
        self._started_id = str(uuid4())
        self._cut_bytes = 0
        self._told_unsound = False
        self._failure = ""

    def open(self, last_head: str = "") -> str:
        """Begins the chain, after the file's last line; after `last_head` if the file has none, or there is no file.

        Returns the hash of its first line. Raises AuditFileError if the file can't be used. If it can't be written now,
        "" is returned, and the chain begins with the first write that succeeds.
        """
        with self._lock:
            self._last_head = last_head
            try:
                self._write(())
            except OSError as error:
                self._say_failed(error)
                return ""
            return self._position.head

    def write(self, events: Sequence[AuditEvent]) -> str:
        """See ports.AuditLog; without events it begins the chain, or writes `resumed`.

        Raises ValueError for an event that can't be a line: a mistake of the program's.
        """
        with self._lock:
            try:
                self._write(events)
            except (OSError, AuditFileError) as error:
                self._say_failed(error)
                raise BrokerError(
                    Reason.AUDIT_UNAVAILABLE, "The broker can't write its audit log, so it changes nothing."
                ) from error
            self._say_works()
            return self._position.head

    @property
    def head(self) -> str:
        """The hash of the log's last line, of this process or of an earlier one; "" if there is none."""
        return self._position.head

    def close(self) -> None:
        """Lets go of the file. Standard output stays open."""
        with self._lock:
            if self._file is not None:
                self._file.close()

    def _write(self, events: Sequence[AuditEvent]) -> None:
        if self._stream is not None:
            self._stream.finish()
        if self._file is not None:
            self._file.ready()
        if self._position.seq == 0:
            self._link()
            events = [self._started(), *events]
        elif not events:
            events = [AuditEvent(str(uuid4()), {"event": "resumed"})]
        lines, positions = self._lines(events)
        if self._file is not None:
            self._file.append(b"".join(lines))
        self._position = positions[-1]
        if self._stream is not None:
            self._send(self._stream, lines, positions)

    def _send(self, stream: LineStream, lines: Sequence[bytes], positions: Sequence[Position]) -> None:
        try:
            stream.send(lines)
        except StreamStoppedError as stopped:
            self._position = positions[stopped.sent]
            if self._file is not None:
                self._file.take_back(b"".join(lines[stopped.sent :]))
            raise

    def _lines(self, events: Sequence[AuditEvent]) -> tuple[list[bytes], list[Position]]:
        """The lines, and the positions before, between and after them."""
        lines, positions = [], [self._position]
        for event in events:
            line, position = positions[-1].next_line(event, self._clock.now())
            lines.append(line)
            positions.append(position)
        return lines, positions

    def _link(self) -> None:
        """Finds the line that the chain begins after."""
        head = self._last_head
        if self._file is not None:
            self._cut_bytes += self._file.trim()
            head = self._hash_of(self._file.last_line()) or head
        self._position = Position(self._position.chain, head=head)

    def _hash_of(self, raw: bytes | None) -> str:
        """A last line that is none of ours, or was changed, is left for verify to find: nothing is linked to it."""
        if raw is None:
            return ""
        try:
            return read_line(raw).hash
        except NotALineError as error:
            if not self._told_unsound:
                structlog.get_logger().error("audit_last_line_unsound", why=str(error))
                self._told_unsound = True
            return ""

    def _started(self) -> AuditEvent:
        fields: dict[str, Value] = {"event": "started", "version": self._version}
        if self._cut_bytes:
            fields["cut_bytes"] = self._cut_bytes
        return AuditEvent(self._started_id, fields)

    def _say_failed(self, error: Exception) -> None:
        """Once for each kind in a row."""
        number = error.errno if isinstance(error, OSError) else None
        kind = errno.errorcode.get(number, str(number)) if number else type(error).__name__
        if kind != self._failure:
            why = str(error) if isinstance(error, AuditFileError) else ""
            structlog.get_logger().error("audit_unavailable", kind=kind, **({"why": why} if why else {}))
            self._failure = kind

    def _say_works(self) -> None:
        if self._failure:
            structlog.get_logger().info("audit_available")
            self._failure = ""

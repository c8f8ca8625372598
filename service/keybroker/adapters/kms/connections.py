"""Connections to the KMS whose every wait ends at the deadline of the call that uses them.

A socket's time-out starts anew at each read, so a peer that drips its reply, status line and headers included, could
hold a call for hours. Here each read, of a reply or of a proxy's answer to CONNECT, waits no longer than what is left
of the deadline; so do the sending of the request and the TLS handshake. A read that ends like this is urllib3's
ReadTimeoutError, and the connection is closed, not pooled.

Left out: the time to look a name up and to try each of its addresses (only the connect time-out limits each); drips
inside one TLS record when both the proxy and the KMS behind it speak TLS.
"""

import io
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from http.client import HTTPResponse
from typing import Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from keybroker.domain.deadline import Deadline

SHORTEST_TIMEOUT_SECONDS = 0.001  # 0 would mean a socket that does not wait at all

_current: ContextVar[Deadline] = ContextVar("deadline of the call that this thread makes")


@contextmanager
def ending_at(deadline: Deadline) -> Iterator[None]:
    """The connections used inside the block, by this thread, keep the deadline."""
    token = _current.set(deadline)
    try:
        yield
    finally:
        _current.reset(token)


class _ReadUntil(io.RawIOBase):
    """A socket's raw stream: each read waits until the deadline, but no longer than the socket's first time-out."""

    def __init__(self, raw: io.RawIOBase, connection: socket.socket, deadline: Deadline) -> None:
        self._raw = raw
        self._connection = connection
        self._deadline = deadline
        self._longest_seconds = connection.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:  # noqa: ANN401  # the base's type
        if self._deadline.remaining_seconds() <= 0:
            raise TimeoutError
        _limit(self._connection, self._deadline, self._longest_seconds)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # the base's signature
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_ReadUntil(self.fp.detach(), sock, _current.get()))


class _PlainConnection(HTTPConnection):
    response_class = _Response

    def _new_conn(self) -> socket.socket:
        sock = super()._new_conn()
        _limit(sock, _current.get(), sock.gettimeout())
        return sock

    def _tunnel(self) -> None:
        super()._tunnel()
        _limit(self.sock, _current.get(), self.sock.gettimeout())

    def request(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # the library's signature
        if self.sock is not None:  # a pooled one has the time-out that its last read left
            _limit(self.sock, _current.get(), None)
        super().request(*args, **kwargs)


class _TlsConnection(_PlainConnection, HTTPSConnection):
    pass


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


POOLS_BY_SCHEME = {"http": _PlainPool, "https": _TlsPool}


def _limit(connection: socket.socket, deadline: Deadline, longest_seconds: float | None) -> None:
    seconds = max(deadline.remaining_seconds(), SHORTEST_TIMEOUT_SECONDS)
    connection.settimeout(seconds if longest_seconds is None else min(longest_seconds, seconds))

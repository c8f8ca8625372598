"""A threading HTTP server that starts fast, keeps connections alive and leaves nothing behind when it stops.

Both servers of the emulator, the KMS and the admin API, are built on it.
"""

import ipaddress
import logging
import socket
import ssl
import struct
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any

from kms_emulator.clock import Clock
from kms_emulator.version import MARKER_HEADER, VERSION
from kms_emulator.wire import HttpReply

MAX_BODY_BYTES = 1024 * 1024
IDLE_TIMEOUT_SECONDS = 60.0

_SHUTDOWN_POLL_SECONDS = 0.02
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""struct linger: on, 0 s. A close then discards what was not sent and answers RST. Source: socket(7)."""

_log = logging.getLogger(__name__)


def check_loopback(host: str) -> None:
    """ValueError unless `host` is `localhost` or a loopback address."""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ValueError(f"{host!r} is not a loopback address: an emulator guards nothing (--allow-non-loopback)")


def tls_context(certificate_path: Path, key_path: Path) -> ssl.SSLContext:
    """A server context for one PEM certificate chain and its unencrypted key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_path, key_path)
    return context


class EmulatorServer(ThreadingHTTPServer):
    """One listening socket; every connection has a daemon thread that `stop` waits for.

    The listening socket's queue holds a burst of clients; the kernel cuts it to net.core.somaxconn.
    """

    request_queue_size = 4096
    daemon_threads = True

    def __init__(
        self,
        address: tuple[str, int],
        handler: type["EmulatorHandler"],
        clock: Clock,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.clock = clock
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._tls = tls
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._connections_lock = threading.Lock()
        super().__init__(address, handler)
        self._accepting: threading.Thread | None = None

    def start(self) -> None:
        """Serve in a thread of its own."""
        self._accepting = threading.Thread(
            target=self.serve_forever, args=(_SHUTDOWN_POLL_SECONDS,), name=type(self).__name__, daemon=True
        )
        self._accepting.start()

    def stop(self) -> None:
        """Close the listening socket and every connection, and wait for their threads."""
        self.pause()
        with self._connections_lock:
            threads = list(self._connections.values())
        for thread in threads:
            thread.join()

    def pause(self) -> None:
        """Refuse new connections and shut those there are; a call that is being served goes on without its client."""
        accepting, self._accepting = self._accepting, None
        if accepting is not None:
            self.shutdown()
            accepting.join()
        self.server_close()
        with self._connections_lock:
            for connection in self._connections:
                _shut(connection)

    def resume(self) -> None:
        """Listen again on the same port after `pause`; OSError when somebody else has taken it."""
        if self._accepting is not None:
            return
        self.socket = socket.socket(self.address_family, self.socket_type)
        try:
            self.server_bind()
            self.server_activate()
        except OSError:
            self.server_close()
            raise
        self.start()

    def server_bind(self) -> None:
        """Bind without the reverse name lookup of HTTPServer, which may take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.socket.getsockname()[:2]

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept; a TLS handshake happens later, in the connection's own thread."""
        connection, address = super().get_request()
        if self._tls is not None:
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 -- the base's types
        """Serve one connection in a thread that is remembered until it ends."""
        thread = threading.Thread(target=self.process_request_thread, args=(request, client_address), daemon=True)
        with self._connections_lock:
            self._connections[request] = thread
        thread.start()

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401 -- the base's type
        """Close one connection and forget it; one that is to be reset must not send a FIN before its RST."""
        if _is_to_be_reset(request):
            self.close_request(request)
        else:
            super().shutdown_request(request)
        with self._connections_lock:
            self._connections.pop(request, None)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401, ARG002 -- the base's types
        """A client that went away is no event; anything else is a defect and is logged."""
        if not isinstance(sys.exception(), OSError):
            _log.exception("a connection's thread failed")


def _shut(connection: socket.socket) -> None:
    try:
        socket.socket.shutdown(
            connection, socket.SHUT_RDWR
        )  # SSLSocket's own pulls the TLS state from under the reader
    except OSError:
        return


def _is_to_be_reset(connection: socket.socket) -> bool:
    try:
        return connection.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, len(_RESET_ON_CLOSE)) == _RESET_ON_CLOSE
    except OSError:
        return False


class EmulatorHandler(BaseHTTPRequestHandler):
    """One connection: marker header, the emulator's date, bounded bodies, one flush per reply."""

    server: EmulatorServer
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    timeout = IDLE_TIMEOUT_SECONDS

    def version_string(self) -> str:
        """Value of the header Server."""
        return f"kms-emulator/{VERSION}"

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The header Date by the emulator's clock."""
        moment = self.server.clock.now().timestamp() if timestamp is None else timestamp
        return super().date_time_string(moment)

    def end_headers(self) -> None:
        """Every reply says that it comes from an emulator."""
        self.send_header(MARKER_HEADER, VERSION)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base's name
        """Nothing: request lines hold tokens and blobs."""

    def read_body(self) -> bytes | None:
        """The body; None after a 411 or 413 was sent, and the connection then closes."""
        length = self.headers.get("Content-Length", "0")
        if self.headers.get("Transfer-Encoding") or not length.isascii() or not length.isdigit():
            self._refuse_body(HTTPStatus.LENGTH_REQUIRED)
        elif int(length) > MAX_BODY_BYTES:
            self._refuse_body(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            return self.rfile.read(int(length))
        return None

    def send_reply(self, reply: HttpReply) -> None:
        """Write one reply as far as its transport says."""
        if reply.transport in {"dropped", "reset"}:
            self.close_connection = True
            if reply.transport == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            return
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if reply.transport == "truncated":
            self.close_connection = True
            self.wfile.write(reply.body[: len(reply.body) // 2])
        else:
            self.wfile.write(reply.body)

    def _refuse_body(self, status: HTTPStatus) -> None:
        self.close_connection = True
        self.send_error(status)

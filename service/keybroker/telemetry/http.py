"""The HTTP port: /metrics for Prometheus, /livez and /readyz for Kubernetes.

/livez answers as long as the process can. /readyz says whether the gRPC port is serving; it never calls the KMS, and
what it adds about the KMS comes from real calls (design, invariant 6).
"""

import json
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from keybroker.telemetry.logs import exception_chain

_STOP_POLL_SECONDS = 0.1

Readiness = Callable[[], tuple[bool, Mapping[str, object]]]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one write a reply
    disable_nagle_algorithm = True
    timeout = 10.0
    server: "_Server"

    def do_GET(self) -> None:  # the standard library's name
        """Answers a scrape or a probe."""
        path = self.path.partition("?")[0]
        if path == "/metrics":
            encode, content_type = choose_encoder(self.headers.get("Accept", ""))
            self._reply(HTTPStatus.OK, content_type, encode(self.server.registry))
        elif path == "/livez":
            self._reply(HTTPStatus.OK, "text/plain", b"ok\n")
        elif path == "/readyz":
            ready, details = self.server.readiness()
            status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
            self._reply(status, "application/json", json.dumps({"ready": ready, **details}).encode() + b"\n")
        else:
            self._reply(HTTPStatus.NOT_FOUND, "text/plain", b"try /metrics, /livez or /readyz\n")

    def _reply(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the standard library's name
        """Probes and scrapes are not logged."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128  # of 5, the default, a burst is more: the kernel then drops, and a client waits a second

    def __init__(self, address: tuple[str, int], *, registry: CollectorRegistry, readiness: Readiness) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.registry = registry
        self.readiness = readiness
        super().__init__(address, _Handler)

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002  # socketserver's signature
        """A client that went away, mostly. The standard library would print the exception's text."""
        error = sys.exception()
        structlog.get_logger().warning("telemetry_request_failed", exceptions=exception_chain(error) if error else [])


class TelemetryServer:
    """Serves the three paths from `start` to `stop`, on threads of its own."""

    def __init__(self, host: str, port: int, *, registry: CollectorRegistry, readiness: Readiness) -> None:
        self._address = (host, port)
        self._registry = registry
        self._readiness = readiness
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> int:
        """Binds and serves; returns the port, which the system chooses for 0. Raises OSError if it is taken."""
        self._server = _Server(self._address, registry=self._registry, readiness=self._readiness)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_STOP_POLL_SECONDS,), name="telemetry", daemon=True
        )
        self._thread.start()
        return self._server.server_port

    def stop(self) -> None:
        """Stops serving."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

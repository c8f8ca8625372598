"""The KMS over HTTP: reads a request, asks the gateway, writes the reply and one log line without any secret."""

import logging
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from kms_emulator.clock import Clock
from kms_emulator.gateway import Gateway
from kms_emulator.http_server import EmulatorHandler, EmulatorServer
from kms_emulator.wire import HttpRequest

request_log = logging.getLogger("kms_emulator.requests")


class InFlight:
    """How many requests are being served now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    @property
    def count(self) -> int:
        """The number at this moment."""
        return self._count

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """Count one request for as long as the block lasts."""
        with self._lock:
            self._count += 1
        try:
            yield
        finally:
            with self._lock:
                self._count -= 1


class KmsServer(EmulatorServer):
    """Serves one gateway."""

    def __init__(self, address: tuple[str, int], gateway: Gateway, clock: Clock, tls: ssl.SSLContext | None) -> None:
        self.gateway = gateway
        self.in_flight = InFlight()
        super().__init__(address, _KmsHandler, clock, tls)


class _KmsHandler(EmulatorHandler):
    server: KmsServer

    def _serve(self) -> None:
        with self.server.in_flight.one_more():
            body = self.read_body()
            if body is None:
                return
            started = time.perf_counter()
            reply, logged = self.server.gateway.answer(self._request(body))
            self.send_reply(reply)
            self.wfile.flush()
        elapsed_ms = (time.perf_counter() - started) * 1000
        operation, key_id, status = logged
        request_log.info("%s %a %d %.1f ms", operation or "-", key_id, status, elapsed_ms)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _serve  # noqa: N815 -- http.server's names

    def _request(self, body: bytes) -> HttpRequest:
        target = urlsplit(self.path)
        headers: dict[str, str] = {}
        for name, value in self.headers.items():
            known = headers.get(name.lower())
            headers[name.lower()] = value if known is None else f"{known},{value}"
        return HttpRequest(self.command, target.path, target.query, headers, body)

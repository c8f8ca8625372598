"""The HTTP port on loopback, asked as Prometheus and Kubernetes ask."""

import http.client
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from keybroker.telemetry.http import TelemetryServer
from keybroker.telemetry.metrics import Metrics

pytestmark = pytest.mark.usefixtures("loopback")

CANARY = "canary-0d44ab"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


class Served:
    """A running server whose readiness the test sets."""

    def __init__(self) -> None:
        self.ready = True
        self.details: Mapping[str, object] = {}
        self.error: Exception | None = None
        self.asked = 0
        self.metrics = Metrics()
        self.server = TelemetryServer("127.0.0.1", 0, registry=self.metrics.registry, readiness=self._readiness)
        self.port = self.server.start()

    def _readiness(self) -> tuple[bool, Mapping[str, object]]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.ready, self.details

    def get(self, path: str, *, method: str = "GET", accept: str = "") -> tuple[int, str, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request(method, path, headers={"Accept": accept} if accept else {})
            response = connection.getresponse()
            return response.status, response.getheader("Content-Type", ""), response.read()
        finally:
            connection.close()


@pytest.fixture
def served() -> Iterator[Served]:
    running = Served()
    yield running
    running.server.stop()


def test_livez_says_ok_and_asks_nobody(served: Served) -> None:
    served.ready = False
    assert served.get("/livez") == (200, "text/plain", b"ok\n")
    assert served.asked == 0


@pytest.mark.parametrize(("ready", "status"), [(True, 200), (False, 503)])
def test_readyz_says_whether_it_serves_and_what_it_knows(served: Served, ready: bool, status: int) -> None:  # noqa: FBT001
    served.ready, served.details = ready, {"version": "1", "kms_last_calls": {"main": {"code": "OK"}}}
    answered, content_type, body = served.get("/readyz")
    assert (answered, content_type) == (status, "application/json")
    assert json.loads(body) == {"ready": ready, "version": "1", "kms_last_calls": {"main": {"code": "OK"}}}
    assert body.endswith(b"\n")


def test_readyz_follows_the_readiness(served: Served) -> None:
    assert served.get("/readyz")[0] == 200
    served.ready = False
    assert served.get("/readyz")[0] == 503


@pytest.mark.parametrize(
    ("accept", "content_type", "parse"),
    [
        ("", "text/plain; version=", parse_text),
        ("text/plain", "text/plain; version=", parse_text),
        (OPENMETRICS, "application/openmetrics-text; version=", parse_openmetrics),
    ],
    ids=["nothing", "text", "openmetrics"],
)
def test_metrics_are_what_was_asked_for_and_parse(
    served: Served, accept: str, content_type: str, parse: Callable[[str], Iterator[Any]]
) -> None:
    served.metrics.kms_request("DescribeKey", "OK", 0.01)
    status, answered, body = served.get("/metrics", accept=accept)
    assert status == 200
    assert answered.startswith(content_type)
    samples = {sample.name for family in parse(body.decode()) for sample in family.samples}
    assert samples >= {
        "keybroker_kms_request_duration_seconds_count",
        "keybroker_import_failures_total",
        "keybroker_imports_in_flight",
        "process_cpu_seconds_total",
    }


@pytest.mark.parametrize("path", ["/metrics?name=x", "/livez?verbose", "/readyz?"])
def test_query_is_ignored(served: Served, path: str) -> None:
    assert served.get(path)[0] == 200


@pytest.mark.parametrize("path", ["/", "/metrics/", "/livez/", "/Metrics", "/readyz/../etc/passwd", f"/{CANARY}"])
def test_other_path_is_not_found_and_not_repeated(served: Served, path: str) -> None:
    status, content_type, body = served.get(path)
    assert (status, content_type) == (404, "text/plain")
    assert CANARY.encode() not in body
    assert b"/metrics, /livez or /readyz" in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD"])
def test_other_method_is_not_supported(served: Served, method: str) -> None:
    assert served.get("/metrics", method=method)[0] == 501


def test_connection_is_kept_for_the_next_probe(served: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=5)
    sockets = set()
    for path in ("/livez", "/readyz", "/nothing", "/metrics"):
        connection.request("GET", path)
        sockets.add(connection.sock)
        connection.getresponse().read()
    connection.close()
    assert len(sockets) == 1


def test_probes_are_not_printed(served: Served, capfd: pytest.CaptureFixture[str]) -> None:
    for path in ("/livez", "/readyz", "/metrics", "/nothing"):
        served.get(path)
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""


def until(log: list[Any]) -> None:
    """Waits for the server's thread to have logged."""
    end = time.monotonic() + 20
    while not log and time.monotonic() < end:
        time.sleep(0.005)


def test_readiness_that_fails_is_logged_by_type_and_its_text_shown_to_nobody(
    served: Served, capfd: pytest.CaptureFixture[str]
) -> None:
    served.error = ValueError(CANARY)
    with structlog.testing.capture_logs() as log:
        with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
            served.get("/readyz")
        until(log)
    printed = capfd.readouterr()
    assert CANARY not in f"{log}{printed.out}{printed.err}"
    [line] = log
    assert line["event"] == "telemetry_request_failed"
    assert line["exceptions"][0].startswith("builtins.ValueError at ")
    served.error = None
    assert served.get("/readyz")[0] == 200


def test_client_that_resets_its_connection_is_logged_by_type(served: Served, capfd: pytest.CaptureFixture[str]) -> None:
    with structlog.testing.capture_logs() as log:
        client = socket.create_connection(("127.0.0.1", served.port))
        client.sendall(b"GET /livez HTTP/1.1\r\n")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        until(log)
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""
    assert [line["event"] for line in log] == ["telemetry_request_failed"]
    assert "ConnectionResetError" in log[0]["exceptions"][0]


def test_start_on_a_taken_port_raises(served: Served) -> None:
    second = TelemetryServer("127.0.0.1", served.port, registry=CollectorRegistry(), readiness=lambda: (True, {}))
    with pytest.raises(OSError, match="in use"):
        second.start()
    second.stop()


def test_stop_frees_the_port_and_can_be_repeated() -> None:
    running = Served()
    running.server.stop()
    running.server.stop()
    with pytest.raises(ConnectionRefusedError):
        running.get("/livez")
    again = TelemetryServer("127.0.0.1", running.port, registry=CollectorRegistry(), readiness=lambda: (True, {}))
    with again:
        assert running.get("/livez")[0] == 200


def has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
    return True


def test_address_may_be_ipv6() -> None:
    registry = CollectorRegistry()
    Counter("a_counter", "For the test.", registry=registry)
    server = TelemetryServer("::1", 0, registry=registry, readiness=lambda: (True, {}))
    if not has_ipv6():
        with pytest.raises(OSError, match="annot assign requested address"):
            server.start()
        return
    connection = http.client.HTTPConnection("::1", server.start(), timeout=5)
    try:
        connection.request("GET", "/metrics")
        assert b"a_counter_total 0.0" in connection.getresponse().read()
    finally:
        connection.close()
        server.stop()


def retransmissions(connection: socket.socket) -> int:
    """How often the kernel sent something again for it, a SYN that was dropped included: linux/tcp.h, tcp_info."""
    told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int(struct.unpack_from("I", told, 100)[0])


def test_clients_are_answered_while_others_hold_their_connections(served: Served) -> None:
    idle = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(100)]
    try:
        assert served.get("/livez")[0] == 200
        assert sum(map(retransmissions, idle)) == 0  # it had room for all of them at once
    finally:
        for connection in idle:
            connection.close()

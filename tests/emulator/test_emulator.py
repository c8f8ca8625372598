"""The emulator as an object and a server: start, stop, concurrency, TLS, seeding."""

import http.client
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from kms_emulator import AccessKey, Emulator, EmulatorSettings, Fault, KeyState, KmsError
from kms_emulator.kms_server import KmsServer
from kms_emulator.wire import HttpRequest
from tests.emulator.builders import MATERIAL, OAEP, import_blob, wrapped_b64
from tests.emulator.client import Client, in_process, over_http
from tests.emulator.waiting import wait_until


def keep_alive(emulator: Emulator) -> http.client.HTTPConnection:
    address = urlsplit(emulator.endpoint)
    return http.client.HTTPConnection(address.hostname, address.port, timeout=10)


def ask(connection: http.client.HTTPConnection, client: Client, action: str = "ListKeys") -> http.client.HTTPResponse:
    request = client.request(action, {})
    connection.request(request.method, f"/?{request.query}", request.body, dict(request.headers))
    response = connection.getresponse()
    response.read()
    return response


def test_start_is_quick() -> None:
    """The quickest of a few: a busy machine holds up one or the other."""
    seconds = []
    for _ in range(10):
        started = time.perf_counter()
        with Emulator(EmulatorSettings(admin_port=0)):
            seconds.append(time.perf_counter() - started)
        if seconds[-1] < 0.1:
            return
    pytest.fail(f"seconds from nothing to running: {seconds}")


def test_stop_leaves_no_thread() -> None:
    threads = set(threading.enumerate())
    emulator = Emulator(EmulatorSettings(admin_port=0))
    emulator.start()
    connection = keep_alive(emulator)
    assert ask(connection, over_http(emulator)).status == 200
    emulator.stop()
    assert set(threading.enumerate()) <= threads
    assert connection.sock is not None
    assert connection.sock.recv(1) == b""
    connection.close()


def test_stopped_emulator_refuses_connections_and_starts_again_with_its_keys() -> None:
    emulator = Emulator()
    emulator.start()
    endpoint, key_id = emulator.endpoint, emulator.create_key()
    emulator.stop()
    with pytest.raises(ConnectionRefusedError):
        over_http(emulator).call("ListKeys")
    with emulator:
        assert emulator.endpoint == endpoint
        assert over_http(emulator).state(key_id) == "PendingImport"


def test_start_of_a_running_emulator_is_refused_and_it_goes_on(listening: Emulator, http_client: Client) -> None:
    with pytest.raises(RuntimeError, match="running"):
        listening.start()
    assert http_client.call("ListKeys").status == 200


def test_paused_emulator_refuses_and_shuts_connections_and_comes_back(listening: Emulator, http_client: Client) -> None:
    connection = keep_alive(listening)
    assert ask(connection, http_client).status == 200
    listening.pause()
    assert connection.sock is not None
    assert connection.sock.recv(1) == b""
    connection.close()
    with pytest.raises(ConnectionRefusedError):
        http_client.call("ListKeys")
    listening.resume()
    assert http_client.call("ListKeys").status == 200


def test_call_that_is_held_goes_on_through_a_pause(listening: Emulator, http_client: Client) -> None:
    listening.faults.add(Fault(operation="CreateKey", action="hold"))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(http_client.call, "CreateKey")
        listening.wait_until_held()
        listening.pause()
        assert isinstance(answer.exception(timeout=5), http.client.RemoteDisconnected)
    assert (listening.held, listening.created_key_ids) == (["CreateKey"], [])
    listening.resume()
    listening.release_held()
    wait_until(lambda: len(http_client.emulator.created_key_ids) == 1)


def test_pause_of_a_stopped_emulator_is_refused_and_a_paused_one_stops() -> None:
    emulator = Emulator()
    with pytest.raises(RuntimeError, match="stopped"):
        emulator.pause()
    threads = set(threading.enumerate())
    emulator.start()
    emulator.pause()
    emulator.stop()
    assert set(threading.enumerate()) <= threads
    with emulator:
        assert over_http(emulator).call("ListKeys").status == 200


def test_resume_on_a_taken_port_is_an_os_error_and_may_be_tried_again(listening: Emulator, http_client: Client) -> None:
    listening.pause()
    address = urlsplit(listening.endpoint)
    with socket.create_server((address.hostname, address.port)), pytest.raises(OSError, match="in use"):
        listening.resume()
    listening.resume()
    assert http_client.call("ListKeys").status == 200


def test_five_hundred_connections_at_once_fit_the_queue_and_are_all_served(emulator: Emulator) -> None:
    """None is accepted before all have connected: a shorter queue would leave some of them without an answer."""
    count = min(500, int(Path("/proc/sys/net/core/somaxconn").read_text()))
    server = KmsServer(("127.0.0.1", 0), emulator._gateway, emulator.clock, None)
    client = in_process(emulator)
    with ExitStack() as stack:
        stack.callback(server.stop)
        address = server.server_address[:2]
        connections = [stack.enter_context(socket.create_connection(address, timeout=30)) for _ in range(count)]
        for connection in connections:
            connection.sendall(raw_request(client.request("ListKeys", {})))
        server.start()
        statuses = [connection.recv(12) for connection in connections]
    assert statuses == [b"HTTP/1.1 200"] * count


def raw_request(request: HttpRequest) -> bytes:
    headers = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    return f"{request.method} /?{request.query} HTTP/1.1\r\n{headers}Content-Length: 0\r\n\r\n".encode()


def test_stop_ends_a_delay_early() -> None:
    emulator = Emulator(EmulatorSettings(faults=(Fault(action="delay", delay_seconds=60),)))
    emulator.start()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(over_http(emulator).call, "ListKeys")
        while emulator.in_flight == 0:
            time.sleep(0.01)
        started = time.perf_counter()
        emulator.stop()
        assert time.perf_counter() - started < 5
        waiting.exception(timeout=5)


def test_connection_stays_open_for_many_requests(listening: Emulator, http_client: Client) -> None:
    connection = keep_alive(listening)
    responses = [ask(connection, http_client) for _ in range(20)]
    assert {response.status for response in responses} == {200}
    assert responses[0].version == 11
    connection.close()


def test_every_reply_is_marked_and_dated_by_the_emulators_clock(listening: Emulator, http_client: Client) -> None:
    listening.clock.advance(86_400)
    for answer in (http_client.call("ListKeys"), http_client.call("Frobnicate")):
        assert answer.headers["x-kms-emulator"] == "0.1.0"
        date = parsedate_to_datetime(answer.headers["date"])
        assert abs((date - listening.clock.now()).total_seconds()) < 5


def test_two_hundred_connections_at_once_are_all_served(listening: Emulator, http_client: Client) -> None:
    with ThreadPoolExecutor(50) as pool:
        statuses = list(pool.map(lambda _: http_client.call("ListKeys").status, range(200)))
    assert statuses == [200] * 200
    assert listening.calls["ListKeys"] == 200
    wait_until(lambda: listening.in_flight == 0)  # each counts until its thread has flushed what the client has read


def test_parallel_imports_of_other_material_bind_exactly_one(listening: Emulator) -> None:
    client = over_http(listening)
    key_id = listening.create_key()
    der, token = listening.issue_parameters(key_id, OAEP)
    blobs = [wrapped_b64(der, bytes([number]) * 32) for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda blob: import_blob(client, key_id, token, blob).status, blobs))
    assert sorted(answers) == [200] + [400] * 15
    assert listening.bound_material(key_id) == bytes([answers.index(200)]) * 32


HOSTS = ["0.0.0.0", "", "::", "192.168.0.1", "example.com"]


@pytest.mark.parametrize("host", HOSTS)
def test_host_that_others_can_reach_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="loopback"):
        Emulator(EmulatorSettings(host=host))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost"])
def test_loopback_host_is_served(host: str) -> None:
    with Emulator(EmulatorSettings(host=host)) as emulator:
        assert over_http(emulator).call("ListKeys").status == 200
        assert host in emulator.endpoint


def test_host_that_others_can_reach_is_served_when_allowed() -> None:
    with Emulator(EmulatorSettings(host="0.0.0.0", allow_non_loopback=True)) as emulator:
        assert over_http(emulator).call("ListKeys").status == 200


def test_taken_port_is_an_os_error_and_leaves_nothing_open() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for settings in (EmulatorSettings(port=port), EmulatorSettings(admin_port=port)):
            with pytest.raises(OSError, match="in use"):
                Emulator(settings).start()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    certificate_path, key_path = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", key_path, "-out", certificate_path),
        ],
        check=True,
        capture_output=True,
    )
    return certificate_path, key_path


@pytest.fixture
def with_tls(certificate: tuple[Path, Path]) -> Iterator[Emulator]:
    certificate_path, key_path = certificate
    settings = EmulatorSettings(tls_certificate_path=certificate_path, tls_key_path=key_path)
    with Emulator(settings) as emulator:
        yield emulator


def test_tls_is_served_with_the_certificate(with_tls: Emulator, certificate: tuple[Path, Path]) -> None:
    address = urlsplit(with_tls.endpoint)
    assert address.scheme == "https"
    context = ssl.create_default_context(cafile=certificate[0])
    connection = http.client.HTTPSConnection(address.hostname, address.port, timeout=10, context=context)
    for _ in range(2):
        assert ask(connection, in_process(with_tls)).status == 200
    with_tls.stop()
    connection.close()


def test_tls_refuses_plain_http_and_goes_on(with_tls: Emulator, certificate: tuple[Path, Path]) -> None:
    address = urlsplit(with_tls.endpoint)
    with pytest.raises((http.client.HTTPException, OSError)):
        ask(http.client.HTTPConnection(address.hostname, address.port, timeout=5), in_process(with_tls))
    test_tls_is_served_with_the_certificate(with_tls, certificate)


def test_tls_with_half_its_files_is_refused(certificate: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match="both"):
        Emulator(EmulatorSettings(tls_certificate_path=certificate[0]))


RAW = {
    "chunked": (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"411"),
    "huge": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n", b"413"),
    "bad length": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"411"),
    "long target": (b"GET /?" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"414"),
    "no HTTP": (b"HELLO\r\n\r\n", b"400"),
}


@pytest.mark.parametrize(("raw", "status"), RAW.values(), ids=RAW)
def test_request_the_server_cannot_take_is_refused(
    listening: Emulator, http_client: Client, raw: bytes, status: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    address = urlsplit(listening.endpoint)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(raw)
        reply = b""
        while chunk := connection.recv(65_536):
            reply += chunk
    assert status in reply
    assert http_client.call("ListKeys").status == 200
    assert capfd.readouterr().err == ""


def test_secrets_are_in_no_repr() -> None:
    settings = EmulatorSettings(access_keys=(AccessKey("id", "the-secret", "the-token"),), admin_token="the-admin")
    emulator = Emulator(settings)
    key = emulator._kms.keyring.find(emulator.create_key(material=MATERIAL), emulator.clock.now())
    assert not {"the-secret", "the-token", "the-admin", str(MATERIAL)} & set(repr(settings).split("'"))
    assert "\\x01\\x02" not in repr(key)


SEEDS = {
    "waiting": ({}, "PendingImport", 0),
    "enabled": ({"state": "Enabled", "key_spec": "Aliyun_AES_128"}, "Enabled", 16),
    "disabled": ({"state": KeyState.DISABLED}, "Disabled", 32),
    "going": ({"state": "PendingDeletion"}, "PendingDeletion", 0),
    "given material": ({"material": MATERIAL}, "Enabled", 32),
    "the KMS's own": ({"origin": "Aliyun_KMS", "dkms_instance_id": ""}, "Enabled", 32),
}


@pytest.mark.parametrize(("arguments", "state", "length"), SEEDS.values(), ids=SEEDS)
def test_create_key_seeds_state_and_material(
    client: Client, emulator: Emulator, arguments: dict[str, str], state: str, length: int
) -> None:
    key_id = emulator.create_key(**arguments)
    assert client.state(key_id) == emulator.key_state(key_id) == state
    assert len(emulator.bound_material(key_id) or b"") == length
    assert emulator.calls == {"DescribeKey": 1}


def test_import_material_acts_as_another_importer(client: Client, emulator: Emulator) -> None:
    key_id = emulator.create_key()
    emulator.import_material(key_id, MATERIAL)
    assert client.state(key_id) == "Enabled"
    assert emulator.bound_material(key_id) == MATERIAL


def test_seeding_an_unknown_key_or_a_bad_alias_raises(emulator: Emulator) -> None:
    with pytest.raises(KmsError, match=r"Forbidden\.KeyNotFound"):
        emulator.key_state("key-nobody")
    with pytest.raises(KmsError, match="InvalidParameter"):
        emulator.create_key(alias="no-prefix")


def test_emulators_share_nothing() -> None:
    first, second = Emulator(), Emulator()
    key_id = first.create_key()
    assert in_process(second).call("DescribeKey", KeyId=key_id).code == "Forbidden.KeyNotFound"

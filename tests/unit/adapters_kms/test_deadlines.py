"""A peer that drips, in whatever part of a call, holds it no longer than its deadline."""

import socket
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509

from keybroker.domain.errors import KmsError
from tests.unit.adapters_kms.support import (
    KEY_ID,
    REQUEST_ID,
    Script,
    client,
    deadline,
    drips,
    falls_silent,
    key_body,
    reply_bytes,
    sends,
    serving,
)
from tests.unit.adapters_kms.test_transport_trust import LOOPBACK, Pki

pytestmark = pytest.mark.usefixtures("loopback")

DEADLINE_SECONDS = 1.5
ENDS_WITHIN_SECONDS = 10.0  # half of what the peer would go on for
STATUS = b"HTTP/1.1 200 OK\r\n"


def last(connection: socket.socket) -> None:
    connection.sendall(reply_bytes(key_body()))
    connection.shutdown(socket.SHUT_RDWR)


DRIPS: dict[str, Script] = {
    "status line": drips(b"HTTP/1.1 ", b"2"),
    "100 Continue": drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "header lines": drips(STATUS, b"A: b\r\n"),
    "header lines, slowly": drips(STATUS, b"A: b\r\n", every_seconds=0.3),
    "one header": drips(STATUS + b"A: ", b"b"),
    "chunk length": drips(STATUS + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
    "chunk": drips(STATUS + b"Transfer-Encoding: chunked\r\n\r\nFF\r\n", b" "),
    "trailers": drips(STATUS + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"A: b\r\n"),
    "body": drips(STATUS + b"Content-Length: 1000\r\n\r\n", b" "),
    "body without length": drips(STATUS + b"\r\n", b" "),
}


def ends_in_time(call: Callable[[], object]) -> None:
    started = time.monotonic()
    with pytest.raises(KmsError) as caught:
        call()
    assert DEADLINE_SECONDS * 0.9 < time.monotonic() - started < ENDS_WITHIN_SECONDS
    assert (caught.value.kms_code, caught.value.committed_nothing) == ("timeout", False)


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "TLS"])
def test_reply_that_drips_ends_at_the_deadline_and_breaks_its_connection(
    encrypted: bool,  # noqa: FBT001
    tmp_path: Path,
) -> None:
    """Each is a call of its own, at the same time as the others: they only wait."""
    pki = Pki(tmp_path, LOOPBACK) if encrypted else None
    with ThreadPoolExecutor(len(DRIPS)) as pool:
        calls = {drip: pool.submit(check_ends_and_breaks_its_connection, DRIPS[drip], pki) for drip in DRIPS}
    assert {drip: call.exception() for drip, call in calls.items()} == dict.fromkeys(DRIPS)


def check_ends_and_breaks_its_connection(script: Script, pki: Pki | None) -> None:
    scripts = [sends(reply_bytes(key_body())), script, last]

    def next_script(connection: socket.socket) -> None:
        scripts.pop(0)(connection)

    with serving(next_script, tls=pki.context if pki else None, keep_alive=True) as server:
        scheme = "https" if pki else "http"
        with client(f"{scheme}://{server.address}", ca_bundle=pki.ca_bundle if pki else None) as kms:
            kms.describe_key(KEY_ID, deadline=deadline())
            ends_in_time(lambda: kms.cancel_key_deletion(KEY_ID, deadline=deadline(DEADLINE_SECONDS)))
            assert server.connections == 1
            kms.describe_key(KEY_ID, deadline=deadline())
            assert server.connections == 2


def test_proxy_that_drips_its_answer_to_connect_ends_at_the_deadline() -> None:
    with (
        serving(drips(STATUS, b"A: b\r\n")) as proxy,
        client("https://kms.example.com", proxy=f"http://{proxy.address}") as kms,
    ):
        ends_in_time(lambda: kms.cancel_key_deletion(KEY_ID, deadline=deadline(DEADLINE_SECONDS)))


def test_forwarding_proxy_that_drips_ends_at_the_deadline() -> None:
    with serving(DRIPS["header lines"]) as proxy, client("127.0.0.1:9", proxy=f"http://{proxy.address}") as kms:
        ends_in_time(lambda: kms.cancel_key_deletion(KEY_ID, deadline=deadline(DEADLINE_SECONDS)))


def test_handshake_behind_a_slow_proxy_ends_at_the_deadline() -> None:
    def script(connection: socket.socket) -> None:
        time.sleep(0.3)
        falls_silent(STATUS + b"\r\n")(connection)

    with serving(script) as proxy, client("https://kms.example.com", proxy=f"http://{proxy.address}") as kms:
        ends_in_time(lambda: kms.cancel_key_deletion(KEY_ID, deadline=deadline(DEADLINE_SECONDS)))


def test_reply_of_the_kms_behind_a_proxy_that_drips_ends_at_the_deadline(tmp_path: Path) -> None:
    pki = Pki(tmp_path, x509.DNSName("kms.example.com"))

    def tunnel(connection: socket.socket) -> None:
        connection.sendall(STATUS + b"\r\n")
        with pki.context.wrap_socket(connection, server_side=True) as inside:
            inside.recv(65536)
            DRIPS["header lines"](inside)

    with (
        serving(tunnel) as proxy,
        client("https://kms.example.com", proxy=f"http://{proxy.address}", ca_bundle=pki.ca_bundle) as kms,
    ):
        ends_in_time(lambda: kms.cancel_key_deletion(KEY_ID, deadline=deadline(DEADLINE_SECONDS)))


def in_one_record_byte_by_byte(context: ssl.SSLContext, connection: socket.socket) -> None:
    """Serves one request over TLS. No byte of the reply can be read before the last one of its record is there."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    inside = context.wrap_bio(incoming, outgoing, server_side=True)
    request = b""
    while not request:
        try:
            request = inside.read(65536)
        except ssl.SSLWantReadError:
            connection.sendall(outgoing.read())
            incoming.write(connection.recv(65536))
    inside.write(reply_bytes(key_body()))
    for byte in outgoing.read():
        connection.sendall(bytes([byte]))
        time.sleep(0.1)


def test_tls_record_that_drips_ends_at_the_deadline(tmp_path: Path) -> None:
    pki = Pki(tmp_path, x509.DNSName("kms.example.com"))

    def tunnel(connection: socket.socket) -> None:
        connection.sendall(STATUS + b"\r\n")
        in_one_record_byte_by_byte(pki.context, connection)

    with (
        serving(tunnel) as proxy,
        client("https://kms.example.com", proxy=f"http://{proxy.address}", ca_bundle=pki.ca_bundle) as kms,
    ):
        ends_in_time(lambda: kms.cancel_key_deletion(KEY_ID, deadline=deadline(DEADLINE_SECONDS)))


def test_pooled_connection_does_not_keep_the_little_time_of_the_call_before() -> None:
    answers = [0.0, 1.7]

    def script(connection: socket.socket) -> None:
        time.sleep(answers.pop(0))
        connection.sendall(reply_bytes({"RequestId": REQUEST_ID}))
        if not answers:
            connection.shutdown(socket.SHUT_RDWR)

    with serving(script, keep_alive=True) as server, client(server.address) as kms:
        kms.cancel_key_deletion(KEY_ID, deadline=deadline(1.5))
        kms.cancel_key_deletion(KEY_ID, deadline=deadline())
        assert server.connections == 1

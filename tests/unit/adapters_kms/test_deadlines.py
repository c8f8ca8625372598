"""A peer that drips, in whatever part of a call, holds it no longer than its deadline."""

import socket
import ssl
import time
from collections.abc import Callable
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
    key_body,
    reply_bytes,
    sends,
    serving,
)
from tests.unit.adapters_kms.test_transport_trust import LOOPBACK, Pki

pytestmark = pytest.mark.usefixtures("loopback")

DEADLINE_SECONDS = 0.4
ENDS_WITHIN_SECONDS = 0.7
STATUS = b"HTTP/1.1 200 OK\r\n"


def drips_each(first: bytes, piece: bytes, *, every_seconds: float = 0.1) -> Script:
    def script(connection: socket.socket) -> None:
        connection.sendall(first)
        for _ in range(20):
            time.sleep(every_seconds)
            connection.sendall(piece)

    return script


def last(connection: socket.socket) -> None:
    connection.sendall(reply_bytes(key_body()))
    connection.shutdown(socket.SHUT_RDWR)


DRIPS: dict[str, Script] = {
    "status line": drips_each(b"HTTP/1.1 ", b"2"),
    "100 Continue": drips_each(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "header lines": drips_each(STATUS, b"A: b\r\n"),
    "one header": drips_each(STATUS + b"A: ", b"b"),
    "chunk length": drips_each(STATUS + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
    "chunk": drips_each(STATUS + b"Transfer-Encoding: chunked\r\n\r\nFF\r\n", b" "),
    "trailers": drips_each(STATUS + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"A: b\r\n"),
    "body": drips_each(STATUS + b"Content-Length: 1000\r\n\r\n", b" "),
    "body without length": drips_each(STATUS + b"\r\n", b" "),
}


def ends_in_time(call: Callable[[], object]) -> None:
    started = time.monotonic()
    with pytest.raises(KmsError) as caught:
        call()
    assert DEADLINE_SECONDS * 0.9 < time.monotonic() - started < ENDS_WITHIN_SECONDS
    assert (caught.value.kms_code, caught.value.committed_nothing) == ("timeout", False)


def test_header_line_every_300_ms_ends_a_call_of_1_s_within_1_3_s() -> None:
    with serving(drips_each(STATUS, b"A: b\r\n", every_seconds=0.3)) as server, client(server.address) as kms:
        started = time.monotonic()
        with pytest.raises(KmsError, match="did not answer in time"):
            kms.describe_key(KEY_ID, deadline=deadline(1.0))
        assert time.monotonic() - started < 1.3


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("script", DRIPS.values(), ids=DRIPS)
def test_reply_that_drips_ends_at_the_deadline_and_breaks_its_connection(
    script: Script,
    encrypted: bool,  # noqa: FBT001
    tmp_path: Path,
) -> None:
    pki = Pki(tmp_path, LOOPBACK) if encrypted else None
    good = sends(reply_bytes(key_body()))
    scripts = [good, script, last]

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
        serving(drips_each(STATUS, b"A: b\r\n")) as proxy,
        client("https://kms.example.com", proxy=f"http://{proxy.address}") as kms,
    ):
        ends_in_time(lambda: kms.cancel_key_deletion(KEY_ID, deadline=deadline(DEADLINE_SECONDS)))


def test_forwarding_proxy_that_drips_ends_at_the_deadline() -> None:
    with serving(DRIPS["header lines"]) as proxy, client("127.0.0.1:9", proxy=f"http://{proxy.address}") as kms:
        ends_in_time(lambda: kms.cancel_key_deletion(KEY_ID, deadline=deadline(DEADLINE_SECONDS)))


def test_handshake_behind_a_slow_proxy_ends_at_the_deadline() -> None:
    def script(connection: socket.socket) -> None:
        time.sleep(0.3)
        connection.sendall(STATUS + b"\r\n")
        time.sleep(0.5)

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
    answers = [0.0, 0.4]

    def script(connection: socket.socket) -> None:
        time.sleep(answers.pop(0))
        connection.sendall(reply_bytes({"RequestId": REQUEST_ID}))
        if not answers:
            connection.shutdown(socket.SHUT_RDWR)

    with serving(script, keep_alive=True) as server, client(server.address) as kms:
        kms.cancel_key_deletion(KEY_ID, deadline=deadline(0.2))
        kms.cancel_key_deletion(KEY_ID, deadline=deadline())
        assert server.connections == 1

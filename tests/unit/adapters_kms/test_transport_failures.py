"""Everything that can go wrong between the request and a whole reply, played by a server byte for byte.

In each case: one request was sent, the reason and the code fit, and "committed nothing" is said only where nothing
was sent.
"""

import gzip
import json
import socket
import struct
import time
import traceback

import pytest
import requests
from urllib3.exceptions import LocationParseError

from keybroker.adapters.kms.client import KmsClient
from keybroker.adapters.kms.failures import transport_error
from keybroker.domain.errors import BrokerError, KmsError, Reason
from tests.unit.adapters_kms.support import (
    CMK,
    GIVEN_UP_SECONDS,
    KEY_ID,
    REQUEST_ID,
    Script,
    client,
    deadline,
    drips,
    error_body,
    falls_silent,
    key_body,
    replies,
    reply_bytes,
    sends,
    serving,
)

pytestmark = pytest.mark.usefixtures("loopback")

GOOD = reply_bytes({"RequestId": REQUEST_ID})
TOO_LONG = {"RequestId": REQUEST_ID, "Padding": "x" * 70 * 1024}


def closes(connection: socket.socket) -> None:
    """Leaves without an answer."""


def resets(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def resets_after(part: bytes) -> Script:
    def script(connection: socket.socket) -> None:
        connection.sendall(part)
        time.sleep(0.1)
        resets(connection)

    return script


def do_import(kms: KmsClient) -> object:
    return kms.import_key_material(CMK, wrapped_key_material=b"w" * 256, import_token="token", deadline=deadline())


UNAVAILABLE, INVALID = Reason.KMS_UNAVAILABLE, Reason.KMS_RESPONSE_INVALID
AMBIGUOUS: dict[str, tuple[Script, Reason, str]] = {
    "close before reply": (closes, UNAVAILABLE, "connection"),
    "reset before reply": (resets, UNAVAILABLE, "connection"),
    "silence": (falls_silent(), UNAVAILABLE, "timeout"),
    "close in status line": (sends(b"HTTP/1.1 20"), INVALID, "unreadable"),
    "close in headers": (sends(b"HTTP/1.1 200 OK\r\nContent-Le"), INVALID, "unreadable"),
    "close after headers": (sends(GOOD[: GOOD.index(b"{")]), INVALID, "unreadable"),
    "close in body": (sends(GOOD[:-5]), INVALID, "unreadable"),
    "close in chunked body": (
        sends(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"Req\r\n'),
        INVALID,
        "unreadable",
    ),
    "bad chunk length": (
        sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n{}\r\n"),
        INVALID,
        "unreadable",
    ),
    "reset in body": (resets_after(GOOD[:-5]), UNAVAILABLE, "connection"),
    "silence after headers": (falls_silent(GOOD[: GOOD.index(b"{")]), UNAVAILABLE, "timeout"),
    "garbage instead of HTTP": (sends(b"\x16\x03\x01garbage\r\n\r\n"), INVALID, "unreadable"),
    "headers without end": (sends(b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70000 + b"\r\n"), INVALID, "unreadable"),
    "garbage instead of JSON": (replies(b"\x00\xff garbage"), INVALID, "unreadable"),
    "HTML": (replies(b"<html>Welcome</html>"), INVALID, "unreadable"),
    "empty body": (replies(b""), INVALID, "unreadable"),
    "70 KiB": (replies(TOO_LONG), INVALID, "unreadable"),
    "70 KiB without length": (
        sends(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", json.dumps(TOO_LONG).encode()),
        INVALID,
        "unreadable",
    ),
    "compressed": (
        replies(gzip.compress(b'{"RequestId": "x"}'), headers={"Content-Encoding": "gzip"}),
        INVALID,
        "unreadable",
    ),
    "200 with an error": (replies(error_body("InvalidKeyMaterial")), INVALID, "unreadable"),
    "201": (replies({"RequestId": REQUEST_ID}, status=201), INVALID, "unreadable"),
    "500 with a 4xx code": (
        replies(error_body("InvalidKeyMaterial"), status=500),
        Reason.WRAPPED_KEY_MATERIAL_REFUSED,
        "InvalidKeyMaterial",
    ),
    "503 of the KMS": (
        replies(error_body("ServiceUnavailableTemporary"), status=503),
        UNAVAILABLE,
        "ServiceUnavailableTemporary",
    ),
    "502 of a gateway": (replies(b"<html>Bad gateway</html>", status=502), UNAVAILABLE, "unreadable"),
    "nonce used": (replies(error_body("SignatureNonceUsed"), status=400), UNAVAILABLE, "SignatureNonceUsed"),
    "unknown code": (replies(error_body("Novel.Code"), status=400), Reason.KMS_ERROR_UNRECOGNISED, "other"),
    "404 without a code": (replies({"RequestId": REQUEST_ID}, status=404), INVALID, "unreadable"),
}


@pytest.mark.parametrize(("script", "reason", "kms_code"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_import_without_a_usable_answer_is_ambiguous_and_sent_once(
    script: Script, reason: Reason, kms_code: str
) -> None:
    patience = 0.3 if kms_code == "timeout" else 10.0
    with (
        serving(script) as server,
        client(server.address, read_timeout_seconds=patience) as kms,
        pytest.raises(KmsError) as caught,
    ):
        do_import(kms)
    assert (caught.value.reason, caught.value.kms_code) == (reason, kms_code)
    assert not caught.value.committed_nothing
    assert len(server.requests) == server.connections == 1


def test_refusal_proves_that_nothing_was_committed_and_is_sent_once() -> None:
    with serving(replies(error_body("InvalidKeyMaterial"), status=400)) as server, client(server.address) as kms:
        with pytest.raises(KmsError) as caught:
            do_import(kms)
        assert caught.value.reason is Reason.WRAPPED_KEY_MATERIAL_REFUSED
        assert caught.value.committed_nothing
        assert caught.value.kms_request_id == REQUEST_ID
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_not_followed(status: int) -> None:
    with serving(replies({"RequestId": REQUEST_ID})) as other:
        redirect = replies(b"", status=status, headers={"Location": f"http://{other.address}/"})
        with serving(redirect) as server, client(server.address) as kms, pytest.raises(KmsError) as caught:
            do_import(kms)
        assert (caught.value.reason, caught.value.committed_nothing) == (INVALID, False)
        assert len(server.requests) == 1
        assert other.requests == []


@pytest.mark.parametrize("location", ["http://[oops", "http://\udce9", "//", "http://x:99999/"])
def test_redirect_to_nowhere_is_ambiguous(location: str) -> None:
    head = f"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: {location}\r\n\r\n"
    script = sends(head.encode(errors="surrogateescape"))
    with serving(script) as server, client(server.address) as kms, pytest.raises(KmsError) as caught:
        do_import(kms)
    assert (caught.value.reason, caught.value.committed_nothing) == (INVALID, False)


def test_redirect_with_an_endless_body_is_read_up_to_the_limit() -> None:
    sent = []

    def floods(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n")
        while len(sent) < 1000:
            connection.sendall(b"x" * 65536)
            sent.append(65536)

    with serving(floods) as server, client(server.address) as kms, pytest.raises(KmsError) as caught:
        do_import(kms)
    assert (caught.value.reason, caught.value.kms_code) == (INVALID, "unreadable")
    assert len(sent) < 500


def test_redirect_with_a_dripping_body_ends_at_the_deadline() -> None:
    first = b"HTTP/1.1 302 Found\r\nContent-Length: 1000\r\nLocation: http://127.0.0.1/\r\n\r\n"
    with serving(drips(first)) as server, client(server.address) as kms:
        started = time.monotonic()
        with pytest.raises(KmsError) as caught:
            kms.cancel_key_deletion(KEY_ID, deadline=deadline(1.5))
        assert time.monotonic() - started < GIVEN_UP_SECONDS / 2
    assert (caught.value.kms_code, caught.value.committed_nothing) == ("timeout", False)


@pytest.mark.parametrize("error", [ValueError, KeyError, RuntimeError, UnicodeDecodeError, MemoryError])
def test_any_other_exception_is_ambiguous_and_its_text_goes_nowhere(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> object:
        raise error(*(("utf-8", b"canary", 0, 1, "canary") if error is UnicodeDecodeError else ("canary",)))

    monkeypatch.setattr("requests.adapters.HTTPAdapter.build_response", fails)
    with serving(sends(GOOD)) as server, client(server.address) as kms, pytest.raises(KmsError) as caught:
        do_import(kms)
    assert (caught.value.reason, caught.value.committed_nothing) == (UNAVAILABLE, False)
    assert "canary" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None
    assert len(server.requests) == 1


def test_slow_drip_ends_at_the_deadline() -> None:
    first = b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"RequestId":'
    with serving(drips(first)) as server, client(server.address) as kms:
        started = time.monotonic()
        with pytest.raises(KmsError) as caught:
            kms.cancel_key_deletion(KEY_ID, deadline=deadline(1.5))
        assert time.monotonic() - started < GIVEN_UP_SECONDS / 2
        assert (caught.value.kms_code, caught.value.committed_nothing) == ("timeout", False)


@pytest.mark.parametrize(
    ("configured_seconds", "deadline_seconds", "expected_seconds"), [(0.3, 20, 0.3), (20, 1.5, 1.5)]
)
def test_read_time_out_is_the_shorter_of_setting_and_deadline(
    configured_seconds: float, deadline_seconds: float, expected_seconds: float
) -> None:
    with serving(falls_silent()) as server, client(server.address, read_timeout_seconds=configured_seconds) as kms:
        started = time.monotonic()
        with pytest.raises(KmsError):
            kms.describe_key(KEY_ID, deadline=deadline(deadline_seconds))
        assert expected_seconds * 0.9 < time.monotonic() - started < GIVEN_UP_SECONDS / 2


def test_deadline_too_short_sends_nothing() -> None:
    with serving(replies(key_body())) as server, client(server.address) as kms:
        with pytest.raises(BrokerError) as caught:
            kms.describe_key(KEY_ID, deadline=deadline(0.01))
        assert caught.value.reason is Reason.DEADLINE_TOO_SHORT
        assert server.connections == 0


NOBODY = "127.0.0.1:1"

NEVER_SENT: dict[str, dict[str, object]] = {
    "connection refused": {"endpoint": f"http://{NOBODY}"},
    "name not known": {"endpoint": "https://kms.invalid"},
    "proxy refused": {"endpoint": "https://kms.example.com", "proxy": f"http://{NOBODY}"},
    "proxy refused, http": {"endpoint": "http://127.0.0.1:9", "proxy": f"http://{NOBODY}"},
    "proxy not known": {"endpoint": "https://kms.example.com", "proxy": "http://proxy.invalid:3128"},
}


@pytest.mark.parametrize("settings", NEVER_SENT.values(), ids=NEVER_SENT)
def test_failure_to_connect_proves_that_nothing_was_sent(settings: dict[str, object]) -> None:
    with client("", **settings) as kms, pytest.raises(KmsError) as caught:
        do_import(kms)
    assert (caught.value.reason, caught.value.kms_code) == (UNAVAILABLE, "connection")
    assert caught.value.committed_nothing


@pytest.mark.parametrize(("configured_seconds", "deadline_seconds"), [(0.2, 20), (20, 1.5)])
def test_connect_time_out_proves_that_nothing_was_sent(configured_seconds: float, deadline_seconds: float) -> None:
    with socket.socket() as full:  # a backlog that is full answers no further connection
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)  # noqa: FBT003
            each.connect_ex(address)
        time.sleep(0.05)
        started = time.monotonic()
        with (
            client(f"127.0.0.1:{address[1]}", connect_timeout_seconds=configured_seconds) as kms,
            pytest.raises(KmsError) as caught,
        ):
            kms.cancel_key_deletion(KEY_ID, deadline=deadline(deadline_seconds))
        assert time.monotonic() - started < GIVEN_UP_SECONDS / 2
        for each in waiting:
            each.close()
    assert (caught.value.kms_code, caught.value.committed_nothing) == ("connection", True)


@pytest.mark.parametrize(
    "error",
    [
        requests.exceptions.InvalidURL(LocationParseError("canary")),
        requests.exceptions.InvalidURL("canary"),
        requests.exceptions.InvalidProxyURL("canary"),
        LocationParseError("canary"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_url_that_the_libraries_do_not_take_proves_that_nothing_was_sent(error: Exception) -> None:
    failure = transport_error(error)
    assert (failure.reason, failure.kms_code, failure.committed_nothing) == (UNAVAILABLE, "connection", True)
    assert "canary" not in failure.message


def test_request_lost_behind_a_forwarding_proxy_is_ambiguous() -> None:
    """urllib3 calls this a ProxyError, the same as a proxy that was never reached."""
    with serving(closes) as proxy, client("127.0.0.1:9", proxy=f"http://{proxy.address}") as kms:
        with pytest.raises(KmsError) as caught:
            do_import(kms)
        assert (caught.value.kms_code, caught.value.committed_nothing) == ("connection", False)
        assert len(proxy.requests) == 1


def test_pooled_connection_that_was_dropped_is_not_a_second_send() -> None:
    answers = [key_body(), None]

    def script(connection: socket.socket) -> None:
        answer = answers.pop(0)
        if answer is None:
            connection.shutdown(socket.SHUT_RDWR)
        else:
            connection.sendall(reply_bytes(answer))

    with serving(script, keep_alive=True) as server, client(server.address) as kms:
        kms.describe_key(KEY_ID, deadline=deadline())
        with pytest.raises(KmsError) as caught:
            do_import(kms)
        assert (caught.value.kms_code, caught.value.committed_nothing) == ("connection", False)
        assert len(server.requests) == 2
        assert server.connections == 1


def test_idle_connection_that_the_kms_closed_is_replaced() -> None:
    with serving(replies(key_body())) as server, client(server.address) as kms:
        for done in range(3):
            kms.describe_key(KEY_ID, deadline=deadline())
            while server.closed <= done:
                time.sleep(0.01)
        assert len(server.requests) == server.connections == 3


def test_connection_is_used_again() -> None:
    with serving(replies(key_body()), keep_alive=True) as server, client(server.address) as kms:
        for _ in range(5):
            kms.describe_key(KEY_ID, deadline=deadline())
        assert len(server.requests) == 5
        assert server.connections == 1

"""A server that plays a script, byte for byte, and builders of the client under test."""

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from keybroker.adapters.clock import SystemClock
from keybroker.adapters.kms.client import KmsClient
from keybroker.adapters.kms.credentials import Credentials
from keybroker.domain.deadline import Deadline
from keybroker.domain.external_key import CmkName

ACCOUNT = "1540355698840000"
REGION = "cn-hangzhou"
KEY_ID = "key-hzz62f1cb66fa42qo0000"
CMK = CmkName(ACCOUNT, REGION, KEY_ID)
ARN = f"acs:kms:{REGION}:{ACCOUNT}:key/{KEY_ID}"
REQUEST_ID = "36c7e41a-3f2c-45f7-9bdd-d1dc1e7e7e06"
ACCESS_KEY_ID = "LTAIexampleAccessKey0"
ACCESS_KEY_SECRET = "exampleSecret1234567890abcdefgh"

GIVEN_UP_SECONDS = 20.0  # a client that is still there then is not waited for
"""More than any call that has to end in time may take, on whatever machine."""

Script = Callable[[socket.socket], None]


class ScriptedServer:
    """Answers every request by `script`. `requests` holds what came in, `connections` and `closed` count.

    `request` is the one that a running script answers, however many others come in meanwhile.
    """

    def __init__(self, script: Script, *, tls: ssl.SSLContext | None = None, keep_alive: bool = False) -> None:
        self.script = script
        self.requests: list[bytes] = []
        self.connections = 0
        self.closed = 0
        self._asked = threading.local()
        self._tls = tls
        self._keep_alive = keep_alive
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def request(self) -> bytes:
        asked: bytes = self._asked.request
        return asked

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(timeout=10)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            if self._tls is None:
                self._answer(connection)
            else:
                with self._tls.wrap_socket(connection, server_side=True) as encrypted:
                    self._answer(encrypted)
        self.closed += 1

    def _answer(self, connection: socket.socket) -> None:
        connection.settimeout(5)
        while request := _read_request(connection):
            self.requests.append(request)
            self._asked.request = request
            self.script(connection)
            if not self._keep_alive:
                return


@contextmanager
def serving(script: Script, *, tls: ssl.SSLContext | None = None, keep_alive: bool = False) -> Iterator[ScriptedServer]:
    server = ScriptedServer(script, tls=tls, keep_alive=keep_alive)
    try:
        yield server
    finally:
        server.close()


def _read_request(connection: socket.socket) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = connection.recv(65536)
        if not chunk:
            return b""
        received += chunk
    return received


def reply_bytes(body: bytes | object, *, status: int = 200, headers: dict[str, str] | None = None) -> bytes:
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(payload)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + payload


def sends(*parts: bytes) -> Script:
    def script(connection: socket.socket) -> None:
        for part in parts:
            connection.sendall(part)

    return script


def replies(body: bytes | object, *, status: int = 200, headers: dict[str, str] | None = None) -> Script:
    return sends(reply_bytes(body, status=status, headers=headers))


def falls_silent(first: bytes = b"") -> Script:
    """Says this much, and no more until the client goes away."""

    def script(connection: socket.socket) -> None:
        connection.sendall(first)
        connection.settimeout(GIVEN_UP_SECONDS)
        while connection.recv(65536):
            continue

    return script


def drips(first: bytes, piece: bytes = b" ", *, every_seconds: float = 0.1) -> Script:
    """Says `first`, and then a piece at a time until the client goes away."""

    def script(connection: socket.socket) -> None:
        connection.sendall(first)
        for _ in range(round(GIVEN_UP_SECONDS / every_seconds)):
            time.sleep(every_seconds)
            connection.sendall(piece)

    return script


def error_body(code: str, message: str = "A text of the KMS.", **more: object) -> dict[str, object]:
    return {"HttpStatus": 400, "Code": code, "Message": message, "RequestId": REQUEST_ID} | more


def key_metadata(**overrides: object) -> dict[str, object]:
    return {
        "KeyId": KEY_ID,
        "Arn": ARN,
        "Creator": ACCOUNT,
        "CreationDate": "2023-03-25T10:00:00Z",
        "Description": "",
        "KeyState": "PendingImport",
        "KeyUsage": "ENCRYPT/DECRYPT",
        "KeySpec": "Aliyun_AES_256",
        "Origin": "EXTERNAL",
        "ProtectionLevel": "HSM",
        "DKMSInstanceId": "kst-example",
        "DeleteDate": "",
        "MaterialExpireTime": "",
    } | overrides


def key_body(**overrides: object) -> dict[str, object]:
    return {"KeyMetadata": key_metadata(**overrides), "RequestId": REQUEST_ID}


def credentials(**overrides: str) -> Credentials:
    return Credentials(**({"access_key_id": ACCESS_KEY_ID, "access_key_secret": ACCESS_KEY_SECRET} | overrides))


def deadline(seconds: float = 20.0) -> Deadline:
    return Deadline.after(seconds, monotonic=time.monotonic)


@contextmanager
def client(address: str, **overrides: Any) -> Iterator[KmsClient]:
    settings: dict[str, Any] = {
        "name": "main",
        "region": REGION,
        "endpoint": address if "//" in address else f"http://{address}",
        "dkms_instance_id": "kst-example",
        "credentials": credentials,
        "clock": SystemClock(),
    }
    kms = KmsClient(**(settings | overrides))
    try:
        yield kms
    finally:
        kms.close()

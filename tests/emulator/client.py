"""A signing client for tests, written apart from the emulator: requests that the vendor's SDK would not send, too."""

import hashlib
import hmac
import http.client
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from kms_emulator import AccessKey, Emulator
from kms_emulator.wire import HttpReply, HttpRequest

FORM = "application/x-www-form-urlencoded"
DATE_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Answer:
    status: int
    body: dict[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def code(self) -> str:
        return self.body.get("Code", "")


def encoded(pairs: Mapping[str, str]) -> str:
    return urlencode(sorted(pairs.items()), quote_via=quote, safe="")


def signed(request: HttpRequest, access_key: AccessKey, *, query: Mapping[str, str]) -> HttpRequest:
    """The request with every header it has signed, and the Authorization header added."""
    names = ";".join(sorted(request.headers))
    lines = "".join(f"{name}:{request.headers[name]}\n" for name in sorted(request.headers))
    digest = hashlib.sha256(request.body).hexdigest()
    canonical = f"{request.method}\n/\n{encoded(query)}\n{lines}\n{names}\n{digest}"
    text = f"ACS3-HMAC-SHA256\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signature = hmac.new(access_key.access_key_secret.encode(), text.encode(), hashlib.sha256).hexdigest()
    credential = f"Credential={access_key.access_key_id},SignedHeaders={names},Signature={signature}"
    return replace(request, headers={**request.headers, "authorization": f"ACS3-HMAC-SHA256 {credential}"})


@dataclass(frozen=True)
class RequestBuilder:
    """What a well-behaved client sends; every part can be overridden."""

    access_key: AccessKey
    now: datetime
    method: str = "POST"
    version: str = "2016-01-20"
    in_form: bool = False
    nonce: str = ""
    date: str = ""
    extra_headers: Mapping[str, str] = field(default_factory=dict)

    def build(self, action: str, parameters: Mapping[str, str]) -> HttpRequest:
        query = {} if self.in_form else dict(parameters)
        body = urlencode(parameters).encode() if self.in_form else b""
        headers = {
            "host": "127.0.0.1",
            "x-acs-action": action,
            "x-acs-version": self.version,
            "x-acs-date": self.date or self.now.strftime(DATE_FORMAT),
            "x-acs-signature-nonce": self.nonce or uuid.uuid4().hex,
            "x-acs-content-sha256": hashlib.sha256(body).hexdigest(),
        }
        if self.in_form:
            headers["content-type"] = FORM
        if self.access_key.security_token:
            headers["x-acs-security-token"] = self.access_key.security_token
        headers.update(self.extra_headers)
        request = HttpRequest(self.method, "/", encoded(query), headers, body)
        return signed(request, self.access_key, query=query)


class Client:
    """Calls operations of an emulator by way of `send`."""

    def __init__(self, emulator: Emulator, send: Callable[[HttpRequest], Answer]) -> None:
        self.emulator = emulator
        self.send = send

    def request(self, action: str, parameters: Mapping[str, str], **overrides: object) -> HttpRequest:
        defaults = {"access_key": self.emulator.settings.access_keys[0], "now": self.emulator.clock.now()}
        return RequestBuilder(**{**defaults, **overrides}).build(action, parameters)

    def call(self, action: str, **parameters: object) -> Answer:
        return self.send(self.request(action, {name: str(value) for name, value in parameters.items()}))

    def ok(self, action: str, **parameters: object) -> dict[str, Any]:
        answer = self.call(action, **parameters)
        assert answer.status == 200, answer.body
        return answer.body

    def state(self, key_id: str) -> str:
        return self.ok("DescribeKey", KeyId=key_id)["KeyMetadata"]["KeyState"]


def in_process(emulator: Emulator) -> Client:
    """A client that asks the gateway itself: no sockets."""

    def send(request: HttpRequest) -> Answer:
        reply: HttpReply = emulator._gateway.answer(request)[0]
        if reply.transport != "whole":
            raise ConnectionError(reply.transport)
        return Answer(reply.status, json.loads(reply.body), reply.headers)

    return Client(emulator, send)


def over_http(emulator: Emulator, timeout: float = 10.0) -> Client:
    """A client on a connection of its own for each call."""
    address = urlsplit(emulator.endpoint)

    def send(request: HttpRequest) -> Answer:
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=timeout)
        try:
            connection.request(request.method, f"/?{request.query}", request.body, dict(request.headers))
            response = connection.getresponse()
            body = response.read()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, json.loads(body), headers)
        finally:
            connection.close()

    return Client(emulator, send)


HOUR = timedelta(hours=1).total_seconds()
DAY = 24 * HOUR

"""Asking an endpoint for credentials over HTTP, and reading its answer. Knows none of the endpoints.

One connection for each request, since requests are an hour apart. What transport.py says of environment, redirects,
cookies, TLS and sizes holds here too. No text of the endpoint goes further than the credentials themselves, and of
error codes those made of letters and dots only.
"""

import json
import re
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import requests
from urllib3 import Timeout
from urllib3.exceptions import HTTPError

from keybroker.adapters.kms.connections import ending_at
from keybroker.adapters.kms.credentials import Credentials, CredentialsError, TemporaryCredentials
from keybroker.adapters.kms.failures import transport_error
from keybroker.adapters.kms.transport import is_loopback, new_adapter, read_whole, trust
from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import KmsError

_OK = 200
_CODE = re.compile(r"(?=.{1,64}$)[A-Za-z]+(\.[A-Za-z]+)*")
_EXPIRATION = "%Y-%m-%dT%H:%M:%SZ"
MALFORMED = "malformed answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How the endpoint is reached. `ca_bundle` takes the place of the system's CAs; plain http goes to no proxy."""

    timeout_seconds: float
    proxy: str | None = field(default=None, repr=False)  # the URL may hold a user and a password
    ca_bundle: Path | None = None


class CredentialsHttp:
    """Requests to one host. Opens no connection until it is used; reads only the CA bundle.

    ValueError: `url` is neither https nor plain http to this machine or to `plain_http_host`.
    """

    def __init__(self, url: str, *, connection: Connection, plain_http_host: str = "") -> None:
        self._url = _checked(url, plain_http_host)
        self._connection = connection
        self._context = trust(connection.ca_bundle)

    def ask(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, form: Mapping[str, str] | None = None
    ) -> bytes:
        """The body of an answer 200 to one request. Raises CredentialsError."""
        request = requests.Request(method, f"{self._url}{path}", headers=headers, data=form)
        try:
            status, body = self._exchange(request)
        except (requests.RequestException, HTTPError) as error:
            failure = transport_error(error).kms_code
        except KmsError as error:
            failure = error.kms_code
        else:
            if status == _OK:
                return body
            failure = f"status {status}{_code(body)}"
        raise CredentialsError(failure)

    def _exchange(self, request: requests.Request) -> tuple[int, bytes]:
        deadline = Deadline.after(self._connection.timeout_seconds, monotonic=time.monotonic)
        proxy = self._connection.proxy
        timeout: Any = Timeout(total=self._connection.timeout_seconds)  # requests takes urllib3's
        with (
            closing(new_adapter(self._context, pool_size=1)) as adapter,
            ending_at(deadline),
            adapter.send(
                request.prepare(), timeout=timeout, proxies={"https": proxy} if proxy else {}, stream=True
            ) as response,
        ):
            return response.status_code, read_whole(response.raw, deadline)


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object in an answer. Raises CredentialsError."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise CredentialsError(MALFORMED)
    return value


def temporary_credentials(values: object) -> TemporaryCredentials:
    """From AccessKeyId, AccessKeySecret, SecurityToken and Expiration. Raises CredentialsError.

    Source: contract 4, items 2 and 5.
    """
    if not isinstance(values, dict):
        raise CredentialsError(MALFORMED)
    names = ("AccessKeyId", "AccessKeySecret", "SecurityToken", "Expiration")
    texts = [text for name in names if isinstance(text := values.get(name), str) and text.strip()]
    parsed = _parsed(*texts) if len(texts) == len(names) else None
    if parsed is None:
        raise CredentialsError(MALFORMED)
    return parsed


def require_success(values: Mapping[str, Any]) -> None:
    """CredentialsError unless the answer says `"Code": "Success"`, as the metadata service's does."""
    if values.get("Code") != "Success":
        raise CredentialsError(f"refused{_code_in(values)}")


def without_path(url: str) -> str:
    """`url` without a last slash; ValueError if it has a path or a query."""
    parts = _split(url)
    if parts is None or parts.path not in {"", "/"} or parts.query:
        raise ValueError("it must be a scheme, a host and a port, nothing else")
    return url.rstrip("/")


def _parsed(key_id: str, secret: str, token: str, expiration: str) -> TemporaryCredentials | None:
    try:
        expires_at = datetime.strptime(expiration, _EXPIRATION).replace(tzinfo=UTC)
        return TemporaryCredentials(Credentials(key_id, secret, token), expires_at)
    except ValueError:
        return None


def _code(body: bytes) -> str:
    try:
        return _code_in(json_object(body))
    except CredentialsError:
        return ""


def _code_in(values: Mapping[str, Any]) -> str:
    code = values.get("Code")
    return f" {code}" if isinstance(code, str) and _CODE.fullmatch(code) else ""


def _checked(url: str, plain_http_host: str) -> str:
    parts = _split(url)
    if parts is None or not parts.hostname or "@" in parts.netloc or parts.fragment:
        raise ValueError("it must be a URL of https or http, without user or fragment")
    if parts.scheme == "http" and parts.hostname != plain_http_host and not is_loopback(parts.hostname):
        raise ValueError("it must be https: plain http goes to a loopback address only")
    return url


def _split(url: str) -> SplitResult | None:
    """The parts of a URL of http(s). None hides urlsplit's errors: they quote it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return parts if parts.scheme in {"http", "https"} else None

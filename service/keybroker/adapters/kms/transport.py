"""One signed request to one KMS endpoint, and its reply. Knows HTTP, not the KMS's operations.

Requests go straight to an adapter of requests, never through its Session: so nothing is repeated, no redirect is
followed or even looked at, no cookie is kept, nothing is taken from the process's environment (proxies, netrc, CA
bundles). TLS is always verified. A reply is read up to a size and a deadline (connections.py).
"""

import logging
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from requests import PreparedRequest
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from requests.structures import CaseInsensitiveDict
from urllib3 import HTTPResponse, Timeout

from keybroker.adapters.kms.connections import POOLS_BY_SCHEME, SHORTEST_TIMEOUT_SECONDS, ending_at
from keybroker.adapters.kms.failures import emulator_refused, timed_out, transport_error, unreadable
from keybroker.adapters.kms.signing import canonical_query
from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import KmsError

_SCHEMES = frozenset({"http", "https"})
_HOST = re.compile(r"[0-9a-f:.]*:[0-9a-f:.]*|(?=.{1,253}$)([a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?")
EMULATOR_HEADER = "x-kms-emulator"
MAX_REPLY_BYTES = 64 * 1024
_CHUNK_BYTES = 16 * 1024
_TALKATIVE_LOGGERS = ("urllib3.connection", "urllib3.connectionpool")
_HEADERS = {
    "User-Agent": "keybroker",
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "Content-Length": "0",
}


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: header names in lower case, the body whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)  # it may hold an import token


class Transport:
    """A pool of connections to `endpoint`. Opens none until the first request; reads only the CA bundle."""

    def __init__(  # noqa: PLR0913  # each is a setting
        self,
        *,
        endpoint: str,
        proxy: str | None,
        ca_bundle: Path | None,
        connect_timeout_seconds: float,
        read_timeout_seconds: float,
        pool_size: int,
        allow_emulator: bool,
    ) -> None:
        self._url = checked_endpoint(endpoint)
        self._proxies = {"http": _checked_proxy(proxy), "https": proxy} if proxy else {}
        self._connect_timeout_seconds = connect_timeout_seconds
        self._read_timeout_seconds = read_timeout_seconds
        self._allow_emulator = allow_emulator
        self._adapter = new_adapter(trust(ca_bundle), pool_size=pool_size)

    def post(self, parameters: Mapping[str, str], *, auth: AuthBase, deadline: Deadline) -> Reply:
        """Sends one POST with the parameters in its query.

        Reasons: KMS_UNAVAILABLE, KMS_RESPONSE_INVALID, EMULATOR_NOT_ALLOWED.
        """
        try:
            return self._exchange(parameters, auth, deadline)
        except KmsError:
            raise
        except Exception as error:  # noqa: BLE001  # the request may be out: whatever goes wrong, the outcome is open
            failure = transport_error(error)
        raise failure

    def close(self) -> None:
        """Closes the pooled connections."""
        self._adapter.close()

    def _exchange(self, parameters: Mapping[str, str], auth: AuthBase, deadline: Deadline) -> Reply:
        request = auth(_prepared(f"{self._url}/?{canonical_query(parameters.items())}"))
        timeout: Any = self._timeout(deadline)  # requests takes urllib3's, its stubs don't say so
        with (
            ending_at(deadline),
            self._adapter.send(request, timeout=timeout, proxies=self._proxies, stream=True) as response,
        ):
            headers = {name.lower(): value for name, value in response.headers.items()}
            if EMULATOR_HEADER in headers and not self._allow_emulator:
                raise emulator_refused()
            return Reply(response.status_code, headers, read_whole(response.raw, deadline))

    def _timeout(self, deadline: Deadline) -> Timeout:
        return Timeout(
            total=max(deadline.remaining_seconds(), SHORTEST_TIMEOUT_SECONDS),
            connect=self._connect_timeout_seconds,
            read=self._read_timeout_seconds,
        )


def checked_endpoint(endpoint: str) -> str:
    """Returns `endpoint` without a last slash, if it is https, or http to this machine; otherwise a ValueError."""
    parts = _split(endpoint)
    if parts is None:
        raise ValueError("the KMS endpoint must be a URL such as https://kms.cn-hangzhou.aliyuncs.com")
    if parts.path not in {"", "/"} or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("the KMS endpoint must be a scheme, a host and a port, nothing else")
    if parts.scheme == "http" and not is_loopback(str(parts.hostname)):
        raise ValueError("the KMS endpoint must be https: plain http goes to a loopback address only")
    return f"{parts.scheme}://{parts.netloc}"


def _checked_proxy(proxy: str) -> str:
    if _split(proxy) is None:
        raise ValueError("the KMS proxy must be a URL such as http://proxy.example:3128")
    return proxy


def _split(url: str) -> SplitResult | None:
    """The parts of a URL of http(s) with a well-formed host and port. None hides urlsplit's errors: they quote it."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        if ":" in host:
            ip_address(host)
    except ValueError:
        return None
    printable = all("!" <= character <= "~" for character in url)
    return parts if printable and parts.scheme in _SCHEMES and port != 0 and _HOST.fullmatch(host) else None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host. A name is not looked up."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Adapter(HTTPAdapter):
    """Trusts what its TLS context trusts (requests would add certifi's bundle). Its connections keep deadlines."""

    def __init__(self, context: ssl.SSLContext, *, pool_size: int) -> None:
        self._context = context
        super().__init__(pool_connections=1, pool_maxsize=pool_size, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # the library's signature
        """As the library, with our context and connections."""
        super().init_poolmanager(*args, **kwargs, ssl_context=self._context)
        self.poolmanager.pool_classes_by_scheme = POOLS_BY_SCHEME

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:  # noqa: ANN401  # the library's signature
        """As the library, with our context and connections."""
        manager = super().proxy_manager_for(proxy, **kwargs, ssl_context=self._context)
        manager.pool_classes_by_scheme = POOLS_BY_SCHEME
        return manager

    def cert_verify(self, conn: Any, url: str, verify: object, cert: object) -> None:  # noqa: ANN401, ARG002
        """Verifies always, whatever `verify` says."""
        conn.cert_reqs = "CERT_REQUIRED"


def trust(ca_bundle: Path | None) -> ssl.SSLContext:
    """Trusts the bundle's CAs or the system's, checks host names and, unlike the default context, logs no keys."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_bundle is None:
        context.load_default_certs()
        return context
    try:
        context.load_verify_locations(cafile=ca_bundle)
    except OSError as error:  # ssl's errors are among them
        raise ValueError(f"the CA bundle {ca_bundle} can't be read as PEM certificates") from error
    return context


def _prepared(url: str) -> PreparedRequest:
    """A POST without body to a URL that is encoded already."""
    request = PreparedRequest()
    request.method = "POST"
    request.url = url
    request.headers = CaseInsensitiveDict(_HEADERS)
    return request


def new_adapter(context: ssl.SSLContext, *, pool_size: int) -> HTTPAdapter:
    """What sends requests: it repeats and follows nothing, knows no cookies or environment, logs no URLs."""
    for name in _TALKATIVE_LOGGERS:
        logging.getLogger(name).addFilter(_drop)
    return _Adapter(context, pool_size=pool_size)


def read_whole(raw: HTTPResponse, deadline: Deadline) -> bytes:
    """The body, up to MAX_REPLY_BYTES and the deadline. Raises what `unreadable` and `timed_out` make."""
    body = bytearray()
    while chunk := raw.read1(_CHUNK_BYTES, decode_content=False):
        body += chunk
        if len(body) > MAX_REPLY_BYTES:
            raise unreadable("it is too long")
        if deadline.remaining_seconds() <= 0:
            raise timed_out()
    return bytes(body)


def _drop(record: logging.LogRecord) -> bool:  # noqa: ARG001  # a logging filter's signature
    """Lets no record through: they hold whole URLs, and ours hold the import token and the wrapped material."""
    return False

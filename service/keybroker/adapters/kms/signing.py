"""ACS3-HMAC-SHA256, the signature of a request to the KMS, as an authentication class of requests.

Signs what is in the prepared request: method, query, body, host, content-type and every x-acs-* header. The clock and
the nonce are given. Source: contract 3.3, with its vectors A to D.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, urlsplit

from requests import PreparedRequest
from requests.auth import AuthBase

from keybroker.adapters.kms.credentials import Credentials

ALGORITHM = "ACS3-HMAC-SHA256"
API_VERSION = "2016-01-20"
_DEFAULT_PORTS = {"http": 80, "https": 443}


def new_nonce() -> str:
    """A nonce that no other request has: 128 random bits in hex."""
    return secrets.token_hex(16)


def canonical_query(parameters: Iterable[tuple[str, str]]) -> str:
    """The parameters as a query, sorted and percent-encoded by RFC 3986 (space is %20, "*" is %2A)."""
    return "&".join(f"{_encoded(name)}={_encoded(value)}" for name, value in sorted(parameters))


class Acs3Auth(AuthBase):
    """Adds the headers of one operation and signs them. `now` is UTC-aware; `nonce` gives a new text every time."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        action: str,
        now: Callable[[], datetime],
        nonce: Callable[[], str] = new_nonce,
    ) -> None:
        self._credentials = credentials
        self._action = action
        self._now = now
        self._nonce = nonce

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        """Signs `r` in place."""
        r.headers["Host"] = _host(r)
        r.headers["x-acs-action"] = self._action
        r.headers["x-acs-version"] = API_VERSION
        r.headers["x-acs-date"] = self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        r.headers["x-acs-signature-nonce"] = self._nonce()
        r.headers["x-acs-content-sha256"] = hashlib.sha256(_body(r)).hexdigest()
        if self._credentials.security_token:
            r.headers["x-acs-accesskey-id"] = self._credentials.access_key_id
            r.headers["x-acs-security-token"] = self._credentials.security_token
        r.headers["Authorization"] = self._authorization(r)
        return r

    def _authorization(self, request: PreparedRequest) -> str:
        to_sign = f"{ALGORITHM}\n{hashlib.sha256(canonical_request(request).encode()).hexdigest()}"
        secret = self._credentials.access_key_secret.encode()
        signature = hmac.new(secret, to_sign.encode(), hashlib.sha256).hexdigest()
        signed = ";".join(_signed_headers(request))
        return f"{ALGORITHM} Credential={self._credentials.access_key_id},SignedHeaders={signed},Signature={signature}"


def canonical_request(request: PreparedRequest) -> str:
    """The text that is hashed and signed."""
    headers = _signed_headers(request)
    return "\n".join(
        (
            str(request.method),
            "/",
            canonical_query(parse_qsl(urlsplit(str(request.url)).query, keep_blank_values=True)),
            "".join(f"{name}:{value}\n" for name, value in headers.items()),
            ";".join(headers),
            headers["x-acs-content-sha256"],
        )
    )


def _signed_headers(request: PreparedRequest) -> dict[str, str]:
    lower = {name.lower(): str(value).strip() for name, value in request.headers.items()}
    names = sorted(name for name in lower if name in {"host", "content-type"} or name.startswith("x-acs-"))
    return {name: lower[name] for name in names}


def _host(request: PreparedRequest) -> str:
    """What the client library would put there by itself: the port only if it is not the scheme's own."""
    parts = urlsplit(str(request.url))
    name = f"[{parts.hostname}]" if ":" in str(parts.hostname) else str(parts.hostname)
    return name if parts.port in {None, _DEFAULT_PORTS[parts.scheme]} else f"{name}:{parts.port}"


def _body(request: PreparedRequest) -> bytes:
    body = request.body or b""
    return body.encode() if isinstance(body, str) else body


def _encoded(text: str) -> str:
    return quote(text, safe="-_.~")

"""The public keys of a token issuer (RFC 7517): from a watched file, or from a URL.

From a URL they are kept for some minutes; a key id that is not among them makes one new request, at most every
MIN_SECONDS, so that rotation is seen at once and made-up ids cost little. What was fetched last stays in force while
the URL fails.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jwt
import requests
import structlog
from urllib3.exceptions import HTTPError

MIN_SECONDS = 5.0
_MAX_BYTES = 256 * 1024
_CHUNK_BYTES = 16 * 1024
_TIMEOUT_SECONDS = 3.0
_WAIT_SECONDS = 1.0

KeySet = Mapping[str | None, jwt.PyJWK]


def parse_jwks(content: bytes) -> KeySet:
    """The asymmetric signing keys of a JWKS by key id; a lone key stands under None too. Raises ValueError."""
    try:
        entries = json.loads(content)["keys"]
        usable = [(entry.get("kid"), _key(entry)) for entry in entries if _signs(entry)]
    except (jwt.PyJWTError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError(f"not a JSON Web Key Set ({type(error).__name__})") from None
    keys = {key_id: key for key_id, key in usable if key is not None}
    if not keys:
        raise ValueError("no public signing key in the JSON Web Key Set")
    return keys | ({None: next(iter(keys.values()))} if len(usable) == 1 else {})


class FileKeys:
    """tokens.Keys from what `current` gives: a watched file."""

    def __init__(self, current: Callable[[], KeySet]) -> None:
        self._current = current

    def find(self, key_id: str | None) -> jwt.PyJWK | None:
        """See tokens.Keys."""
        return self._current().get(key_id)


class UrlKeys:
    """tokens.Keys from a URL. Nothing is fetched before the first token comes."""

    def __init__(self, url: str, *, ca_file: Path | None, cache_seconds: float, monotonic: Callable[[], float]) -> None:
        self._url = url
        self._cache_seconds = cache_seconds
        self._monotonic = monotonic
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = str(ca_file) if ca_file else True
        self._fetching = threading.Lock()
        self._keys: KeySet = {}
        self._fetched_at = self._tried_at = float("-inf")

    def find(self, key_id: str | None) -> jwt.PyJWK | None:
        """See tokens.Keys. A known key waits for no fetch; an unknown one for a moment, if another call fetches."""
        known = self._keys.get(key_id)
        if known is not None and self._monotonic() - self._fetched_at <= self._cache_seconds:
            return known
        if self._fetching.acquire(timeout=0 if known is not None else _WAIT_SECONDS):
            try:
                self._fetch_if_due(key_id)
            finally:
                self._fetching.release()
        return self._keys.get(key_id)

    def _fetch_if_due(self, key_id: str | None) -> None:
        now = self._monotonic()
        stale = now - self._fetched_at > self._cache_seconds
        if (stale or key_id not in self._keys) and now - self._tried_at >= MIN_SECONDS:
            self._tried_at = now
            self._fetch(now)

    def _fetch(self, now: float) -> None:
        try:
            self._keys = parse_jwks(self._content())
            self._fetched_at = now
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            structlog.get_logger().error("issuer keys not fetched", kind=type(error).__name__)

    def _content(self) -> bytes:
        ends_at = time.monotonic() + _TIMEOUT_SECONDS
        content = bytearray()
        with self._session.get(self._url, timeout=_TIMEOUT_SECONDS, allow_redirects=False, stream=True) as response:
            if response.status_code != requests.codes.ok:
                raise ValueError(f"status {response.status_code}")
            while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True):
                content += chunk
                if len(content) > _MAX_BYTES or time.monotonic() > ends_at:
                    raise ValueError("too long")
        return bytes(content)


def _key(entry: Mapping[str, Any]) -> jwt.PyJWK | None:
    """The key of an entry, or None for one of a kind that is not known here: the others still count."""
    try:
        return jwt.PyJWK(dict(entry))
    except jwt.PyJWTError:
        return None


def _signs(entry: Mapping[str, object]) -> bool:
    named = isinstance(entry.get("kid"), str | None)  # RFC 7517 §4.5
    return named and entry.get("kty") in {"RSA", "EC", "OKP"} and entry.get("use", "sig") == "sig" and "d" not in entry

"""The public keys of a token issuer (RFC 7517): from a watched file, or from a URL.

From a URL they are kept for some minutes; a key id that is not among them makes one new request, at most every
MIN_SECONDS, so that rotation is seen at once and made-up ids cost little. What was fetched last stays in force while
the URL fails.
"""

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import jwt
import requests
import structlog

MIN_SECONDS = 5.0
_MAX_BYTES = 256 * 1024
_TIMEOUT_SECONDS = 3.0

KeySet = Mapping[str | None, jwt.PyJWK]


def parse_jwks(content: bytes) -> KeySet:
    """The asymmetric signing keys of a JWKS by key id; a lone key stands under None too. Raises ValueError."""
    try:
        entries = json.loads(content)["keys"]
        keys = {entry.get("kid"): jwt.PyJWK(entry) for entry in entries if _signs(entry)}
    except (jwt.PyJWTError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError(f"not a JSON Web Key Set ({type(error).__name__})") from None
    if not keys:
        raise ValueError("no public signing key in the JSON Web Key Set")
    return keys | ({None: next(iter(keys.values()))} if len(keys) == 1 else {})


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
        self._lock = threading.Lock()
        self._keys: KeySet = {}
        self._fetched_at = self._tried_at = float("-inf")

    def find(self, key_id: str | None) -> jwt.PyJWK | None:
        """See tokens.Keys."""
        with self._lock:
            now = self._monotonic()
            stale = now - self._fetched_at > self._cache_seconds
            if (stale or key_id not in self._keys) and now - self._tried_at >= MIN_SECONDS:
                self._tried_at = now
                self._fetch(now)
            return self._keys.get(key_id)

    def _fetch(self, now: float) -> None:
        try:
            self._keys = parse_jwks(self._content())
            self._fetched_at = now
        except (requests.RequestException, OSError, ValueError) as error:
            structlog.get_logger().error("issuer keys not fetched", kind=type(error).__name__)

    def _content(self) -> bytes:
        with self._session.get(self._url, timeout=_TIMEOUT_SECONDS, allow_redirects=False, stream=True) as response:
            content: bytes = response.raw.read(_MAX_BYTES + 1, decode_content=True)
        if response.status_code != requests.codes.ok or len(content) > _MAX_BYTES:
            raise ValueError(f"status {response.status_code}, {len(content)} bytes")
        return content


def _signs(entry: Mapping[str, object]) -> bool:
    return entry.get("kty") in {"RSA", "EC", "OKP"} and entry.get("use", "sig") == "sig" and "d" not in entry

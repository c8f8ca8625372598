"""Signature v3 (ACS3-HMAC-SHA256): canonical request, string to sign, signature, and what has to be signed.

Standard: contract section 3.3. Pure functions; keys, nonces and clocks are kms_emulator.authentication's.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote

ALGORITHM = "ACS3-HMAC-SHA256"

_AUTHORIZATION = re.compile(
    rf"{ALGORITHM} Credential=(?P<key>[^,]+),\s*"
    r"SignedHeaders=(?P<names>[^,]+),\s*"
    r"Signature=(?P<signature>[0-9a-f]{64})"
)
_ALWAYS_SIGNED = ("host", "content-type")
_SIGNED_PREFIX = "x-acs-"

Pairs = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Authorization:
    """The header `Authorization` taken apart; `signed_headers` as listed, `signature_hex` in lower case."""

    access_key_id: str
    signed_headers: tuple[str, ...]
    signature_hex: str


def parse_authorization(header: str) -> Authorization | None:
    """The parts of an ACS3 Authorization header; None when it is anything else."""
    match = _AUTHORIZATION.fullmatch(header.strip())
    if match is None:
        return None
    return Authorization(match["key"], tuple(match["names"].split(";")), match["signature"])


def decode_query(query: str) -> Pairs:
    """Names and values of a query or form, `+` as space, blank values kept; UnicodeDecodeError if it is not UTF-8."""
    return parse_qsl(query, keep_blank_values=True, errors="strict")


def encode(text: str) -> str:
    """RFC 3986 percent-encoding of UTF-8; only A-Z a-z 0-9 - _ . ~ stay."""
    return quote(text, safe="~")


def canonical_query(pairs: Iterable[tuple[str, str]]) -> str:
    """`name=value` joined by `&`, sorted by name."""
    return "&".join(f"{encode(name)}={encode(value)}" for name, value in sorted(pairs))


def unsigned_headers(headers: Mapping[str, str], signed: Iterable[str]) -> list[str]:
    """Headers that are present, have to be signed and are not listed."""
    listed = set(signed)
    return [
        name for name in headers if (name in _ALWAYS_SIGNED or name.startswith(_SIGNED_PREFIX)) and name not in listed
    ]


def canonical_request(
    *, method: str, query: str, headers: Mapping[str, str], signed: Iterable[str], body_sha256: str
) -> str:
    """The canonical request.

    `query` as it stood in the URL: it is decoded and encoded again, since the vendor's SDK sends `+` and signs `%20`.
    `headers` has lower-case names; a listed header that is absent counts as empty.
    """
    names = list(signed)
    lines = "".join(f"{name}:{headers.get(name, '').strip()}\n" for name in sorted(names))
    return "\n".join((method, "/", canonical_query(decode_query(query)), lines, ";".join(names), body_sha256))


def string_to_sign(canonical: str) -> str:
    """Algorithm and the SHA-256 of the canonical request, in hex."""
    return f"{ALGORITHM}\n{hashlib.sha256(canonical.encode()).hexdigest()}"


def signature(secret: str, text: str) -> str:
    """HMAC-SHA256 of the string to sign under the bare secret, in hex."""
    return hmac.digest(secret.encode(), text.encode(), hashlib.sha256).hex()

"""Verifies a receipt, offline: JWS in compact form, signed with Ed25519, and nothing else that JOSE allows.

Which algorithm counts is fixed here and never the header's to say. Each part must be exactly what a signer writes:
base64url without padding or stray bits, a header of three members, JSON without a member twice.
Source: RFC 7515, RFC 7517, RFC 8037; RFC 8725 (best current practices) §3.1, §3.11. Needs the extra [receipts].
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

from jwt import PyJWTError
from jwt.algorithms import OKPAlgorithm
from jwt.api_jws import PyJWS

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST_BYTES = 8 * 1024
ALGORITHM = "EdDSA"
TYPE = "keybroker-receipt+jwt"
_SIGNATURE_BYTES = 64
_PUBLIC_KEY_BYTES = 32
_LONGEST_KEY_ID = 128


class BadReceiptError(Exception):
    """The receipt does not verify; the text says why."""


class BadKeysError(Exception):
    """The JWKS can't be used; the text says why."""


@dataclass(frozen=True)
class Receipt:
    """A receipt that verified: the id of the key that signed it, and what it claims."""

    key_id: str
    claims: Mapping[str, Any]


def verified(receipt: bytes, jwks: bytes) -> Receipt:
    """The receipt, of which one of the keys has signed every byte. Raises BadReceiptError, BadKeysError."""
    keys = _keys(jwks)
    if len(receipt) > LONGEST_BYTES:
        raise BadReceiptError(f"a receipt has at most {LONGEST_BYTES} bytes, this has {len(receipt)}")
    header, payload, signature = _parts(receipt)
    key_id = _key_id(header)
    if key_id not in keys:
        raise BadReceiptError(f"the JWKS does not have the key that it names, {key_id}")
    if len(signature) != _SIGNATURE_BYTES or not _is_signed(receipt, keys[key_id]):
        raise BadReceiptError("the signature is not good: the receipt was changed, or another key signed it")
    return Receipt(key_id, _object(payload, "its claims are"))


def _parts(receipt: bytes) -> tuple[bytes, bytes, bytes]:
    parts = receipt.split(b".")
    if len(parts) != 3:  # noqa: PLR2004 - RFC 7515 §7.1
        raise BadReceiptError("not a receipt: a JWS in compact form has three parts")
    header, payload, signature = map(_decoded, parts)
    return header, payload, signature


def _decoded(part: bytes) -> bytes:
    """What the base64url stands for, if it is the one way to write that."""
    try:
        decoded = base64.b64decode(part + b"=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        decoded = b""
    if not part or base64.urlsafe_b64encode(decoded).rstrip(b"=") != part:
        raise BadReceiptError("not a receipt: a part of it is not base64url")
    return decoded


def _key_id(header: bytes) -> str:
    members = _object(header, "its header is")
    if members.keys() != {"alg", "kid", "typ"}:
        raise BadReceiptError("not a receipt of keybroker: its header has other members")
    if members["alg"] != ALGORITHM:
        raise BadReceiptError(f"not a receipt of keybroker: only the algorithm {ALGORITHM} is taken")
    if members["typ"] != TYPE:
        raise BadReceiptError("not a receipt of keybroker: it is a JWS of another type")
    key_id = members["kid"]
    if not isinstance(key_id, str) or len(key_id) > _LONGEST_KEY_ID:
        raise BadReceiptError("not a receipt of keybroker: its key id is no text, or too long")
    return key_id


def _is_signed(receipt: bytes, key: Any) -> bool:  # noqa: ANN401 - PyJWT's, of the extra
    try:
        PyJWS(algorithms=[ALGORITHM]).decode(receipt, key, algorithms=[ALGORITHM])
    except PyJWTError:
        return False
    return True


def _keys(jwks: bytes) -> dict[str, Any]:
    """The Ed25519 keys of a JWKS by their id; keys of other kinds are left out, as RFC 7517 §5 says."""
    try:
        entries = _object(jwks, "it is").get("keys")
    except BadReceiptError as error:
        raise BadKeysError(str(error)) from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BadKeysError("not a JWKS: it has no list of keys")
    usable = [entry for entry in entries if entry.get("kty") == "OKP" and entry.get("crv") == "Ed25519"]
    keys = {_named(entry): _key(entry) for entry in usable}
    if not keys:
        raise BadKeysError("there is no Ed25519 key in it")
    if len(keys) < len(usable):
        raise BadKeysError("two of its keys have the same kid")
    return keys


def _named(entry: dict[str, Any]) -> str:
    key_id = entry.get("kid")
    if not isinstance(key_id, str) or not key_id:
        raise BadKeysError("a key in it has no kid")
    return key_id


def _key(entry: dict[str, Any]) -> Any:  # noqa: ANN401 - as above
    if "d" in entry:
        raise BadKeysError("it holds a private key: take what 'keybroker receipt jwks' prints")
    x = entry.get("x")
    try:
        if isinstance(x, str) and len(_decoded(x.encode())) == _PUBLIC_KEY_BYTES:
            return OKPAlgorithm.from_jwk({"kty": "OKP", "crv": "Ed25519", "x": x})
    except (BadReceiptError, PyJWTError, UnicodeError):
        pass
    raise BadKeysError("a key in it is not 32 bytes in base64url")


def _object(text: bytes, what: str) -> dict[str, Any]:
    """A JSON object without a member twice, at any depth."""
    try:
        value = json.loads(text.decode(), object_pairs_hook=_once, parse_float=_finite, parse_constant=_no_number)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BadReceiptError(f"{what} not one JSON object with each member once")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError
    return members


def _finite(text: str) -> float:
    """1e999 is no JSON any more when it is written again."""
    if not isfinite(number := float(text)):
        raise ValueError
    return number


def _no_number(_: str) -> None:
    raise ValueError

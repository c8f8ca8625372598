"""Signs receipts: JWS in compact form with Ed25519, by PyJWT; and the public key to verify them with, as a JWK.

Source: RFC 7515 §7.1, RFC 8037 (alg EdDSA, kty OKP), RFC 7638 (kid is the key's thumbprint).
"""

import hashlib
import json

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm
from jwt.api_jws import PyJWS
from jwt.utils import base64url_encode

from keybroker.domain.attempt import Attempt
from keybroker.domain.receipt import MEDIA_TYPE, payload
from keybroker.ports import Clock

_ALGORITHM = "EdDSA"


class ReceiptKey:
    """The private key. `kid` names it in receipts and in the JWKS."""

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self._private_key = private_key
        self._public = OKPAlgorithm.to_jwk(private_key.public_key(), as_dict=True)
        self.kid = _thumbprint(self._public)

    @property
    def jwk(self) -> dict[str, str]:
        """The public key, to hand out."""
        return {**self._public, "kid": self.kid, "alg": _ALGORITHM, "use": "sig"}

    def sign(self, content: bytes, *, typ: str = MEDIA_TYPE) -> str:
        """The JWS of these bytes."""
        headers = {"kid": self.kid, "typ": typ}
        return PyJWS(algorithms=[_ALGORITHM]).encode(content, self._private_key, algorithm=_ALGORITHM, headers=headers)

    def verifies(self, jws: str) -> bool:
        """Whether the public key takes it; raises PyJWTError if not."""
        PyJWS(algorithms=[_ALGORITHM]).decode(jws, self._private_key.public_key(), algorithms=[_ALGORITHM])
        return True

    def __repr__(self) -> str:
        return f"<ReceiptKey {self.kid}>"


class Receipts:
    """Makes the receipt of an IMPORTED row."""

    def __init__(self, *, key: ReceiptKey, clock: Clock, version: str) -> None:
        self._key = key
        self._clock = clock
        self._version = version

    def __call__(self, row: Attempt) -> str:
        """The receipt, of now."""
        return self._key.sign(payload(row, version=self._version, issued_at=self._clock.now()))


def _thumbprint(public: dict[str, str]) -> str:
    """RFC 7638 §3, with the members of RFC 8037 §2."""
    members = {name: public[name] for name in ("crv", "kty", "x")}
    digest = hashlib.sha256(json.dumps(members, separators=(",", ":")).encode()).digest()
    return base64url_encode(digest).decode()

"""The caller of a bearer token: a JWT of the configured issuer for the configured audience.

Kubernetes' projected service-account tokens are such. Which algorithms count is configuration, never the token's
header. Source: RFC 8725 (JWT best current practices), RFC 7519 §4.1.
"""

from collections.abc import Sequence
from typing import Protocol

import jwt
from jwt.types import Options

from keybroker.adapters.identity.certificates import unauthenticated
from keybroker.ports import CallerCredentials

_LONGEST_TOKEN = 16 * 1024
_LONGEST_SUBJECT = 512
_OPTIONS: Options = {"require": ["exp", "iss", "aud", "sub"], "strict_aud": False}


class Keys(Protocol):
    """The issuer's public keys: from a file or from a URL (jwks.py)."""

    def find(self, key_id: str | None) -> jwt.PyJWK | None:
        """The key of this id, or None. Without an id: the only key there is."""


class TokenAuthenticator:
    """ports.Authenticator for bearer tokens. `leeway_seconds` is what clocks may differ."""

    def __init__(
        self, *, keys: Keys, issuer: str, audience: str, algorithms: Sequence[str], leeway_seconds: float
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._algorithms = list(algorithms)
        self._leeway_seconds = leeway_seconds

    def authenticate(self, credentials: CallerCredentials) -> str:
        """The principal "jwt:ISSUER#SUBJECT". Reasons: CALLER_UNAUTHENTICATED."""
        token = credentials.bearer_token
        if not token:
            raise unauthenticated("The call came without a bearer token.")
        if len(token) > _LONGEST_TOKEN:
            raise unauthenticated("The bearer token is too long.")
        subject = self._claims(token).get("sub")
        if not isinstance(subject, str) or not 1 <= len(subject) <= _LONGEST_SUBJECT or not subject.isprintable():
            raise unauthenticated("The bearer token has no usable subject.")
        return f"jwt:{self._issuer}#{subject}"

    def _claims(self, token: str) -> dict[str, object]:
        try:
            key = self._key(token)
            claims: dict[str, object] = jwt.decode(
                token,
                key,
                algorithms=self._algorithms,
                issuer=self._issuer,
                audience=self._audience,
                leeway=self._leeway_seconds,
                options=_OPTIONS,
            )
        except jwt.PyJWTError as error:
            raise unauthenticated(_wording(error)) from None
        except (TypeError, ValueError, RecursionError):  # claims of odd types
            raise unauthenticated("The bearer token can't be read.") from None
        return claims

    def _key(self, token: str) -> jwt.PyJWK:
        header = jwt.get_unverified_header(token)
        if header.get("alg") not in self._algorithms:
            raise jwt.InvalidAlgorithmError
        key = self._keys.find(header.get("kid"))
        if key is None:
            raise unauthenticated("The bearer token is signed with a key that its issuer does not publish.")
        if key.algorithm_name not in self._algorithms:
            raise jwt.InvalidAlgorithmError
        return key


_WORDINGS: Sequence[tuple[type[jwt.PyJWTError], str]] = (
    (jwt.ExpiredSignatureError, "The bearer token has expired."),
    (jwt.ImmatureSignatureError, "The bearer token is not valid yet."),
    (jwt.InvalidAudienceError, "The bearer token is for another audience."),
    (jwt.InvalidIssuerError, "The bearer token is of another issuer."),
    (jwt.MissingRequiredClaimError, "The bearer token lacks a claim that it must have: exp, iss, aud, sub."),
    (jwt.InvalidAlgorithmError, "The bearer token's algorithm is not one of those configured."),
    (jwt.InvalidSignatureError, "The bearer token's signature is wrong."),
)


def _wording(error: jwt.PyJWTError) -> str:
    return next((text for kind, text in _WORDINGS if isinstance(error, kind)), "The bearer token can't be read.")

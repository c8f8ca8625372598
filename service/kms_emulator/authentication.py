"""Who sent a request, and may it be believed: access key, date, signature, STS token, nonce, in this order.

The codes and their order are contract section 3.4's; the nonce comes last so that nobody can use up another's.
"""

import hashlib
import hmac
import threading
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from kms_emulator.errors import KmsError
from kms_emulator.settings import AccessKey
from kms_emulator.signatures import (
    Authorization,
    canonical_request,
    parse_authorization,
    signature,
    string_to_sign,
    unsigned_headers,
)
from kms_emulator.wire import HttpRequest

MAX_SKEW = timedelta(minutes=15)


class Authenticator:
    """Verifies signature v3 for a fixed set of access keys and remembers nonces."""

    def __init__(self, access_keys: tuple[AccessKey, ...]) -> None:
        self._access_keys = {key.access_key_id: key for key in access_keys}
        self._nonces = _Nonces()

    def check(self, request: HttpRequest, now: datetime) -> None:
        """KmsError of the gateway unless the request is authentic, fresh and new."""
        authorization = parse_authorization(request.headers.get("authorization", ""))
        if authorization is None or unsigned_headers(request.headers, authorization.signed_headers):
            raise _refusal("IncompleteSignature")
        access_key = self._access_key(authorization.access_key_id)
        _check_date(request.headers, now)
        _check_signature(request, authorization, access_key)
        _check_security_token(request.headers, access_key, now)
        nonce = request.headers.get("x-acs-signature-nonce")
        if not nonce:
            raise _refusal("MissingParameter", name="SignatureNonce")
        if not self._nonces.take((access_key.access_key_id, nonce), now):
            raise _refusal("SignatureNonceUsed")

    def _access_key(self, access_key_id: str) -> AccessKey:
        access_key = self._access_keys.get(access_key_id)
        if access_key is None:
            raise _refusal("InvalidAccessKeyId.NotFound")
        if access_key.disabled:
            raise _refusal("Forbidden.AccessKeyDisabled")
        return access_key


class _Nonces:
    """Nonces of the last 30 minutes, twice the clock skew: what is older is refused by its date."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: OrderedDict[tuple[str, str], datetime] = OrderedDict()

    def take(self, nonce: tuple[str, str], now: datetime) -> bool:
        with self._lock:
            while self._taken and now - next(iter(self._taken.values())) > 2 * MAX_SKEW:
                self._taken.popitem(last=False)
            if nonce in self._taken:
                return False
            self._taken[nonce] = now
            return True


def _check_date(headers: Mapping[str, str], now: datetime) -> None:
    text = headers.get("x-acs-date")
    if not text:
        raise _refusal("MissingParameter", name="Timestamp")
    try:
        sent_at = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise _refusal("IllegalTimestamp") from error
    if abs(now - sent_at) > MAX_SKEW:
        raise _refusal("InvalidTimeStamp.Expired")


def _check_signature(request: HttpRequest, authorization: Authorization, access_key: AccessKey) -> None:
    body_sha256 = hashlib.sha256(request.body).hexdigest()
    canonical = canonical_request(
        method=request.method,
        query=request.query,
        headers=request.headers,
        signed=authorization.signed_headers,
        body_sha256=body_sha256,
    )
    text = string_to_sign(canonical)
    expected = signature(access_key.access_key_secret, text)
    declared = request.headers.get("x-acs-content-sha256", "")
    if declared != body_sha256 or not hmac.compare_digest(expected, authorization.signature_hex):
        raise _refusal("SignatureDoesNotMatch", string_to_sign=text, canonical_request=canonical)


def _check_security_token(headers: Mapping[str, str], access_key: AccessKey, now: datetime) -> None:
    sent = headers.get("x-acs-security-token", "")
    if not access_key.security_token:
        if sent:
            raise _refusal("InvalidSecurityToken.MismatchWithAccessKey")
        return
    if not sent:
        raise _refusal("MissingSecurityToken")
    if not hmac.compare_digest(sent.encode(), access_key.security_token.encode()):
        raise _refusal("InvalidSecurityToken.Malformed")
    if access_key.expires_at is not None and now >= access_key.expires_at:
        raise _refusal("InvalidSecurityToken.Expired")


def _refusal(code: str, **variables: str) -> KmsError:
    return KmsError(code, layer="gateway", variables=variables)

"""The RAM role of an ECS instance, from the instance's metadata service, in its hardened mode only.

The hardened mode asks for a session token by PUT, which a forged request (SSRF) can't. There is no fall-back to the
mode without: an instance that refuses the token gives no credentials. Source: contract 4, item 5.
"""

import re

from keybroker.adapters.kms.credentials import CredentialsError, TemporaryCredentials
from keybroker.adapters.kms.credentials_http import (
    MALFORMED,
    Connection,
    CredentialsHttp,
    json_object,
    require_success,
    temporary_credentials,
    without_path,
)

METADATA_HOST = "100.100.100.200"
METADATA_TIMEOUT_SECONDS = 1.0
_SESSION_SECONDS = 60  # 1 to 21,600; the token serves the requests of one fetch
_ROLES = "/latest/meta-data/ram/security-credentials/"
_ROLE_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SESSION_TOKEN = re.compile(r"[!-~]{1,4096}")


class EcsRamRole:
    """See credentials.Provider. Without a role name, the role that the metadata service lists."""

    def __init__(self, *, role_name: str | None, endpoint: str, connection: Connection) -> None:
        if role_name is not None and not _ROLE_NAME.fullmatch(role_name):
            raise ValueError("the role name must be 1 to 64 letters, digits, dots, hyphens or underscores")
        self._role_name = role_name
        self._http = CredentialsHttp(without_path(endpoint), connection=connection, plain_http_host=METADATA_HOST)

    def fetch(self) -> TemporaryCredentials:
        """Asks for a session token, the role unless it is given, and the role's credentials."""
        session = {"X-aliyun-ecs-metadata-token": self._session_token()}
        role = self._role_name or _text(self._http.ask("GET", _ROLES, headers=session), _ROLE_NAME)
        body = json_object(self._http.ask("GET", f"{_ROLES}{role}", headers=session))
        require_success(body)
        return temporary_credentials(body)

    def _session_token(self) -> str:
        ttl = {"X-aliyun-ecs-metadata-token-ttl-seconds": str(_SESSION_SECONDS)}
        return _text(self._http.ask("PUT", "/latest/api/token", headers=ttl), _SESSION_TOKEN)


def _text(body: bytes, pattern: re.Pattern[str]) -> str:
    text = body.decode("ascii", errors="replace").strip()
    if not pattern.fullmatch(text):
        raise CredentialsError(MALFORMED)
    return text

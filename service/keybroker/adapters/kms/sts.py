"""RRSA: a role's temporary credentials for a service-account token, from STS. AssumeRoleWithOIDC is not signed.

The token goes in the request's body, as the vendor's Go SDK sends it, and so into no access log; the vendor's Python
library sends it in the query. Source: contract 4, item 2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from keybroker.adapters.kms.credentials import CredentialsError, TemporaryCredentials
from keybroker.adapters.kms.credentials_http import (
    Connection,
    CredentialsHttp,
    json_object,
    temporary_credentials,
    without_path,
)
from keybroker.adapters.kms.signing import canonical_query

STS_API_VERSION = "2015-04-01"
STS_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcRole:
    """The role to assume, and for how long."""

    role_arn: str
    oidc_provider_arn: str
    session_name: str
    duration_seconds: int


class AssumeRoleWithOidc:
    """See credentials.Provider. `oidc_token` is read for each request; it fails with an OSError or a ValueError."""

    def __init__(
        self,
        role: OidcRole,
        *,
        oidc_token: Callable[[], str],
        endpoint: str,
        connection: Connection,
        now: Callable[[], datetime],
    ) -> None:
        self._role = role
        self._oidc_token = oidc_token
        self._http = CredentialsHttp(without_path(endpoint), connection=connection)
        self._now = now

    def fetch(self) -> TemporaryCredentials:
        """Assumes the role. Raises CredentialsError."""
        action = {
            "Action": "AssumeRoleWithOIDC",
            "Format": "JSON",
            "Version": STS_API_VERSION,
            "Timestamp": self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        form = {
            "RoleArn": self._role.role_arn,
            "OIDCProviderArn": self._role.oidc_provider_arn,
            "OIDCToken": self._read_token(),
            "RoleSessionName": self._role.session_name,
            "DurationSeconds": str(self._role.duration_seconds),
        }
        body = json_object(self._http.ask("POST", f"/?{canonical_query(action.items())}", form=form))
        return temporary_credentials(body.get("Credentials"))

    def _read_token(self) -> str:
        try:
            token = self._oidc_token()
        except (OSError, ValueError):
            token = ""
        if not token:
            raise CredentialsError("the OIDC token can't be read")
        return token

"""Temporary credentials from a URI that answers as the metadata service does. Source: contract 4, item 6."""

from keybroker.adapters.kms.credentials import TemporaryCredentials
from keybroker.adapters.kms.credentials_http import (
    Connection,
    CredentialsHttp,
    json_object,
    require_success,
    temporary_credentials,
)

URI_TIMEOUT_SECONDS = 5.0


class CredentialsUri:
    """See credentials.Provider."""

    def __init__(self, uri: str, *, connection: Connection) -> None:
        self._http = CredentialsHttp(uri, connection=connection)

    def fetch(self) -> TemporaryCredentials:
        """Asks the URI."""
        body = json_object(self._http.ask("GET", ""))
        require_success(body)
        return temporary_credentials(body)

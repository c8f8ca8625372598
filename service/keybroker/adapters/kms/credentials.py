"""Access keys of the KMS's account, and what a source of them is.

Who reads them from environment or files, and when, is not decided here; the sources that ask an endpoint for
temporary ones are sts, ecs_metadata and credentials_uri, kept fresh by refreshing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Protocol, runtime_checkable

from keybroker.domain.deadline import Deadline


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access key, with `security_token` a temporary one of STS. Its repr shows the id only.

    Whitespace around a value is dropped, as a file's last line break is; whitespace or anything but printable ASCII
    inside is a ValueError that names the field, never the value. Source: contract 8 (signature failures are mostly
    whitespace in the secret).
    """

    access_key_id: str
    access_key_secret: str = field(repr=False)
    security_token: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name).strip()
            if not value and each.name != "security_token":
                raise ValueError(f"{each.name} is empty")
            if not all("!" <= character <= "~" for character in value):
                raise ValueError(f"{each.name} holds whitespace or a character that is not printable ASCII")
            object.__setattr__(self, each.name, value)


@dataclass(frozen=True, slots=True)
class TemporaryCredentials:
    """Credentials that are refused from `expires_at` (UTC-aware) on."""

    credentials: Credentials
    expires_at: datetime


class CredentialsError(ValueError):
    """A source has no credentials to give. `kind` is in our words and holds no secret: it may be logged."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"no credentials: {kind}")
        self.kind = kind


class Provider(Protocol):
    """Asks an endpoint for temporary credentials, once for each call."""

    def fetch(self) -> TemporaryCredentials:
        """New credentials. Raises CredentialsError."""


@runtime_checkable
class CredentialsSource(Protocol):
    """Gives the credentials to sign with. Any failure is an OSError or a ValueError."""

    def __call__(self, *, deadline: Deadline | None = None) -> Credentials:
        """The current ones. Waits, if it must, at most until the deadline."""

    def renewed(self, refused: Credentials, *, deadline: Deadline) -> Credentials:
        """Others in place of those that the KMS refused, or `refused` itself when there are no others."""


class ReadEachTime:
    """A CredentialsSource on a function that reads the current credentials."""

    def __init__(self, read: Callable[[], Credentials]) -> None:
        self._read = read

    def __call__(self, *, deadline: Deadline | None = None) -> Credentials:  # noqa: ARG002  # reading does not wait
        """Reads them."""
        return self._read()

    def renewed(self, refused: Credentials, *, deadline: Deadline) -> Credentials:  # noqa: ARG002
        """Reads them again: they may have been replaced since."""
        return self._read()


def as_source(credentials: Callable[[], Credentials]) -> CredentialsSource:
    """`credentials` itself if it is a source, else a source on it."""
    return credentials if isinstance(credentials, CredentialsSource) else ReadEachTime(credentials)

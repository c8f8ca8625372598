"""What the use cases need from outside. A Protocol stands here where two implementations exist.

`Kms`: adapters/kms/client.py, and a fake with state in the tests. `Clock` and `EntropySource`: the operating system's,
and the tests' own.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from keybroker.domain.deadline import Deadline
from keybroker.domain.external_key import CmkName, ExternalKey, NewKey
from keybroker.domain.import_parameters import ImportParameters
from keybroker.domain.wrapping import WrappingAlgorithm


@dataclass(frozen=True, slots=True)
class KmsReply:
    """The KMS's success answer to a change: its RequestId, which its support asks for."""

    request_id: str


class Clock(Protocol):
    """Time. `now` is UTC-aware; `monotonic` and `sleep` are in seconds."""

    def now(self) -> datetime:
        """The time of day."""

    def monotonic(self) -> float:
        """A clock that never goes back."""

    def sleep(self, seconds: float) -> None:
        """Waits."""


class EntropySource(Protocol):
    """Random bytes fit for keys."""

    def fill(self, buffer: memoryview) -> None:
        """Overwrites the whole writable buffer with random bytes, making no copy of them."""


class Kms(Protocol):
    """The KMS through one configured instance. One method, one request: nothing is repeated.

    Every method raises KmsError and nothing else for what the KMS or the way to it does; `committed_nothing` says
    whether the request may have changed something. DEADLINE_TOO_SHORT (BrokerError) means that nothing was sent.
    """

    @property
    def name(self) -> str:
        """The instance's name in the configuration."""

    @property
    def region(self) -> str:
        """The region that the instance is in."""

    @property
    def dkms_instance_id(self) -> str:
        """Id of the Dedicated KMS instance, "kst-…"."""

    def create_key(self, new_key: NewKey, *, deadline: Deadline) -> tuple[ExternalKey, KmsReply]:
        """Creates a CMK with Origin EXTERNAL (the alias is not set by this). Contract 1.1."""

    def create_alias(self, key_id: str, alias: str, *, deadline: Deadline) -> KmsReply:
        """Gives a CMK an alias. Contract 1.8."""

    def describe_key(self, key_id: str, *, deadline: Deadline) -> ExternalKey:
        """Reads a CMK by key id, alias or ARN. Contract 1.2."""

    def get_parameters_for_import(
        self, cmk: CmkName, algorithm: WrappingAlgorithm, *, deadline: Deadline
    ) -> ImportParameters:
        """A new wrapping public key, not yet vetted, and its import token. Contract 1.3."""

    def import_key_material(
        self, cmk: CmkName, *, wrapped_key_material: bytes, import_token: str, deadline: Deadline
    ) -> KmsReply:
        """Sends wrapped key material that never expires. Contract 1.4."""

    def schedule_key_deletion(self, key_id: str, *, pending_window_days: int, deadline: Deadline) -> KmsReply:
        """Schedules the deletion of a CMK. Contract 1.6."""

    def cancel_key_deletion(self, key_id: str, *, deadline: Deadline) -> KmsReply:
        """Cancels a scheduled deletion. Contract 1.6."""


@dataclass(frozen=True, slots=True)
class CallerCredentials:
    """What a caller showed: the certificate chain of its TLS connection (PEM, leaf first) and its bearer token."""

    certificate_chain_pem: bytes = b""
    bearer_token: str = field(default="", repr=False)


class Authenticator(Protocol):
    """Tells who calls. One kind for a listener; no other kind of credential is looked at."""

    def authenticate(self, credentials: CallerCredentials) -> str:
        """The caller's principal: "x509:…" or "jwt:…". Raises BrokerError CALLER_UNAUTHENTICATED."""

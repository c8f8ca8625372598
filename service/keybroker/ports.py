"""What the use cases need from outside. A Protocol stands here where two implementations exist.

`Kms`: adapters/kms/client.py, and a fake with state in the tests. `Clock` and `EntropySource`: the operating system's,
an HSM's, and the tests' own. `Ledger`: adapters/ledger/, in a file or in memory. `AuditLog`: adapters/audit/, and the
tests' own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from keybroker.domain.attempt import Attempt, HandedOut
from keybroker.domain.audit import AuditEvent
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
    """Random bytes fit for keys. One source for a process; nothing takes its place when it fails.

    Both methods raise BrokerError ENTROPY_UNAVAILABLE and nothing else for what the source does.
    """

    @property
    def name(self) -> str:
        """What each import records: "os" or "pkcs11"."""

    @property
    def is_health_tested(self) -> bool:
        """Whether what `fill` gives has passed the broker's own health tests; recorded too."""

    def check(self) -> None:
        """Returns if the source can be expected to answer. Generates nothing that is used."""

    def fill(self, buffer: memoryview) -> None:
        """Overwrites the whole writable buffer with random bytes, making no copy of them.

        After a failure the buffer may hold some of them.
        """


@dataclass(frozen=True, slots=True)
class KeyPage:
    """One page of a list of CMKs: their key ids, and how many there are on all pages together."""

    key_ids: Sequence[str]
    total: int


class Kms(Protocol):
    """The KMS through one configured instance. One method, one request for key material or for a new CMK.

    Reads may be repeated inside the deadline, by the table in domain/retry_policy.py; ImportKeyMaterial and CreateKey
    leave once a call, because each send is recorded before it leaves.

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

    def now(self) -> datetime:
        """The time of day by the KMS's clock, as far as it is known: ours, corrected by its replies' Date."""

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

    def list_keys(
        self, *, tag_key: str, tag_value: str = "", pending_import_only: bool = False, page: int = 1, deadline: Deadline
    ) -> KeyPage:
        """CMKs by tag, 100 a page, in any state or in PendingImport only. The KMS may ignore the tag. Contract 1.7."""

    def list_resource_tags(self, key_id: str, *, deadline: Deadline) -> Mapping[str, str]:
        """The tags of a CMK. Contract 1.11."""

    def encrypt(self, key_id: str, plaintext: bytes, *, deadline: Deadline) -> bytes:
        """The KMS's ciphertext blob, decoded from base64. Contract 1.10."""


class RequestKnown(Exception):  # noqa: N818  # reads as what it says
    """There is a row of this caller and request id already."""


class CmkHeld(Exception):  # noqa: N818
    """Another row holds the CMK."""


class StaleVersion(Exception):  # noqa: N818
    """The row has changed since it was read: nothing was written."""


@dataclass(frozen=True, slots=True)
class Restored:
    """The ledger is an older copy, by the mark outside it. `at` is by the KMS's clock, once one was heard."""

    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class DueEvent:
    """An event that the audit log has still to be told. `sequence` grows; it is the ledger's."""

    sequence: int
    event: AuditEvent


class AuditOutbox(Protocol):
    """The part of the ledger that keeps what the audit log has still to be told. Raises LEDGER_UNAVAILABLE."""

    def audit_due(self, *, after: int = 0) -> Sequence[DueEvent]:
        """The events that are due, in the order in which they became it, of those with a later sequence."""

    def put_audit_due(self, event: AuditEvent, *, held: bool = False) -> None:
        """Keeps an event, or what it has become; a held one is not due before release_held_audit()."""

    def drop_audit_due(self, ids: Sequence[str], *, head: str, up_to: int | None = None) -> None:
        """Forgets events that the audit log has; `head` is the hash of its last line.

        What became of one with a sequence later than `up_to` stays.
        """

    def release_held_audit(self) -> None:
        """What a process that has ended had held is due."""


class Ledger(AuditOutbox, Protocol):
    """Durable rows, each written by compare-and-set on its version. A write has reached the disk when it returns.

    A row that can't be read raises BrokerError LEDGER_RECORD_UNREADABLE for whoever asks for its request or its CMK.
    """

    def find(self, caller: str, request_id: str) -> Attempt | None:
        """The caller's row."""

    def holder(self, cmk: CmkName) -> Attempt | None:
        """The row that holds the CMK (HOLDS_CMK)."""

    def insert(self, attempt: Attempt) -> Attempt:
        """Writes a new row and returns it with its version. Raises RequestKnown, CmkHeld."""

    def update(self, attempt: Attempt) -> Attempt:
        """Writes over the row if it still has attempt.version; returns it with the new one.

        Raises StaleVersion, CmkHeld.
        """

    def unfinished(self) -> Sequence[Attempt]:
        """All rows in UNFINISHED that can be read, oldest change first."""

    def attempted(self, cmk: CmkName) -> bool:
        """Whether any row ever named this CMK."""

    def find_tag(self, tag: str) -> Attempt | None:
        """The row whose creation has this tag."""

    def tag(self, caller: str, request_id: str) -> str:
        """HMAC-SHA256 under the ledger's key, in hex: what a new CMK is tagged with."""

    def hand_out(self, handed_out: HandedOut) -> None:
        """Remembers that a pair went to a caller. Once more changes nothing."""

    def find_handed_out(self, token_digest: bytes) -> HandedOut | None:
        """What is known of a token, until well after its expiry."""

    def handed_out(self, cmk: CmkName) -> bool:
        """Whether a pair of this CMK that is still remembered went to a caller."""

    def restored(self) -> Restored | None:
        """Set for ever once the ledger was recognised as restored."""

    def date_restore(self, at: datetime) -> None:
        """Sets Restored.at, once."""

    def prune(self, now: datetime) -> None:
        """Forgets tombstones of new CMKs and handed-out tokens that are old enough. `now` is a Date of the KMS."""


class AuditLog(Protocol):
    """Where the audit events go, one after the other. Any thread may write."""

    def write(self, events: Sequence[AuditEvent]) -> str:
        """Appends them in this order; when it returns they are on the disk. Returns the hash of the last line, in hex.

        Without events it writes a line of its own, to see whether it can. Raises BrokerError AUDIT_UNAVAILABLE and
        nothing else: then none of them counts, and they may be written again.
        """


@dataclass(frozen=True, slots=True)
class CallerCredentials:
    """What a caller showed: the certificate chain of its TLS connection (PEM, leaf first) and its bearer token."""

    certificate_chain_pem: bytes = b""
    bearer_token: str = field(default="", repr=False)


class Authenticator(Protocol):
    """Tells who calls. One kind for a listener; no other kind of credential is looked at."""

    def authenticate(self, credentials: CallerCredentials) -> str:
        """The caller's principal: "x509:…" or "jwt:…". Raises BrokerError CALLER_UNAUTHENTICATED."""

"""An attempt: what the ledger holds of one request, and the states that it goes through.

    CREATING ──▶ CLAIMED ──▶ PREPARED ──▶ ACCEPTED ──▶ IMPORTED
                   │  ▲          ├──▶ IMPORTED, ENABLED_UNATTRIBUTED, NOT_IMPORTED
                   │  └──────────┤
                   ├──▶ RELEASED ◀┘   nothing of it can be bound: the same request may start over
                   └──▶ ALREADY_BOUND

A request for a new CMK starts at CREATING (CreateExternalKey ends at CREATED), any other at CLAIMED. Which step comes
next is import_protocol.py's to say. Source: the import protocol, "Ledger"; ADR 9.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum, auto

from keybroker.domain.external_key import CmkName, ExternalKey
from keybroker.domain.key_spec import KeySpec


class _UpperCase(StrEnum):
    @staticmethod
    def _generate_next_value_(name: str, start: int, count: int, last_values: list[str]) -> str:  # noqa: ARG004
        return name


class State(_UpperCase):
    """Where a request stands."""

    CREATING = auto()  # CreateKey may have been sent; the CMK, if there is one, is not known
    RELEASED = auto()  # nothing of it can be bound, no CMK is held; a repeat starts over
    CLAIMED = auto()  # the CMK is held, nothing was generated; a pair may be on its way
    PREPARED = auto()  # every recorded send may have happened
    ACCEPTED = auto()  # the KMS answered success to this attempt's ciphertext; Enabled not yet seen
    IMPORTED = auto()
    ENABLED_UNATTRIBUTED = auto()
    NOT_IMPORTED = auto()
    ALREADY_BOUND = auto()
    CREATED = auto()  # a request that only wanted a CMK has it


TERMINAL = frozenset(
    {State.IMPORTED, State.ENABLED_UNATTRIBUTED, State.NOT_IMPORTED, State.ALREADY_BOUND, State.CREATED}
)
"""Told and never changed again."""

ENDS = TERMINAL | {State.RELEASED}
"""Nothing of the request is under way."""

UNFINISHED = frozenset({State.CREATING, State.CLAIMED, State.PREPARED, State.ACCEPTED})
"""What recovery looks at."""

HOLDS_CMK = frozenset({State.CLAIMED, State.PREPARED, State.ACCEPTED, State.IMPORTED, State.ENABLED_UNATTRIBUTED})
"""At most one row of these states for a CMK."""


class Kind(_UpperCase):
    """What was asked for."""

    IMPORT = auto()  # material that the broker generates
    IMPORT_WRAPPED = auto()  # material that the caller wrapped
    CREATE = auto()  # a CMK only
    DELETE_ORPHAN = auto()  # holds a CMK while its deletion is being scheduled


class Evidence(_UpperCase):
    """Why the broker says that the attempt's material is the CMK's."""

    ACCEPTED = auto()
    PROVED = auto()
    SOLE_IMPORTER = auto()


TESTS_PASSED = "passed"
NOT_TESTED = "not tested"


@dataclass(frozen=True, slots=True)
class Creation:
    """The CMK that a request wants made. `tag` is the value that its CreateKey carries; `sends` counts CreateKeys."""

    tag: str
    spec: KeySpec
    alias: str = ""
    sends: int = 0
    first_sent_at: datetime | None = None  # by the broker's clock
    key_id: str = ""
    kms_request_id: str = ""  # of the KMS's success answer; empty: it was lost, and the CMK found by its tag


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request ended NOT_IMPORTED: a Reason's name, the message and the metadata that the caller was told."""

    reason: str
    message: str
    metadata: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One row. `version` is the ledger's: 0 before the first write, another one after each, never one twice.

    `import_token` and `wrapped_key_material` are what a resend sends; the ledger seals them, keeps no
    RSAES_PKCS1_V1_5 material, and drops both when the attempt ends. `sends` and `refused` count sends of key
    material; `pair_expiries` has the expiry of every pair that one was made under. `restored`: the row comes from a
    restored ledger, there may have been sends that it does not know of.
    """

    record_id: str
    caller: str
    request_id: str
    kind: Kind
    request_digest: bytes  # SHA-256 of what was asked for
    region: str
    dkms_instance_id: str
    state: State
    version: int = 0
    cmk: CmkName | None = None
    creation: Creation | None = None
    first: bool = False  # no earlier attempt for this CMK, no pair handed out, PendingImport seen before it
    restored: bool = False
    material_id: str = ""  # tells this attempt's material from that of an earlier start of the same request
    algorithm: str = ""  # the KMS's name; empty: not known (a token that is not the broker's)
    parameters: str = ""  # cached or fetched
    sends: int = 0
    refused: int = 0
    pair_expiries: tuple[datetime, ...] = ()
    import_token: str = field(default="", repr=False)
    wrapped_key_material: bytes = field(default=b"", repr=False)
    check_value: bytes = b""
    kms_request_id: str = ""
    accepted_at: datetime | None = None  # by the broker's clock
    evidence: Evidence | None = None
    entropy_source: str = ""  # EntropySource.name; empty: generated nothing, or by a version that did not record it
    entropy_tests: str = ""  # what the source's output had passed: TESTS_PASSED, or NOT_TESTED
    wrapping_public_key_digest: bytes = b""  # SHA-256 of the SubjectPublicKeyInfo that was used; empty: not known
    audit_line: str = ""  # hash of the audit line that announced the import, in hex
    receipt: str = ""  # as it was told, from IMPORTED on
    key: ExternalKey | None = None  # as last described
    failure: Failure | None = None
    created_at: datetime | None = None  # by the broker's clock, set by the ledger
    updated_at: datetime | None = None

    @property
    def open_sends(self) -> int:
        """Sends of which it is not known that they did nothing."""
        return self.sends - self.refused

    @property
    def is_terminal(self) -> bool:
        """Whether the answer is final."""
        return self.state in TERMINAL


@dataclass(frozen=True, slots=True)
class HandedOut:
    """What is kept of import parameters that went to a caller: of the token only its SHA-256."""

    token_digest: bytes
    cmk: CmkName
    algorithm: str
    expires_at: datetime

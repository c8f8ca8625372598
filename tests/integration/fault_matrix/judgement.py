"""What a caller was told, and whether it is true: held against the emulator's own knowledge, not against its API."""

from dataclasses import dataclass, field
from typing import Self

from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC

from keybroker.domain.errors import REASONS, Reason
from keybroker_client import KeyBrokerError
from keymaterial.v1 import key_broker_service_pb2 as pb
from keymaterial.v1 import types_pb2
from kms_emulator import Emulator
from kms_emulator.keys import KeyState

UNRESOLVED_REASONS = frozenset(
    {
        Reason.IMPORT_UNRESOLVED,
        Reason.IMPORT_IN_PROGRESS,  # an earlier call with the request id may still be at work
        Reason.CREATE_OUTCOME_UNKNOWN,
        Reason.CHANGE_OUTCOME_UNKNOWN,
        "NO_ANSWER",
    }
)
ARROW = " → "
_CHECK_VALUE_BYTES = 3


@dataclass(frozen=True, slots=True)
class Told:
    """An answer. `reason` of an error; `evidence` and `check_value` of an import."""

    key_id: str = ""
    evidence: str = ""
    check_value: bytes = b""
    reason: str = ""
    retry_after_seconds: float | None = field(default=None, compare=False)

    @classmethod
    def of_response(cls, response: pb.ImportExternalKeyResponse) -> Self:
        """IMPORTED."""
        evidence = types_pb2.ImportEvidence.Name(response.evidence).removeprefix("IMPORT_EVIDENCE_")
        return cls(key_id=response.key.key_id, evidence=evidence, check_value=response.key_check_value.value)

    @classmethod
    def of_error(cls, error: KeyBrokerError) -> Self:
        """Anything else. The reason is empty where the client's own deadline came first."""
        assert error.reason or error.outcome_unknown, error
        return cls(
            key_id=error.metadata.get("key_id", ""),
            reason=error.reason or "NO_ANSWER",
            retry_after_seconds=error.retry_after_seconds,
        )

    @property
    def is_unresolved(self) -> bool:
        """Whether it says that nobody knows yet."""
        return self.reason in UNRESOLVED_REASONS

    @property
    def is_passing(self) -> bool:
        """Whether it says that nothing was imported, and that a repeat starts over."""
        return bool(self.reason) and not self.is_unresolved and REASONS[Reason(self.reason)].retryable

    @property
    def did_nothing(self) -> bool:
        """Whether it says that this call changed nothing that a repeat would not find."""
        return self.is_passing or self.reason == Reason.IMPORT_IN_PROGRESS

    @property
    def is_final(self) -> bool:
        """Whether a repeat is told the same for ever."""
        return not self.is_unresolved and not self.is_passing

    @property
    def content(self) -> tuple[str, str, bytes]:
        """What a repeat must tell again."""
        return self.reason, self.evidence, self.check_value

    @property
    def words(self) -> str:
        """For the table. Passing failures are one word: which of them it is can depend on the time that was left."""
        if self.is_passing:
            return "try again"
        return self.reason or self.evidence


@dataclass(frozen=True, slots=True)
class Truth:
    """What the emulator knows of one cell's CMKs: those that are there now and were not `known` before it."""

    emulator: Emulator
    known: frozenset[str]

    def key_ids(self) -> list[str]:
        """The cell's CMKs."""
        return [key_id for key_id in self.emulator.key_ids if key_id not in self.known]

    def created_key_ids(self) -> list[str]:
        """Those of them that a CreateKey made."""
        return [key_id for key_id in self.emulator.created_key_ids if key_id not in self.known]

    def successful_imports(self) -> int:
        """ImportKeyMaterial calls that were accepted; an import by somebody else is none."""
        return sum(map(self.emulator.successful_imports, self.key_ids()))

    def check_keys(self, *, second_allowed: bool) -> None:
        """One material a CMK, and no CMK that nobody asked for."""
        for key_id in self.key_ids():
            accepted = self.emulator.accepted_imports(key_id)
            assert len(accepted) <= 1, f"{len(accepted)} materials were bound to one CMK"
        created = len(self.created_key_ids())
        assert created <= (2 if second_allowed else 1), f"{created} CMKs were created"


def check(told: Told, truth: Truth) -> None:
    """AssertionError if what was told is not so."""
    if told.evidence:
        _check_imported(told, truth)
    elif told.reason == Reason.ENABLED_UNATTRIBUTED:
        assert truth.emulator.key_state(told.key_id) is KeyState.ENABLED
    elif told.reason == Reason.KEY_MATERIAL_ALREADY_BOUND:
        assert truth.emulator.key_state(told.key_id) is KeyState.ENABLED
        assert not truth.successful_imports(), "told ALREADY_BOUND, and it was imported"
    elif not told.is_unresolved:
        assert not truth.successful_imports(), f"told {told.reason}, and it was imported"


def _check_imported(told: Told, truth: Truth) -> None:
    assert truth.emulator.key_state(told.key_id) is KeyState.ENABLED
    material = truth.emulator.bound_material(told.key_id)
    assert material is not None
    assert truth.emulator.accepted_imports(told.key_id) == [material]
    cmac = CMAC(AES(material))
    cmac.update(bytes(AES.block_size // 8))
    assert told.check_value == cmac.finalize()[:_CHECK_VALUE_BYTES], "another check value than the bound material's"

"""What a caller of a broker that died was told, and whether it is true by what the emulator itself knows."""

import json
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC

from kbctl.jws import verified
from keybroker.domain.errors import REASONS, Reason
from kms_emulator import Emulator
from tests.unit.receipts.support import key

_CHECK_VALUE_BYTES = 3


@dataclass(frozen=True, slots=True)
class Told:
    """What a caller was told: IMPORTED with what goes with it, or an error's reason."""

    outcome: str
    key_id: str = ""
    check_value: bytes = b""
    replayed: bool = False
    retry_after_seconds: float | None = None
    receipt: str = ""

    @property
    def is_final(self) -> bool:
        """Whether a repeat must be told the same. LEDGER_RESTORED ends by itself."""
        if self.outcome in {"", Reason.LEDGER_RESTORED}:
            return False
        return self.outcome == "IMPORTED" or not REASONS[Reason(self.outcome)].retryable

    @property
    def content(self) -> tuple[str, bytes, str]:
        """What a repeat must be told again."""
        return self.outcome, self.check_value, self.receipt


def check_true(told: Told, emulator: Emulator, key_id: str) -> None:
    """AssertionError if what was told of this CMK is not so, by the emulator's own knowledge; one material at most."""
    accepted = emulator.accepted_imports(key_id)
    ours = emulator.successful_imports(key_id)
    assert len(accepted) <= 1, f"{len(accepted)} materials were bound to one CMK"
    if told.outcome == "IMPORTED":
        material = emulator.bound_material(key_id)
        assert material is not None, "told IMPORTED, and nothing is bound"
        assert ours, "told IMPORTED, and somebody else's material is bound"
        assert told.check_value == check_value(material), "another check value than the bound material's"
        _check_receipt(told, key_id)
        return
    assert (told.check_value, told.receipt) == (b"", "")
    if told.outcome == Reason.ENABLED_UNATTRIBUTED:
        assert accepted, "told ENABLED_UNATTRIBUTED, and nothing is bound"
    elif told.is_final:
        assert not ours, f"told {told.outcome}, and it was imported"


def _check_receipt(told: Told, key_id: str) -> None:
    """It verifies, and is of this CMK and this material."""
    jwks = json.dumps({"keys": [key().jwk]}).encode()
    claims = verified(told.receipt.encode(), jwks).claims
    assert claims["cmk"]["key_id"] == key_id
    assert claims["material"]["check_value"]["value"] == told.check_value.hex()


def check_value(material: bytes) -> bytes:
    """The first 3 bytes of AES-CMAC over a block of zeros. Source: SP 800-38B."""
    cmac = CMAC(AES(material))
    cmac.update(bytes(16))
    return cmac.finalize()[:_CHECK_VALUE_BYTES]

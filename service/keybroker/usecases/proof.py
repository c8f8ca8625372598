"""PROVED: the KMS encrypts a random nonce, and the material in hand opens what it gives.

Left out on purpose: any failure is "could not prove", never an error. Instances may refuse cryptography on the shared
endpoint, and the layout of the ciphertext is unconfirmed on a live instance (contract 1.10). Only where the layout was
confirmed, by an earlier ciphertext of the same instance that opened, does one that does not open disprove.
"""

import secrets
import threading
from enum import StrEnum, auto

from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import BrokerError
from keybroker.domain.external_key import CmkName
from keybroker.domain.key_material import KeyMaterial
from keybroker.ports import Kms

_NONCE_BYTES = 32


class Proof(StrEnum):
    """What came of it."""

    PROVED = auto()
    DISPROVED = auto()
    NONE = auto()


class Prover:
    """Asks the KMS, where that is configured."""

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self._lock = threading.Lock()
        self._layout_confirmed: set[str] = set()

    def prove(self, kms: Kms, cmk: CmkName, material: KeyMaterial, *, deadline: Deadline) -> Proof:
        """One Encrypt. Never raises for what the KMS does."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        try:
            blob = kms.encrypt(cmk.key_id, nonce, deadline=deadline)
        except BrokerError:
            return Proof.NONE
        opened = material.opens(blob, nonce)
        with self._lock:
            if opened:
                self._layout_confirmed.add(kms.dkms_instance_id)
            known = kms.dkms_instance_id in self._layout_confirmed
        if opened:
            return Proof.PROVED
        return Proof.DISPROVED if known else Proof.NONE

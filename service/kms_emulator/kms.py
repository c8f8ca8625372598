"""The emulated KMS behind the wire: its CMKs, its import pairs and the settings that operations read.

It knows no HTTP; the modules under operations/ act on it.
"""

import secrets
import string
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from kms_emulator.clock import Clock
from kms_emulator.errors import KmsError
from kms_emulator.fault_dial import FaultDial
from kms_emulator.import_pairs import ImportPairs
from kms_emulator.keyring import Keyring
from kms_emulator.keys import EXTERNAL, MATERIAL_LENGTH_BYTES, Key
from kms_emulator.operation import Call, Commit, KeyReference
from kms_emulator.quotas import Quotas
from kms_emulator.settings import EmulatorSettings
from kms_emulator.state_rules import check_state
from kms_emulator.wrapping import PairSource

_KEY_ID_ALPHABET = string.ascii_lowercase + string.digits
_KEY_ID_TAIL_LENGTH = 17


class Kms:
    """State of one account in one region."""

    def __init__(self, settings: EmulatorSettings) -> None:
        self.settings = settings
        self.clock = Clock(settings.clock_offset_seconds)
        self.readings = settings.readings
        self.faults = FaultDial(settings.faults, seed=settings.fault_seed)
        self.quotas = Quotas(settings.quota_mode, settings.quota_limits)
        self.arn_prefix = f"acs:kms:{settings.region}:{settings.account_id}:"
        self.keyring = Keyring(self.arn_prefix)
        self.import_pairs = ImportPairs()
        self.pair_source = PairSource(settings.rsa_key_pool)
        self.created_key_ids: list[str] = []

    def execute(self, call: Call) -> dict[str, object]:
        """Perform one call whose sender is authenticated; KmsError when the KMS refuses it."""
        call.check_required()
        return call.operation.handler(self, call)

    def check(self, call: Call) -> Commit:
        """The checks of one call, KmsError when one fails, and what performs it later.

        An operation whose checks do not stand apart is checked and performed later.
        """
        call.check_required()
        check = call.operation.check
        return partial(call.operation.handler, self, call) if check is None else check(self, call)

    @contextmanager
    def target(self, call: Call) -> Iterator[Key]:
        """The CMK that `KeyId` names, locked, after the checks every operation shares.

        In the order of contract section 6: it exists, it was not named by alias or ARN where an id is needed, its
        origin is EXTERNAL where that is needed, its state allows the operation.
        """
        reference = call.text("KeyId")
        with self.keyring.lock:
            key = self.keyring.find(reference, self.clock.now())
            call.key_id = key.key_id
            if call.operation.key_reference is KeyReference.ID_ONLY and reference != key.key_id:
                raise KmsError("Unsupported.Alias")
            if call.operation.external_only and key.origin != EXTERNAL:
                raise KmsError("Unsupported.Origin")
            check_state(call.operation.name, key.state)
            yield key

    def add_key(self, key: Key) -> None:
        """Take a new CMK; 400 Rejected.LimitExceeded beyond the setting max_keys."""
        with self.keyring.lock:
            limit = self.settings.max_keys
            if limit is not None and len(self.keyring) >= limit:
                raise KmsError("Rejected.LimitExceeded")
            self.keyring.add(key)


def new_key_id(*, dedicated: bool) -> str:
    """`key-hzz` + 17 characters for a CMK of an instance, a UUID otherwise. Source: contract section 1.1."""
    if not dedicated:
        return str(uuid.uuid4())
    return "key-hzz" + "".join(secrets.choice(_KEY_ID_ALPHABET) for _ in range(_KEY_ID_TAIL_LENGTH))


def new_material(key_spec: str) -> bytes:
    """Random key material of the length that the key spec has."""
    return secrets.token_bytes(MATERIAL_LENGTH_BYTES[key_spec])

"""The CMK: its key specs, its states and what the emulator keeps of it."""

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

EXTERNAL = "EXTERNAL"
ALIYUN_KMS = "Aliyun_KMS"
ORIGINS = (ALIYUN_KMS, EXTERNAL)
KEY_USAGE = "ENCRYPT/DECRYPT"

MATERIAL_LENGTH_BYTES = {"Aliyun_AES_256": 32, "Aliyun_AES_192": 24, "Aliyun_AES_128": 16}
"""Key spec to the length of its key material. Source: contract sections 1.1 and 1.4."""

DEFAULT_KEY_SPECS = ("Aliyun_AES_256",)
"""Key specs of a CMK outside a Dedicated KMS instance. Source: contract section 2."""

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class KeyState(StrEnum):
    """States of a CMK, spelt as DescribeKey gives them. Source: contract section 6."""

    ENABLED = "Enabled"
    DISABLED = "Disabled"
    PENDING_DELETION = "PendingDeletion"
    PENDING_IMPORT = "PendingImport"


@dataclass(frozen=True, slots=True)
class Tag:
    """The value of one tag and when it was set."""

    value: str
    set_at: datetime


@dataclass(slots=True)
class Key:
    """One CMK.

    `bound_material` is the first material that was imported and stays for ever; `material` is what encrypts now
    (None before the first import and after deletion or expiry of the material). `accepted_materials` is the evidence:
    every different material that was ever bound, noted apart from the rule that allows one.
    """

    key_id: str
    key_spec: str
    origin: str
    dkms_instance_id: str
    protection_level: str
    created_at: datetime
    state: KeyState
    description: str = ""
    version_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    material: bytes | None = field(default=None, repr=False)
    bound_material: bytes | None = field(default=None, repr=False)
    accepted_materials: list[bytes] = field(default_factory=list, repr=False)
    successful_imports: int = 0
    material_expires_at: datetime | None = None
    delete_at: datetime | None = None
    tags: dict[str, Tag] = field(default_factory=dict)
    newest_pair_id: bytes = b""
    enabled_shown_at: datetime = _LONG_AGO
    describes_before_enabled: int = 0

    @property
    def dedicated(self) -> bool:
        """Whether the CMK lives in a Dedicated KMS instance."""
        return bool(self.dkms_instance_id)

    def bind(self, material: bytes) -> None:
        """Take `material`; a CMK that waited for it becomes Enabled, a Disabled one stays so. Contract section 6."""
        self.material = material
        self.bound_material = material
        if material not in self.accepted_materials:
            self.accepted_materials.append(material)
        if self.state is KeyState.PENDING_IMPORT:
            self.state = KeyState.ENABLED

    def lose_material(self) -> None:
        """Deletion or expiry of the material: PendingImport, unless PendingDeletion. Contract section 1.5."""
        self.material = None
        self.material_expires_at = None
        if self.state is not KeyState.PENDING_DELETION:
            self.state = KeyState.PENDING_IMPORT

    def shown_state(self, now: datetime) -> KeyState:
        """The state that DescribeKey and ListKeys show: Enabled may show late, by the readings."""
        late = now < self.enabled_shown_at or self.describes_before_enabled > 0
        return KeyState.PENDING_IMPORT if late and self.state is KeyState.ENABLED else self.state

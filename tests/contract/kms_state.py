"""What a FakeKms keeps: its CMKs and import tokens, and the RSA pair that they share."""

import secrets
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keybroker.domain.errors import KmsError, Reason
from keybroker.domain.external_key import KeyState
from keybroker.domain.key_spec import KeySpec
from keybroker.domain.wrapping import WrappingAlgorithm

IV_LENGTH_BYTES = 12

_REASONS = {
    "AliasAlreadyExists": Reason.ALIAS_ALREADY_EXISTS,
    "ExpiredImportToken": Reason.IMPORT_TOKEN_EXPIRED,
    "Forbidden.AliasNotFound": Reason.KEY_NOT_FOUND,
    "Forbidden.KeyNotFound": Reason.KEY_NOT_FOUND,
    "InvalidImportToken": Reason.IMPORT_TOKEN_INVALID,
    "InvalidKeyMaterial": Reason.WRAPPED_KEY_MATERIAL_REFUSED,
    "Rejected.Disabled": Reason.KEY_DISABLED,
    "Rejected.PendingDeletion": Reason.KEY_PENDING_DELETION,
    "Rejected.PendingImport": Reason.KEY_STATE_CONFLICT,
    "Rejected.StateModifiedFailed": Reason.KEY_STATE_CONFLICT,
    "Unsupported.Origin": Reason.KEY_ORIGIN_NOT_EXTERNAL,
    "UnsupportedOperation": Reason.KMS_OPERATION_UNSUPPORTED,
}


@cache
def shared_wrapping_pair() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


def spki_der(private_key: RSAPrivateKey) -> bytes:
    return private_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@dataclass
class StoredKey:
    key_id: str
    spec: KeySpec | None
    state: KeyState
    origin: str
    dkms_instance_id: str
    created_at: datetime
    description: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    version_id: str = field(default_factory=lambda: str(uuid4()))
    delete_at: datetime | None = None
    material: bytes | None = None
    enabled_shown_at: datetime | None = None
    describes_until_enabled: int = 0

    def shown_state(self, now: datetime) -> KeyState:
        """Enabled may show late, as the readings say."""
        late = self.describes_until_enabled > 0 or (self.enabled_shown_at is not None and now < self.enabled_shown_at)
        return KeyState.PENDING_IMPORT if late and self.state is KeyState.ENABLED else self.state

    def encrypted(self, plaintext: bytes) -> bytes:
        """The ciphertext blob of contract 1.10."""
        iv = secrets.token_bytes(IV_LENGTH_BYTES)
        return self.version_id.encode() + iv + AESGCM(self.material or b"").encrypt(iv, plaintext, None)

    def matches_tag(self, tag_key: str, tag_value: str) -> bool:
        """An empty `tag_value` is any."""
        return tag_key in self.tags and tag_value in {"", self.tags[tag_key]}


@dataclass(frozen=True)
class Token:
    key_id: str
    algorithm: WrappingAlgorithm
    expires_at: datetime


def refuse_unless(condition: bool, kms_code: str) -> None:  # noqa: FBT001  # an assertion
    if not condition:
        raise refusal(kms_code)


def refusal(kms_code: str) -> KmsError:
    message = f"The KMS refused the request ({kms_code})."
    return KmsError(_REASONS[kms_code], message, kms_code=kms_code, committed_nothing=True)

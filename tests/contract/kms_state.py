"""What a FakeKms keeps: its CMKs, import tokens and readings, and how a test sets them up and looks at them."""

import secrets
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keybroker.domain.errors import KmsError, Reason
from keybroker.domain.external_key import ORIGIN_EXTERNAL, KeyState
from keybroker.domain.key_spec import AES_256, KeySpec
from keybroker.domain.wrapping import WrappingAlgorithm
from keybroker.ports import Clock
from tests.contract.kms_script import Held, Moment, Script

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


class KmsState(Script):
    """What a test sets up and looks at. `calls` counts by KMS operation; `unwrapped` holds all material accepted.

    Readings: `same_material_reimport`, `newest_token_only`, `enabled_lag_seconds` and show_enabled_after_describes,
    `tag_filters_ignored`, `tag_filter_lag_seconds`; of Encrypt `encrypt_refused` and `encrypt_unreadable` (a blob of
    another layout). `ahead` is how far the KMS's clock is ahead of `clock`; `dated` whether its replies say the time.
    """

    def __init__(
        self,
        name: str = "main",
        region: str = "cn-hangzhou",
        dkms_instance_id: str = "kst-example",
        account: str = "1540355698840000",
        *,
        clock: Clock,
    ) -> None:
        super().__init__()
        self.name = name
        self.region = region
        self.dkms_instance_id = dkms_instance_id
        self.account = account
        self.calls: Counter[str] = Counter()
        self.unwrapped: list[bytes] = []
        self.wrapping_public_key_der: bytes | None = None
        self.same_material_reimport = True
        self.newest_token_only = False
        self.enabled_lag_seconds = 0.0
        self.tag_filters_ignored = False
        self.tag_filter_lag_seconds = 0.0
        self.encrypt_refused = False
        self.encrypt_unreadable = False
        self.ahead = timedelta()
        self.dated = True
        self._clock = clock
        self._keys: dict[str, StoredKey] = {}
        self._aliases: dict[str, str] = {}
        self._tokens: dict[str, Token] = {}
        self._newest_tokens: dict[str, str] = {}
        self._held: list[Held] = []
        self._checked: Moment | None = None
        self._describes_until_enabled = 0
        self._made = 0
        self._requests = 0
        self._lock = threading.RLock()

    def add_key(
        self,
        *,
        spec: KeySpec | None = AES_256,
        state: KeyState = KeyState.PENDING_IMPORT,
        origin: str = ORIGIN_EXTERNAL,
        dkms_instance_id: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """An Enabled or Disabled external CMK has material of somebody else's."""
        with self._lock:
            key_id = f"key-fake{self._made:014d}"
            self._made += 1
            instance = self.dkms_instance_id if dkms_instance_id is None else dkms_instance_id
            key = StoredKey(key_id, spec, state, origin, instance, created_at=self.now(), tags=dict(tags or {}))
            if origin == ORIGIN_EXTERNAL and spec and state in {KeyState.ENABLED, KeyState.DISABLED}:
                key.material = secrets.token_bytes(spec.length_bytes)
            self._keys[key_id] = key
            return key_id

    def remove_key(self, key_id: str) -> None:
        """As if the waiting period of its deletion were over."""
        del self._keys[key_id]

    def set_state(self, key_id: str, state: KeyState) -> None:
        self._keys[key_id].state = state

    def set_tags(self, key_id: str, tags: Mapping[str, str]) -> None:
        self._keys[key_id].tags = dict(tags)

    def show_enabled_after_describes(self, n: int) -> None:
        """From the next import on, the first `n` DescribeKeys after it still show PendingImport."""
        self._describes_until_enabled = n

    def bind_foreign(self, key_id: str) -> bytes | None:
        """Somebody else imports. Returns the material, or None if the CMK was bound before."""
        with self._lock:
            key = self._keys[key_id]
            if key.material is not None or key.spec is None:
                return None
            material = secrets.token_bytes(key.spec.length_bytes)
            self._bind(key, material)
            return material

    def land_late(self) -> list[KmsError | None]:
        """Lets the requests that were held back take effect, in order; returns what they would have been refused with.

        See fail_next, "late" and "checked".
        """
        with self._lock:
            held, self._held = self._held, []
            return [self._landed(each) for each in held]

    def bound_material(self, key_id: str) -> bytes | None:
        return self._keys[key_id].material

    def true_state(self, key_id: str) -> KeyState:
        """Whatever DescribeKey shows meanwhile."""
        return self._keys[key_id].state

    def tags(self, key_id: str) -> dict[str, str]:
        return dict(self._keys[key_id].tags)

    def description(self, key_id: str) -> str:
        return self._keys[key_id].description

    def aliases(self, key_id: str) -> list[str]:
        return [alias for alias, owner in self._aliases.items() if owner == key_id]

    @property
    def key_ids(self) -> list[str]:
        return list(self._keys)

    def now(self) -> datetime:
        return self._clock.now() + self.ahead

    def _landed(self, held: Held) -> KmsError | None:
        self._checked = held.checked
        try:
            held.act()
        except KmsError as error:
            return error
        finally:
            self._checked = None
        return None

    def _moment(self) -> Moment:
        return Moment(self.now(), frozenset(self._newest_tokens.values()))

    def _bind(self, key: StoredKey, material: bytes) -> None:
        key.material = material
        if key.state is KeyState.PENDING_IMPORT:
            key.state = KeyState.ENABLED
            key.enabled_shown_at = self.now() + timedelta(seconds=self.enabled_lag_seconds)
            key.describes_until_enabled = self._describes_until_enabled


def refuse_unless(condition: bool, kms_code: str) -> None:  # noqa: FBT001  # an assertion
    if not condition:
        raise refusal(kms_code)


def refusal(kms_code: str) -> KmsError:
    message = f"The KMS refused the request ({kms_code})."
    return KmsError(_REASONS[kms_code], message, kms_code=kms_code, committed_nothing=True)

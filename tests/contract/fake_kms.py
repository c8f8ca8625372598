"""An in-memory KMS behind ports.Kms: keeps state, unwraps for real, counts calls, fails when told to.

Behaves as contract 1 and 6 say for an instance where the same material may be imported again and every unexpired token
stays valid. All tokens share one RSA pair unless `wrapping_public_key_der` is overridden. Left out: signatures,
quotas, limits of field lengths.
"""

import secrets
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Literal, TypeVar
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import KmsError, Reason
from keybroker.domain.external_key import ORIGIN_EXTERNAL, CmkName, ExternalKey, KeyState, NewKey
from keybroker.domain.import_parameters import ImportParameters
from keybroker.domain.key_spec import AES_256, KeySpec
from keybroker.domain.wrapping import WrappingAlgorithm
from keybroker.ports import Clock, KmsReply

TOKEN_LIFE = timedelta(hours=24)
SEND_SECONDS = 0.05  # what a call needs left of its deadline, or it is not sent

_REASONS = {
    "AliasAlreadyExists": Reason.ALIAS_ALREADY_EXISTS,
    "ExpiredImportToken": Reason.IMPORT_TOKEN_EXPIRED,
    "Forbidden.AliasNotFound": Reason.KEY_NOT_FOUND,
    "Forbidden.KeyNotFound": Reason.KEY_NOT_FOUND,
    "InvalidImportToken": Reason.IMPORT_TOKEN_INVALID,
    "InvalidKeyMaterial": Reason.WRAPPED_KEY_MATERIAL_REFUSED,
    "Rejected.StateModifiedFailed": Reason.KEY_STATE_CONFLICT,
    "Unsupported.Origin": Reason.KEY_ORIGIN_NOT_EXTERNAL,
}

When = Literal["before", "after"]
_T = TypeVar("_T")


@cache
def shared_wrapping_pair() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


def spki_der(private_key: RSAPrivateKey) -> bytes:
    return private_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@dataclass
class _Key:
    key_id: str
    spec: KeySpec | None
    state: KeyState
    origin: str
    dkms_instance_id: str
    created_at: datetime
    description: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    delete_at: datetime | None = None
    material: bytes | None = None
    describes_until_enabled: int = 0


@dataclass(frozen=True)
class _Token:
    key_id: str
    algorithm: WrappingAlgorithm
    expires_at: datetime


class FakeKms:
    """See the module. `calls` counts by KMS operation; `unwrapped` holds all material accepted, in order."""

    def __init__(
        self,
        name: str = "main",
        region: str = "cn-hangzhou",
        dkms_instance_id: str = "kst-example",
        account: str = "1540355698840000",
        *,
        clock: Clock,
    ) -> None:
        self.name = name
        self.region = region
        self.dkms_instance_id = dkms_instance_id
        self.account = account
        self.calls: Counter[str] = Counter()
        self.unwrapped: list[bytes] = []
        self.wrapping_public_key_der: bytes | None = None
        self._clock = clock
        self._keys: dict[str, _Key] = {}
        self._aliases: dict[str, str] = {}
        self._tokens: dict[str, _Token] = {}
        self._failures: dict[str, deque[tuple[When, KmsError]]] = defaultdict(deque)
        self._describes_until_enabled = 0
        self._requests = 0
        self._lock = threading.RLock()

    # What a test sets up and looks at

    def add_key(
        self,
        *,
        spec: KeySpec | None = AES_256,
        state: KeyState = KeyState.PENDING_IMPORT,
        origin: str = ORIGIN_EXTERNAL,
        dkms_instance_id: str | None = None,
    ) -> str:
        """An Enabled or Disabled external CMK has material of somebody else's."""
        with self._lock:
            key_id = f"key-fake{len(self._keys):014d}"
            instance = self.dkms_instance_id if dkms_instance_id is None else dkms_instance_id
            key = _Key(key_id, spec, state, origin, instance, created_at=self._clock.now())
            if origin == ORIGIN_EXTERNAL and spec and state in {KeyState.ENABLED, KeyState.DISABLED}:
                key.material = secrets.token_bytes(spec.length_bytes)
            self._keys[key_id] = key
            return key_id

    def set_state(self, key_id: str, state: KeyState) -> None:
        self._keys[key_id].state = state

    def show_enabled_after_describes(self, n: int) -> None:
        """From the next import on, the first `n` DescribeKeys after it still show PendingImport."""
        self._describes_until_enabled = n

    def bound_material(self, key_id: str) -> bytes | None:
        return self._keys[key_id].material

    def tags(self, key_id: str) -> dict[str, str]:
        return dict(self._keys[key_id].tags)

    def description(self, key_id: str) -> str:
        return self._keys[key_id].description

    def aliases(self, key_id: str) -> list[str]:
        return [alias for alias, owner in self._aliases.items() if owner == key_id]

    @property
    def key_ids(self) -> list[str]:
        return list(self._keys)

    def fail_next(self, operation: str, error: KmsError, when: When = "before", times: int = 1) -> None:
        """The next `times` calls of `operation` not yet scripted raise `error`, before or after they took effect."""
        self._failures[operation].extend([(when, error)] * times)

    # ports.Kms

    def create_key(self, new_key: NewKey, *, deadline: Deadline) -> tuple[ExternalKey, KmsReply]:
        def create() -> tuple[ExternalKey, KmsReply]:
            key = self._keys[self.add_key(spec=new_key.spec)]
            key.description = new_key.description
            key.tags = tuple(new_key.tags.items())
            return self._described(key), self._reply()

        return self._call("CreateKey", deadline, create)

    def create_alias(self, key_id: str, alias: str, *, deadline: Deadline) -> KmsReply:
        def create() -> KmsReply:
            key = self._find(key_id)
            _refuse_unless(key.state is not KeyState.PENDING_DELETION, "Rejected.StateModifiedFailed")
            _refuse_unless(alias not in self._aliases, "AliasAlreadyExists")
            self._aliases[alias] = key.key_id
            return self._reply()

        return self._call("CreateAlias", deadline, create)

    def describe_key(self, key_id: str, *, deadline: Deadline) -> ExternalKey:
        def describe() -> ExternalKey:
            key = self._find(self._resolved(key_id))
            if key.describes_until_enabled > 0:
                key.describes_until_enabled -= 1
                return self._described(key, state=KeyState.PENDING_IMPORT)
            return self._described(key)

        return self._call("DescribeKey", deadline, describe)

    def get_parameters_for_import(
        self, cmk: CmkName, algorithm: WrappingAlgorithm, *, deadline: Deadline
    ) -> ImportParameters:
        def issue() -> ImportParameters:
            key = self._find(cmk.key_id)
            _refuse_unless(key.origin == ORIGIN_EXTERNAL, "Unsupported.Origin")
            token = secrets.token_urlsafe(48)
            expires_at = (self._clock.now() + TOKEN_LIFE).replace(microsecond=0)
            self._tokens[token] = _Token(key.key_id, algorithm, expires_at)
            der = self.wrapping_public_key_der or spki_der(shared_wrapping_pair())
            return ImportParameters(cmk, algorithm, der, token, expires_at)

        return self._call("GetParametersForImport", deadline, issue)

    def import_key_material(
        self, cmk: CmkName, *, wrapped_key_material: bytes, import_token: str, deadline: Deadline
    ) -> KmsReply:
        def bind() -> KmsReply:
            key = self._find(cmk.key_id)
            _refuse_unless(key.origin == ORIGIN_EXTERNAL, "Unsupported.Origin")
            _refuse_unless(key.state is not KeyState.PENDING_DELETION, "Rejected.StateModifiedFailed")
            material = self._unwrapped(key, import_token, wrapped_key_material)
            _refuse_unless(key.material in {None, material}, "InvalidKeyMaterial")
            self._bind(key, material)
            return self._reply()

        return self._call("ImportKeyMaterial", deadline, bind)

    def schedule_key_deletion(self, key_id: str, *, pending_window_days: int, deadline: Deadline) -> KmsReply:
        def schedule() -> KmsReply:
            key = self._find(key_id)
            _refuse_unless(key.state is not KeyState.PENDING_DELETION, "Rejected.StateModifiedFailed")
            key.state = KeyState.PENDING_DELETION
            key.delete_at = (self._clock.now() + timedelta(days=pending_window_days)).replace(microsecond=0)
            return self._reply()

        return self._call("ScheduleKeyDeletion", deadline, schedule)

    def cancel_key_deletion(self, key_id: str, *, deadline: Deadline) -> KmsReply:
        def cancel() -> KmsReply:
            key = self._find(key_id)
            _refuse_unless(key.state is KeyState.PENDING_DELETION, "Rejected.StateModifiedFailed")
            empty = key.origin == ORIGIN_EXTERNAL and key.material is None
            key.state = KeyState.PENDING_IMPORT if empty else KeyState.ENABLED
            key.delete_at = None
            return self._reply()

        return self._call("CancelKeyDeletion", deadline, cancel)

    # Inside

    def _call(self, operation: str, deadline: Deadline, act: Callable[[], _T]) -> _T:
        deadline.require(SEND_SECONDS, step=operation)
        with self._lock:
            self.calls[operation] += 1
            scripted = self._failures[operation].popleft() if self._failures[operation] else None
            if scripted and scripted[0] == "before":
                raise scripted[1]
            result = act()
            if scripted:
                raise scripted[1]
            return result

    def _unwrapped(self, key: _Key, import_token: str, wrapped_key_material: bytes) -> bytes:
        token = self._tokens.get(import_token)
        if token is None or token.key_id != key.key_id:
            raise _refusal("InvalidImportToken")
        _refuse_unless(self._clock.now() <= token.expires_at, "ExpiredImportToken")
        try:
            material = shared_wrapping_pair().decrypt(wrapped_key_material, token.algorithm.padding)
        except ValueError:
            raise _refusal("InvalidKeyMaterial") from None
        _refuse_unless(key.spec is not None and len(material) == key.spec.length_bytes, "InvalidKeyMaterial")
        return material

    def _bind(self, key: _Key, material: bytes) -> None:
        key.material = material
        self.unwrapped.append(material)
        if key.state is KeyState.PENDING_IMPORT:
            key.state = KeyState.ENABLED
            key.describes_until_enabled = self._describes_until_enabled

    def _resolved(self, name: str) -> str:
        if name.startswith("alias/"):
            _refuse_unless(name in self._aliases, "Forbidden.AliasNotFound")
            return self._aliases[name]
        return name.rpartition(":key/")[2]

    def _find(self, key_id: str) -> _Key:
        _refuse_unless(key_id in self._keys, "Forbidden.KeyNotFound")
        return self._keys[key_id]

    def _described(self, key: _Key, *, state: KeyState | None = None) -> ExternalKey:
        return ExternalKey(
            name=CmkName(self.account, self.region, key.key_id),
            arn=f"acs:kms:{self.region}:{self.account}:key/{key.key_id}",
            dkms_instance_id=key.dkms_instance_id,
            spec=key.spec,
            state=state or key.state,
            origin=key.origin,
            created_at=key.created_at.replace(microsecond=0),
            delete_at=key.delete_at,
        )

    def _reply(self) -> KmsReply:
        self._requests += 1
        return KmsReply(str(UUID(int=self._requests)))


def _refuse_unless(condition: bool, kms_code: str) -> None:  # noqa: FBT001  # an assertion
    if not condition:
        raise _refusal(kms_code)


def _refusal(kms_code: str) -> KmsError:
    message = f"The KMS refused the request ({kms_code})."
    return KmsError(_REASONS[kms_code], message, kms_code=kms_code, committed_nothing=True)

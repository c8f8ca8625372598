"""An in-memory KMS behind ports.Kms: keeps state, unwraps for real, counts calls, fails when told to (kms_script.py).

Behaves as contract 1 and 6 say; where the contract is open, an attribute chooses the reading, with the emulator's
defaults. All tokens share one RSA pair unless `wrapping_public_key_der` is overridden. Left out: signatures, quotas,
limits of field lengths.
"""

import secrets
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import NoReturn, TypeVar
from uuid import UUID

from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import KmsError
from keybroker.domain.external_key import ORIGIN_EXTERNAL, CmkName, ExternalKey, KeyState, NewKey
from keybroker.domain.import_parameters import ImportParameters
from keybroker.domain.key_spec import AES_256, KeySpec
from keybroker.domain.wrapping import WrappingAlgorithm
from keybroker.ports import Clock, KeyPage, KmsReply
from tests.contract.kms_script import Held, Moment, Script
from tests.contract.kms_state import StoredKey, Token, refusal, refuse_unless, shared_wrapping_pair, spki_der

TOKEN_LIFE = timedelta(hours=24)
PAGE_SIZE = 100
SEND_SECONDS = 0.05  # what a call needs left of its deadline, or it is not sent

_T = TypeVar("_T")
_CRYPTOGRAPHY_REFUSALS = {
    KeyState.DISABLED: "Rejected.Disabled",
    KeyState.PENDING_DELETION: "Rejected.PendingDeletion",
    KeyState.PENDING_IMPORT: "Rejected.PendingImport",
}


class FakeKms(Script):
    """See the module. `calls` counts by KMS operation; `unwrapped` holds all material accepted from callers, in order.

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

    # What a test sets up and looks at

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

    # ports.Kms

    def now(self) -> datetime:
        return self._clock.now() + self.ahead

    def create_key(self, new_key: NewKey, *, deadline: Deadline) -> tuple[ExternalKey, KmsReply]:
        def create() -> tuple[ExternalKey, KmsReply]:
            key = self._keys[self.add_key(spec=new_key.spec, tags=new_key.tags)]
            key.description = new_key.description
            return self._described(key), self._reply()

        return self._call("CreateKey", deadline, create)

    def create_alias(self, key_id: str, alias: str, *, deadline: Deadline) -> KmsReply:
        def create() -> KmsReply:
            key = self._find(key_id)
            refuse_unless(key.state is not KeyState.PENDING_DELETION, "Rejected.StateModifiedFailed")
            refuse_unless(alias not in self._aliases, "AliasAlreadyExists")
            self._aliases[alias] = key.key_id
            return self._reply()

        return self._call("CreateAlias", deadline, create)

    def describe_key(self, key_id: str, *, deadline: Deadline) -> ExternalKey:
        def describe() -> ExternalKey:
            key = self._find(self._resolved(key_id))
            described = self._described(key)
            key.describes_until_enabled = max(0, key.describes_until_enabled - 1)
            return described

        return self._call("DescribeKey", deadline, describe)

    def get_parameters_for_import(
        self, cmk: CmkName, algorithm: WrappingAlgorithm, *, deadline: Deadline
    ) -> ImportParameters:
        def issue() -> ImportParameters:
            key = self._find(cmk.key_id)
            refuse_unless(key.origin == ORIGIN_EXTERNAL, "Unsupported.Origin")
            token = secrets.token_urlsafe(48)
            expires_at = (self.now() + TOKEN_LIFE).replace(microsecond=0)
            self._tokens[token] = Token(key.key_id, algorithm, expires_at)
            self._newest_tokens[key.key_id] = token
            der = self.wrapping_public_key_der or spki_der(shared_wrapping_pair())
            return ImportParameters(cmk, algorithm, der, token, expires_at)

        return self._call("GetParametersForImport", deadline, issue)

    def import_key_material(
        self, cmk: CmkName, *, wrapped_key_material: bytes, import_token: str, deadline: Deadline
    ) -> KmsReply:
        def bind() -> KmsReply:
            key = self._find(cmk.key_id)
            refuse_unless(key.origin == ORIGIN_EXTERNAL, "Unsupported.Origin")
            refuse_unless(key.state is not KeyState.PENDING_DELETION, "Rejected.StateModifiedFailed")
            material = self._unwrapped(key, self._redeemed(key, import_token), wrapped_key_material)
            again = self.same_material_reimport and key.material == material
            refuse_unless(key.material is None or again, "InvalidKeyMaterial")
            self._bind(key, material)
            self.unwrapped.append(material)
            return self._reply()

        return self._call("ImportKeyMaterial", deadline, bind)

    def schedule_key_deletion(self, key_id: str, *, pending_window_days: int, deadline: Deadline) -> KmsReply:
        def schedule() -> KmsReply:
            key = self._find(key_id)
            refuse_unless(key.state is not KeyState.PENDING_DELETION, "Rejected.StateModifiedFailed")
            key.state = KeyState.PENDING_DELETION
            key.delete_at = (self.now() + timedelta(days=pending_window_days)).replace(microsecond=0)
            return self._reply()

        return self._call("ScheduleKeyDeletion", deadline, schedule)

    def cancel_key_deletion(self, key_id: str, *, deadline: Deadline) -> KmsReply:
        def cancel() -> KmsReply:
            key = self._find(key_id)
            refuse_unless(key.state is KeyState.PENDING_DELETION, "Rejected.StateModifiedFailed")
            empty = key.origin == ORIGIN_EXTERNAL and key.material is None
            key.state = KeyState.PENDING_IMPORT if empty else KeyState.ENABLED
            key.delete_at = None
            return self._reply()

        return self._call("CancelKeyDeletion", deadline, cancel)

    def list_keys(
        self, *, tag_key: str, tag_value: str = "", pending_import_only: bool = False, page: int = 1, deadline: Deadline
    ) -> KeyPage:
        def list_page() -> KeyPage:
            shown = {KeyState.PENDING_IMPORT} if pending_import_only else set(KeyState)
            found = [
                key.key_id
                for key in self._keys.values()
                if key.shown_state(self.now()) in shown and self._is_found_by(key, tag_key, tag_value)
            ]
            return KeyPage(tuple(found[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]), len(found))

        return self._call("ListKeys", deadline, list_page)

    def list_resource_tags(self, key_id: str, *, deadline: Deadline) -> Mapping[str, str]:
        return self._call("ListResourceTags", deadline, lambda: dict(self._find(key_id).tags))

    def encrypt(self, key_id: str, plaintext: bytes, *, deadline: Deadline) -> bytes:
        def encrypt() -> bytes:
            key = self._find(self._resolved(key_id))
            refuse_unless(not self.encrypt_refused, "UnsupportedOperation")
            refuse_unless(key.state not in _CRYPTOGRAPHY_REFUSALS, _CRYPTOGRAPHY_REFUSALS.get(key.state, ""))
            refuse_unless(key.material is not None, "Rejected.PendingImport")
            blob = key.encrypted(plaintext)
            return secrets.token_bytes(len(blob)) if self.encrypt_unreadable else blob

        return self._call("Encrypt", deadline, encrypt)

    # Inside

    def _call(self, operation: str, deadline: Deadline, act: Callable[[], _T]) -> _T:
        """The hooks run outside the lock: they may wait for other threads that call."""
        deadline.require(SEND_SECONDS, step=operation)
        self._run_hook(operation, "before")
        answer = self._answered(operation, act)
        self._run_hook(operation, "after")
        return answer()

    def _answered(self, operation: str, act: Callable[[], _T]) -> Callable[[], _T]:
        with self._lock:
            self.calls[operation] += 1
            scripted = self._scripted_failure(operation)
            if scripted is None:
                return _outcome(act)
            when, error = scripted
            if when == "after":
                _outcome(act)
            elif when != "before":
                self._held.append(Held(act, self._moment() if when == "checked" else None))
            return _raising(error)

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

    def _redeemed(self, key: StoredKey, import_token: str) -> Token:
        moment = self._checked or self._moment()
        token = self._tokens.get(import_token)
        if token is None or token.key_id != key.key_id:
            raise refusal("InvalidImportToken")
        revoked = self.newest_token_only and import_token not in moment.newest_tokens
        refuse_unless(not revoked, "InvalidImportToken")
        refuse_unless(moment.now <= token.expires_at, "ExpiredImportToken")
        return token

    def _unwrapped(self, key: StoredKey, token: Token, wrapped_key_material: bytes) -> bytes:
        try:
            material = shared_wrapping_pair().decrypt(wrapped_key_material, token.algorithm.padding)
        except ValueError:
            raise refusal("InvalidKeyMaterial") from None
        refuse_unless(key.spec is not None and len(material) == key.spec.length_bytes, "InvalidKeyMaterial")
        return material

    def _bind(self, key: StoredKey, material: bytes) -> None:
        key.material = material
        if key.state is KeyState.PENDING_IMPORT:
            key.state = KeyState.ENABLED
            key.enabled_shown_at = self.now() + timedelta(seconds=self.enabled_lag_seconds)
            key.describes_until_enabled = self._describes_until_enabled

    def _is_found_by(self, key: StoredKey, tag_key: str, tag_value: str) -> bool:
        if self.tag_filters_ignored:
            return True
        age_seconds = (self.now() - key.created_at).total_seconds()
        return key.matches_tag(tag_key, tag_value) and age_seconds >= self.tag_filter_lag_seconds

    def _resolved(self, name: str) -> str:
        if name.startswith("alias/"):
            refuse_unless(name in self._aliases, "Forbidden.AliasNotFound")
            return self._aliases[name]
        return name.rpartition(":key/")[2]

    def _find(self, key_id: str) -> StoredKey:
        refuse_unless(key_id in self._keys, "Forbidden.KeyNotFound")
        return self._keys[key_id]

    def _described(self, key: StoredKey) -> ExternalKey:
        return ExternalKey(
            name=CmkName(self.account, self.region, key.key_id),
            arn=f"acs:kms:{self.region}:{self.account}:key/{key.key_id}",
            dkms_instance_id=key.dkms_instance_id,
            spec=key.spec,
            state=key.shown_state(self.now()),
            origin=key.origin,
            created_at=key.created_at.replace(microsecond=0),
            delete_at=key.delete_at,
            as_of=self.now().replace(microsecond=0) if self.dated else None,
        )

    def _reply(self) -> KmsReply:
        self._requests += 1
        return KmsReply(str(UUID(int=self._requests)))


def _outcome(act: Callable[[], _T]) -> Callable[[], _T]:
    """Runs `act` now; the function returned tells what came of it."""
    try:
        result = act()
    except KmsError as error:
        return _raising(error)
    return lambda: result


def _raising(error: KmsError) -> Callable[[], NoReturn]:
    def tell() -> NoReturn:
        raise error

    return tell


__all__ = ["FakeKms", "shared_wrapping_pair", "spki_der"]

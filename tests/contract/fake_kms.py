"""An in-memory KMS behind ports.Kms: keeps state, unwraps for real, counts calls, fails when told to (kms_script.py).

Behaves as contract 1 and 6 say; where the contract is open, an attribute chooses the reading, with the emulator's
defaults. All tokens share one RSA pair unless `wrapping_public_key_der` is overridden. Left out: signatures, quotas,
limits of field lengths.
"""

import secrets
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import NoReturn, TypeVar
from uuid import UUID

from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import KmsError
from keybroker.domain.external_key import ORIGIN_EXTERNAL, CmkName, ExternalKey, KeyState, NewKey
from keybroker.domain.import_parameters import ImportParameters
from keybroker.domain.wrapping import WrappingAlgorithm
from keybroker.ports import KeyPage, KmsReply
from tests.contract.kms_script import Held
from tests.contract.kms_state import KmsState, StoredKey, Token, refusal, refuse_unless, shared_wrapping_pair, spki_der

TOKEN_LIFE = timedelta(hours=24)
PAGE_SIZE = 100
SEND_SECONDS = 0.05  # what a call needs left of its deadline, or it is not sent

_T = TypeVar("_T")
_CRYPTOGRAPHY_REFUSALS = {
    KeyState.DISABLED: "Rejected.Disabled",
    KeyState.PENDING_DELETION: "Rejected.PendingDeletion",
    KeyState.PENDING_IMPORT: "Rejected.PendingImport",
}


class FakeKms(KmsState):
    """See the module; what a test sets up and looks at is KmsState's."""

    # ports.Kms

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

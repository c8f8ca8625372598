"""All CMKs and aliases of the emulated account and region, and how a KeyId parameter finds one.

Time acts when a CMK is looked up: a waiting period that has run out removes it, a material expiry empties it.
The methods expect the caller to hold `lock`.
"""

import threading
from collections.abc import Iterator
from datetime import datetime

from kms_emulator.errors import KmsError
from kms_emulator.keys import Key, KeyState

ALIAS_PREFIX = "alias/"


class Keyring:
    """CMKs by id, aliases by name, key versions by id, in the order of creation."""

    def __init__(self, arn_prefix: str) -> None:
        self.lock = threading.RLock()
        self.aliases: dict[str, str] = {}
        self._arn_prefix = arn_prefix
        self._keys: dict[str, Key] = {}
        self._versions: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: Key) -> None:
        """Take a new CMK."""
        self._keys[key.key_id] = key
        self._versions[key.version_id] = key.key_id

    def find(self, reference: str, now: datetime) -> Key:
        """The CMK that an id, alias or ARN names; 404 Forbidden.AliasNotFound or Forbidden.KeyNotFound otherwise."""
        if reference.startswith(ALIAS_PREFIX):
            key = self._living(self.aliases.get(reference, ""), now)
            if key is None:
                raise KmsError("Forbidden.AliasNotFound")
            return key
        key = self._living(reference.removeprefix(f"{self._arn_prefix}key/"), now)
        if key is None:
            raise KmsError("Forbidden.KeyNotFound")
        return key

    def find_version(self, version_id: str, now: datetime) -> Key:
        """The CMK with this key version; 404 Forbidden.KeyVersionNotFound otherwise."""
        key = self._living(self._versions.get(version_id, ""), now)
        if key is None:
            raise KmsError("Forbidden.KeyVersionNotFound")
        return key

    def all(self, now: datetime) -> Iterator[Key]:
        """Every CMK that still exists."""
        for key_id in list(self._keys):
            key = self._living(key_id, now)
            if key is not None:
                yield key

    def aliases_of(self, key_id: str) -> list[str]:
        """Names of the aliases of one CMK."""
        return [name for name, target in self.aliases.items() if target == key_id]

    def _living(self, key_id: str, now: datetime) -> Key | None:
        key = self._keys.get(key_id)
        if key is None:
            return None
        if key.state is KeyState.PENDING_DELETION and key.delete_at is not None and now >= key.delete_at:
            self._remove(key)
            return None
        if key.material_expires_at is not None and now >= key.material_expires_at:
            key.lose_material()
        return key

    def _remove(self, key: Key) -> None:
        del self._keys[key.key_id]
        del self._versions[key.version_id]
        for name in self.aliases_of(key.key_id):
            del self.aliases[name]

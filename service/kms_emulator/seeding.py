"""Setting an emulator up without HTTP: for tests and demonstrations.

Nothing here is counted, throttled or struck by faults.
"""

from collections.abc import Mapping
from datetime import timedelta

from kms_emulator.errors import KmsError
from kms_emulator.keys import EXTERNAL, Key, KeyState, Tag
from kms_emulator.kms import new_key_id, new_material
from kms_emulator.operations.aliases import check_alias_name
from kms_emulator.operations.importing import bind_material, issue_pair
from kms_emulator.truth import Truth
from kms_emulator.wrapping import public_key_der

DEFAULT_WINDOW = timedelta(days=30)


class Seeding(Truth):
    """Makes and changes CMKs of one Kms; KmsError when a CMK does not exist."""

    def create_key(  # noqa: PLR0913 -- a builder: every argument is named and defaulted
        self,
        *,
        key_spec: str = "Aliyun_AES_256",
        origin: str = EXTERNAL,
        state: KeyState | str | None = None,
        dkms_instance_id: str | None = None,
        material: bytes | None = None,
        description: str = "",
        alias: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Create a CMK and return its key id.

        `dkms_instance_id` None is the first configured instance, empty text is none. `state` None is what CreateKey
        gives: PendingImport for EXTERNAL, Enabled otherwise. A CMK that is to be Enabled or Disabled, or is not
        EXTERNAL, gets random material unless `material` is given.
        """
        now = self._kms.clock.now()
        instances = self._kms.settings.dkms_instance_ids
        instance_id = next(iter(instances), "") if dkms_instance_id is None else dkms_instance_id
        key = Key(
            key_id=new_key_id(dedicated=bool(instance_id)),
            key_spec=key_spec,
            origin=origin,
            dkms_instance_id=instance_id,
            protection_level="HSM" if instance_id else "SOFTWARE",
            created_at=now,
            state=KeyState.PENDING_IMPORT,
            description=description,
            tags={name: Tag(value, now) for name, value in (tags or {}).items()},
        )
        if material is None and (origin != EXTERNAL or state in {KeyState.ENABLED, KeyState.DISABLED}):
            material = new_material(key_spec)
        if material is not None:
            key.bind(material)
        with self._kms.keyring.lock:
            self._kms.add_key(key)
            if alias:
                self._kms.keyring.aliases[check_alias_name(alias)] = key.key_id
            if state is not None:
                self.set_state(key.key_id, state)
        return key.key_id

    def set_state(self, key_id: str, state: KeyState | str) -> None:
        """Force a state; PendingDeletion gets a waiting period of 30 days. Material is left as it is."""
        with self._kms.keyring.lock:
            key = self._key(key_id)
            key.state = KeyState(state)
            pending = key.state is KeyState.PENDING_DELETION
            key.delete_at = self._kms.clock.now() + DEFAULT_WINDOW if pending else None

    def import_material(self, key_id: str, material: bytes) -> None:
        """Import as somebody else would: bind `material`, of whatever length, and let the readings show it late.

        InvalidKeyMaterial when the CMK is bound to other material.
        """
        with self._kms.keyring.lock:
            key = self._key(key_id)
            if key.bound_material not in {None, material}:
                raise KmsError("InvalidKeyMaterial")
            bind_material(self._kms, key, material)

    def issue_parameters(self, key_id: str, wrapping_algorithm: str = "RSAES_OAEP_SHA_256") -> tuple[bytes, str]:
        """A wrapping public key (DER SubjectPublicKeyInfo) and its import token, as GetParametersForImport gives."""
        pair = issue_pair(self._kms, self._key(key_id), wrapping_algorithm)
        return public_key_der(pair.private_key.public_key()), pair.import_token

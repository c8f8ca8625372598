"""ports.Kms over another one that sends: every operation goes by the guard of the instance (guard.py)."""

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Protocol

from keybroker.adapters.kms.guard import Guard
from keybroker.domain.deadline import Deadline
from keybroker.domain.external_key import CmkName, ExternalKey, NewKey
from keybroker.domain.import_parameters import ImportParameters
from keybroker.domain.wrapping import WrappingAlgorithm
from keybroker.ports import KeyPage, Kms, KmsReply


class ClosableKms(Kms, Protocol):
    """A ports.Kms with connections."""

    def close(self) -> None:
        """Closes them."""


class GuardedKms:
    """See ports.Kms, also for what the methods do. CreateKey and ImportKeyMaterial are sent once a call."""

    def __init__(self, *, kms: ClosableKms, guard: Guard) -> None:
        self._kms = kms
        self._call = guard.call

    @property
    def name(self) -> str:
        """The instance's name in the configuration."""
        return self._kms.name

    @property
    def region(self) -> str:
        """The region that the instance is in."""
        return self._kms.region

    @property
    def dkms_instance_id(self) -> str:
        """Id of the Dedicated KMS instance, "kst-…"."""
        return self._kms.dkms_instance_id

    def close(self) -> None:
        """Closes the connections."""
        self._kms.close()

    def now(self) -> datetime:
        """The time of day by the KMS's clock."""
        return self._kms.now()

    def create_key(self, new_key: NewKey, *, deadline: Deadline) -> tuple[ExternalKey, KmsReply]:
        """CreateKey."""
        return self._call("CreateKey", partial(self._kms.create_key, new_key, deadline=deadline), deadline)

    def create_alias(self, key_id: str, alias: str, *, deadline: Deadline) -> KmsReply:
        """CreateAlias."""
        return self._call("CreateAlias", partial(self._kms.create_alias, key_id, alias, deadline=deadline), deadline)

    def describe_key(self, key_id: str, *, deadline: Deadline) -> ExternalKey:
        """DescribeKey."""
        return self._call("DescribeKey", partial(self._kms.describe_key, key_id, deadline=deadline), deadline)

    def get_parameters_for_import(
        self, cmk: CmkName, algorithm: WrappingAlgorithm, *, deadline: Deadline
    ) -> ImportParameters:
        """GetParametersForImport."""
        send = partial(self._kms.get_parameters_for_import, cmk, algorithm, deadline=deadline)
        return self._call("GetParametersForImport", send, deadline)

    def import_key_material(
        self, cmk: CmkName, *, wrapped_key_material: bytes, import_token: str, deadline: Deadline
    ) -> KmsReply:
        """ImportKeyMaterial."""
        send = partial(
            self._kms.import_key_material,
            cmk,
            wrapped_key_material=wrapped_key_material,
            import_token=import_token,
            deadline=deadline,
        )
        return self._call("ImportKeyMaterial", send, deadline)

    def schedule_key_deletion(self, key_id: str, *, pending_window_days: int, deadline: Deadline) -> KmsReply:
        """ScheduleKeyDeletion."""
        send = partial(
            self._kms.schedule_key_deletion, key_id, pending_window_days=pending_window_days, deadline=deadline
        )
        return self._call("ScheduleKeyDeletion", send, deadline)

    def cancel_key_deletion(self, key_id: str, *, deadline: Deadline) -> KmsReply:
        """CancelKeyDeletion."""
        send = partial(self._kms.cancel_key_deletion, key_id, deadline=deadline)
        return self._call("CancelKeyDeletion", send, deadline)

    def list_keys(
        self, *, tag_key: str, tag_value: str = "", pending_import_only: bool = False, page: int = 1, deadline: Deadline
    ) -> KeyPage:
        """ListKeys."""
        send = partial(
            self._kms.list_keys,
            tag_key=tag_key,
            tag_value=tag_value,
            pending_import_only=pending_import_only,
            page=page,
            deadline=deadline,
        )
        return self._call("ListKeys", send, deadline)

    def list_resource_tags(self, key_id: str, *, deadline: Deadline) -> Mapping[str, str]:
        """ListResourceTags."""
        send = partial(self._kms.list_resource_tags, key_id, deadline=deadline)
        return self._call("ListResourceTags", send, deadline)

    def encrypt(self, key_id: str, plaintext: bytes, *, deadline: Deadline) -> bytes:
        """Encrypt."""
        return self._call("Encrypt", partial(self._kms.encrypt, key_id, plaintext, deadline=deadline), deadline)

"""Reads CMKs and deletes them. Creating one is create_safely.py's.

There is no DeleteKeyMaterial: on Dedicated KMS only the deletion of the CMK removes its material (the seed's notes).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from keybroker.domain.audit import Change, CmkChange
from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import BrokerError, KmsError, Reason
from keybroker.domain.external_key import CmkName, ExternalKey, KeyReference, NewKey, check_external
from keybroker.ports import Kms, KmsReply
from keybroker.usecases.asked import Asked
from keybroker.usecases.keys import Keys
from keybroker.usecases.obtain_import_parameters import ImportParametersCache
from keybroker.usecases.trail import Trail


class ManageKeys:
    """The steps around an import."""

    def __init__(self, *, keys: Keys, cache: ImportParametersCache, trail: Trail) -> None:
        self._trail = trail
        self._keys = keys
        self._cache = cache

    def describe(self, kms: Kms, reference: KeyReference, *, deadline: Deadline) -> ExternalKey:
        """Reads the CMK. Reasons: KEY_NOT_FOUND, the KMS_… reasons."""
        return self._keys.describe(kms, reference, deadline=deadline)

    def check_alias_free(self, kms: Kms, new_key: NewKey, *, deadline: Deadline) -> None:
        """Raises if the alias that is wanted is taken. Reasons: ALIAS_ALREADY_EXISTS, the KMS_… reasons."""
        if not new_key.alias:
            return
        try:
            kms.describe_key(new_key.alias, deadline=deadline)
        except KmsError as error:
            if error.reason is Reason.KEY_NOT_FOUND:
                return
            raise
        raise BrokerError(
            Reason.ALIAS_ALREADY_EXISTS, "Another CMK has this alias.", metadata={"field": "new_key.alias"}
        )

    def schedule_deletion(  # noqa: PLR0913  # the request's fields
        self,
        kms: Kms,
        asked: Asked,
        reference: KeyReference,
        *,
        pending_window: timedelta,
        deadline: Deadline,
        change: Change = Change.SCHEDULE_DELETION,
    ) -> tuple[ExternalKey, KmsReply]:
        """Schedules the deletion of an external CMK after a waiting period of whole days.

        Reasons: KEY_NOT_FOUND, KEY_NOT_ON_INSTANCE, KEY_ORIGIN_NOT_EXTERNAL, KEY_STATE_CONFLICT,
        CHANGE_OUTCOME_UNKNOWN, AUDIT_UNAVAILABLE, LEDGER_UNAVAILABLE, the KMS_… reasons.
        """
        key = self._own(kms, reference, deadline)
        days = pending_window.days

        def send() -> KmsReply:
            return kms.schedule_key_deletion(key.name.key_id, pending_window_days=days, deadline=deadline)

        return self._changed(kms, key, _deletion(change, asked, kms, key, days=days), send, deadline)

    def cancel_deletion(
        self, kms: Kms, asked: Asked, reference: KeyReference, *, deadline: Deadline
    ) -> tuple[ExternalKey, KmsReply]:
        """Cancels a scheduled deletion. Reasons: as schedule_deletion."""
        key = self._own(kms, reference, deadline)

        def send() -> KmsReply:
            return kms.cancel_key_deletion(key.name.key_id, deadline=deadline)

        return self._changed(kms, key, _deletion(Change.CANCEL_DELETION, asked, kms, key), send, deadline)

    def _changed(
        self, kms: Kms, key: ExternalKey, change: CmkChange, send: Callable[[], KmsReply], deadline: Deadline
    ) -> tuple[ExternalKey, KmsReply]:
        with self._changing(key.name), self._trail.change(change) as told, _outcome_unknown(change):
            reply = send()
            told.kms_request_id = reply.request_id
        return self._read_after(kms, key.name, reply, deadline), reply

    @contextmanager
    def _changing(self, cmk: CmkName) -> Iterator[None]:
        """However the change ends: what was known of the CMK's state no longer counts."""
        try:
            yield
        finally:
            self._keys.forget(cmk)
            self._cache.drop_all(cmk)

    def _own(self, kms: Kms, reference: KeyReference, deadline: Deadline) -> ExternalKey:
        key = self._keys.describe(kms, reference, deadline=deadline)
        check_external(key, dkms_instance_id=kms.dkms_instance_id)
        return key

    def _read_after(self, kms: Kms, cmk: CmkName, reply: KmsReply, deadline: Deadline) -> ExternalKey:
        try:
            return self._keys.describe(kms, KeyReference(cmk.key_id), deadline=deadline)
        except BrokerError as error:
            raise BrokerError(
                Reason.CHANGE_OUTCOME_UNKNOWN,
                "The KMS accepted the change, but the CMK could not be read afterwards.",
                metadata={"key_id": cmk.key_id, "kms_request_id": reply.request_id},
            ) from error


def _deletion(change: Change, asked: Asked, kms: Kms, key: ExternalKey, *, days: int = 0) -> CmkChange:
    who = (asked.caller, asked.request_id, kms.region, kms.dkms_instance_id)
    return CmkChange(change, *who, key.name, key.arn, days=days)


@contextmanager
def _outcome_unknown(change: CmkChange) -> Iterator[None]:
    """Tells a change that may have happened from one that provably did not."""
    try:
        yield
    except KmsError as error:
        if error.committed_nothing:
            raise
        sent = "CancelKeyDeletion" if change.change is Change.CANCEL_DELETION else "ScheduleKeyDeletion"
        raise BrokerError(
            Reason.CHANGE_OUTCOME_UNKNOWN,
            f"{sent} was sent and no answer settled whether it was done.",
            metadata=error.metadata | {"key_id": change.cmk.key_id},
        ) from error

"""CMKs of this broker that wait for material which nobody will import: found by their tag, deleted with care."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from keybroker.domain.attempt import Attempt, Kind, State
from keybroker.domain.audit import Change
from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import BrokerError, KmsError, Reason
from keybroker.domain.external_key import ExternalKey, KeyReference, KeyState, check_external
from keybroker.domain.import_protocol import claimed, released
from keybroker.ports import Clock, Kms, KmsReply
from keybroker.usecases.asked import Asked, digest_of, new_attempt
from keybroker.usecases.claims import Claims
from keybroker.usecases.create_safely import REQUEST_TAG, fits
from keybroker.usecases.embargo import Embargo
from keybroker.usecases.keys import Keys
from keybroker.usecases.manage_keys import ManageKeys
from keybroker.usecases.rows import Rows


@dataclass(frozen=True, slots=True)
class Orphan:
    """A CMK in PendingImport with this broker's tag. `origin` is the row of the request that it was made for."""

    key: ExternalKey
    origin: Attempt | None
    age: timedelta | None
    deletable: bool


class Orphans:
    """Lists and deletes them."""

    def __init__(  # noqa: PLR0913  # what it looks at
        self, *, rows: Rows, keys: Keys, manage: ManageKeys, claims: Claims, embargo: Embargo, clock: Clock
    ) -> None:
        self._rows = rows
        self._embargo = embargo
        self._clock = clock
        self._keys = keys
        self._manage = manage
        self._claims = claims

    def page(self, kms: Kms, number: int, *, deadline: Deadline) -> tuple[list[Orphan], bool]:
        """One page of 100 CMKs by tag, of which the orphans; and whether there is a next page.

        Reasons: the KMS_… reasons, LEDGER_UNAVAILABLE.
        """
        listed = kms.list_keys(tag_key=REQUEST_TAG, pending_import_only=True, page=number, deadline=deadline)
        found = [self._orphan_if_there(kms, key_id, deadline) for key_id in listed.key_ids]
        return [orphan for orphan in found if orphan is not None], number * 100 < listed.total

    def delete(
        self, kms: Kms, asked: Asked, reference: KeyReference, *, pending_window: timedelta, deadline: Deadline
    ) -> tuple[ExternalKey, KmsReply]:
        """Schedules the deletion of an orphan, and of nothing else, holding its CMK meanwhile.

        Reasons: NOT_AN_ORPHAN, IMPORT_IN_PROGRESS, those of ManageKeys.schedule_deletion.
        """
        key = self._keys.describe(kms, reference, deadline=deadline)
        check_external(key, dkms_instance_id=kms.dkms_instance_id)
        with self._claims.hold(key.name, deadline=deadline):
            self._check(kms, key, self._tag_of(kms, key, deadline))
            digest = digest_of(Kind.DELETE_ORPHAN, kms, [key.name.key_id])
            row = self._rows.find(asked.caller, asked.request_id, digest=digest)
            row = row or new_attempt(asked, Kind.DELETE_ORPHAN, kms, digest)
            row = self._rows.write("claim", claimed(row, key.name, first=False))
            try:
                return self._scheduled(kms, asked, key, pending_window, deadline)
            finally:
                with suppress(BrokerError):  # the recovery lets go of it later
                    self._rows.write("release", released(row, None))

    def _scheduled(
        self, kms: Kms, asked: Asked, key: ExternalKey, pending_window: timedelta, deadline: Deadline
    ) -> tuple[ExternalKey, KmsReply]:
        fresh = self._keys.describe(kms, KeyReference(key.name.key_id), deadline=deadline)
        if fresh.state is not KeyState.PENDING_IMPORT:
            raise _no_orphan(key, "it is not PendingImport")
        return self._manage.schedule_deletion(
            kms,
            asked,
            KeyReference(key.name.key_id),
            pending_window=pending_window,
            deadline=deadline,
            change=Change.DELETE_ORPHAN,
        )

    def _check(self, kms: Kms, key: ExternalKey, tag: str) -> Attempt:
        """The row of the request that the CMK was made for, if the CMK may be deleted as an orphan."""
        self._rows.check_free(key.name)
        if key.state is not KeyState.PENDING_IMPORT:
            raise _no_orphan(key, "it is not PendingImport")
        self._embargo.check(key)
        origin = self._rows.ledger.find_tag(tag) if tag else None
        creation = origin.creation if origin else None
        if (
            origin is None
            or creation is None
            or not fits(key, creation, dkms_instance_id=kms.dkms_instance_id, now=self._clock.now())
        ):
            raise _no_orphan(key, "its tag is not one that this broker made for it")
        if origin.state is State.CREATING and not creation.key_id:
            raise _no_orphan(key, "its request is still looking for its CMK")
        if creation.key_id != key.name.key_id and creation.sends < 2:  # noqa: PLR2004  # one CreateKey makes one CMK
            raise _no_orphan(key, "its tag was copied from another CMK")
        return origin

    def _orphan_if_there(self, kms: Kms, key_id: str, deadline: Deadline) -> Orphan | None:
        try:
            return self._orphan(kms, key_id, deadline)
        except KmsError as error:
            if error.reason is Reason.KEY_NOT_FOUND:
                return None  # it was listed, and has gone
            raise

    def _orphan(self, kms: Kms, key_id: str, deadline: Deadline) -> Orphan | None:
        key = self._keys.describe(kms, KeyReference(key_id), deadline=deadline)
        tag = self._tag_of(kms, key, deadline)
        if key.state is not KeyState.PENDING_IMPORT or not tag:
            return None
        age = key.as_of - key.created_at if key.as_of and key.created_at else None
        try:
            return Orphan(key, self._check(kms, key, tag), age, deletable=True)
        except BrokerError:
            return Orphan(key, self._known_origin(tag), age, deletable=False)

    def _known_origin(self, tag: str) -> Attempt | None:
        try:
            return self._rows.ledger.find_tag(tag)
        except BrokerError:
            return None

    def _tag_of(self, kms: Kms, key: ExternalKey, deadline: Deadline) -> str:
        return kms.list_resource_tags(key.name.key_id, deadline=deadline).get(REQUEST_TAG, "")


def _no_orphan(key: ExternalKey, why: str) -> BrokerError:
    return BrokerError(
        Reason.NOT_AN_ORPHAN,
        f"The CMK is not deleted as an orphan: {why}.",
        metadata={"key_id": key.name.key_id},
    )

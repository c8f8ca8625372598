"""Creates a CMK that can be accounted for, although CreateKey has no idempotency token.

Each CreateKey is recorded before it leaves and carries a tag that only this broker can make for this request. After a
lost answer the CMK is looked for by that tag and adopted only if everything about it is right; a second one is created
only with the caller's consent, given on a repeat. Source: contract 1.1, 1.7, 1.8, 1.11.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from keybroker.domain.attempt import Attempt, Creation, State
from keybroker.domain.audit import Change, CmkChange, before_create
from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import REASONS, BrokerError, KmsError, Reason
from keybroker.domain.external_key import (
    ORIGIN_EXTERNAL,
    ExternalKey,
    KeyReference,
    NewKey,
)
from keybroker.domain.retry_policy import MAX_TRIES
from keybroker.ports import Clock, Kms, KmsReply
from keybroker.usecases.answers import failure_of
from keybroker.usecases.embargo import Embargo
from keybroker.usecases.keys import Keys
from keybroker.usecases.patience import Patience, UntilDeadline
from keybroker.usecases.rows import Rows

REQUEST_TAG = "keybroker.request"
_CANDIDATES_LOOKED_AT = 20
_CLOCK_TOLERANCE = timedelta(minutes=2)
_TAGS_SETTLE = timedelta(minutes=5)
_TIME_TO_CREATE_SECONDS = 0.3
_COME_AGAIN_SECONDS = 1.0


class CreateSafely:
    """CreateKey and CreateAlias for one row. `settle_seconds`: how long a lost CMK is looked for in one call."""

    def __init__(self, *, rows: Rows, keys: Keys, embargo: Embargo, clock: Clock, settle_seconds: float) -> None:
        self._rows = rows
        self._embargo = embargo
        self._keys = keys
        self._clock = clock
        self._settle_seconds = settle_seconds

    def wanted(self, attempt: Attempt, new_key: NewKey) -> Attempt:
        """The row of a new request with what it wants created; not written."""
        tag = self._rows.ledger.tag(attempt.caller, attempt.request_id)
        return replace(attempt, creation=Creation(tag, new_key.spec, new_key.alias))

    def ensure(  # noqa: PLR0913  # the request's fields
        self,
        kms: Kms,
        attempt: Attempt,
        new_key: NewKey,
        *,
        allow_second_key: bool,
        before_first: Callable[[], None],
        deadline: Deadline,
    ) -> tuple[Attempt, ExternalKey]:
        """The row with its CMK's key id, and that CMK: known, found again, or created.

        `before_first` checks what must hold before the first CreateKey of a request. Reasons: CREATE_OUTCOME_UNKNOWN,
        the KMS_… reasons, those of `before_first`.
        """
        creation = _creation(attempt)
        if creation.key_id:
            return attempt, self._keys.describe(kms, KeyReference(creation.key_id), deadline=deadline)
        found = self._found_again(kms, creation, deadline)
        if found is not None:
            return self._known(attempt, found), found
        if creation.sends and not allow_second_key:
            raise _unknown()
        if not creation.sends:
            before_first()
        return self._create(kms, attempt, new_key, deadline)

    def _found_again(self, kms: Kms, creation: Creation, deadline: Deadline) -> ExternalKey | None:
        """The CMK of an earlier CreateKey. After a restore also one whose row is lost (R8); not to see is an error.

        Reasons, after a restore: CREATE_OUTCOME_UNKNOWN (the KMS does not apply the filter), the KMS_… reasons.
        """
        if creation.sends:
            return self._search(kms, creation, self._settle_patience(deadline), deadline)
        restored = self._rows.ledger.restored()
        if restored is None:
            return None
        found = self._found(kms, creation, deadline)
        if found is None and (restored.at is None or kms.now() - restored.at < _TAGS_SETTLE):
            found = self._search(kms, creation, self._settle_patience(deadline), deadline)
        return found

    def look_once(self, kms: Kms, attempt: Attempt, *, patience: Patience, deadline: Deadline) -> Attempt:
        """For the recovery: the row with its CMK's key id if that can be found now."""
        found = self._search(kms, _creation(attempt), patience, deadline)
        return attempt if found is None else self._known(attempt, found)

    def give_alias(self, kms: Kms, attempt: Attempt, key: ExternalKey, *, deadline: Deadline) -> None:
        """Gives the CMK of the row the alias that was asked for, if any; that it has it already is success.

        Reasons: ALIAS_ALREADY_EXISTS, CHANGE_OUTCOME_UNKNOWN, AUDIT_UNAVAILABLE, LEDGER_UNAVAILABLE, the KMS_… reasons.
        """
        alias = _creation(attempt).alias
        if not alias:
            return
        who = (attempt.caller, attempt.request_id, kms.region, kms.dkms_instance_id)
        change = CmkChange(Change.CREATE_ALIAS, *who, key.name, key.arn, alias=alias)
        with self._rows.trail.change(change) as told:
            told.kms_request_id = self._send_alias(kms, key, alias, deadline)

    def _send_alias(self, kms: Kms, key: ExternalKey, alias: str, deadline: Deadline) -> str:
        """The RequestId of the KMS's success answer; "" where the alias was there, or its answer was lost."""
        try:
            return kms.create_alias(key.name.key_id, alias, deadline=deadline).request_id
        except KmsError as error:
            if error.committed_nothing and error.reason is not Reason.ALIAS_ALREADY_EXISTS:
                raise
            if self._points_to(kms, key, alias, deadline):
                return ""
            if error.committed_nothing:
                error.metadata["field"] = "new_key.alias"
                raise
            raise BrokerError(
                Reason.CHANGE_OUTCOME_UNKNOWN,
                "CreateAlias was sent and no answer settled whether it was done.",
                metadata=error.metadata | {"key_id": key.name.key_id},
            ) from error

    def _points_to(self, kms: Kms, key: ExternalKey, alias: str, deadline: Deadline) -> bool:
        try:
            return self._keys.describe(kms, KeyReference(alias), deadline=deadline).name == key.name
        except BrokerError:
            return False

    def _create(self, kms: Kms, attempt: Attempt, new_key: NewKey, deadline: Deadline) -> tuple[Attempt, ExternalKey]:
        patience = UntilDeadline(clock=self._clock, deadline=deadline, reserve_seconds=_TIME_TO_CREATE_SECONDS)
        patience.allows("create")
        signed_anew, tries = False, 0
        while True:
            attempt = self._rows.write("create", _one_more(attempt, self._clock.now()))
            tries += 1
            deadline.is_repeating = _creation(attempt).sends > 1 or tries > 1
            try:
                key, reply = self._send(kms, attempt, new_key, deadline)
            except BrokerError as error:
                if isinstance(error, KmsError) and not error.committed_nothing:
                    attempt, found = self._find_after(kms, attempt, error, deadline)
                    return attempt, found
                attempt = self._rows.write("create refused", _one_less(attempt, error))
                if _signs_anew(error) and not signed_anew:
                    signed_anew = True
                    continue
                if not _may_try_again(error, tries, patience):
                    _to_come_again(error)
                    raise
            else:
                self._embargo.made(key.name)
                creation = replace(_creation(attempt), kms_request_id=reply.request_id)
                answered = replace(attempt, kms_request_id=reply.request_id, creation=creation)
                return self._known(answered, key), key

    def _send(self, kms: Kms, attempt: Attempt, new_key: NewKey, deadline: Deadline) -> tuple[ExternalKey, KmsReply]:
        tagged = replace(new_key, tags={**new_key.tags, REQUEST_TAG: _creation(attempt).tag})
        self._rows.trail.before(before_create(attempt, new_key))
        self._rows.at("create: before")
        created = kms.create_key(tagged, deadline=deadline)
        self._rows.at("create: accepted")
        return created

    def _find_after(
        self, kms: Kms, attempt: Attempt, lost: KmsError, deadline: Deadline
    ) -> tuple[Attempt, ExternalKey]:
        found = self._search(kms, _creation(attempt), self._settle_patience(deadline), deadline)
        if found is None:
            raise _unknown(lost)
        return self._known(attempt, found), found

    def _known(self, attempt: Attempt, key: ExternalKey) -> Attempt:
        """The CMK exists: a repeat goes on with it. A request for more than a CMK holds none yet."""
        creation = replace(_creation(attempt), key_id=key.name.key_id)
        written = self._rows.write("created", replace(attempt, state=State.RELEASED, creation=creation, failure=None))
        self._keys.saw(key)
        return written

    def _settle_patience(self, deadline: Deadline) -> Patience:
        window = Deadline.after(
            min(self._settle_seconds, deadline.remaining_seconds()), monotonic=self._clock.monotonic
        )
        return UntilDeadline(clock=self._clock, deadline=window, reserve_seconds=_TIME_TO_CREATE_SECONDS)

    def _search(self, kms: Kms, creation: Creation, patience: Patience, deadline: Deadline) -> ExternalKey | None:
        """Looks for the tagged CMK again and again: tags are found with a delay. Errors count as not found yet.

        Where the KMS does not apply the filter it looks once: time changes nothing, and a consented CreateKey needs it.
        """
        while patience.allows("search"):
            try:
                found = self._found(kms, creation, deadline)
            except BrokerError as error:
                if error.reason is Reason.CREATE_OUTCOME_UNKNOWN:
                    return None
                continue
            if found is not None:
                return found
        return None

    def _found(self, kms: Kms, creation: Creation, deadline: Deadline) -> ExternalKey | None:
        page = kms.list_keys(tag_key=REQUEST_TAG, tag_value=creation.tag, deadline=deadline)
        if page.total > _CANDIDATES_LOOKED_AT:
            raise _unknown()  # the KMS does not apply the filter, and no list of everything is gone through
        fitting = [key for key_id in page.key_ids if (key := self._candidate(kms, creation, key_id, deadline))]
        return min(fitting, key=lambda key: (str(key.created_at), key.name.key_id), default=None)

    def _candidate(self, kms: Kms, creation: Creation, key_id: str, deadline: Deadline) -> ExternalKey | None:
        if kms.list_resource_tags(key_id, deadline=deadline).get(REQUEST_TAG) != creation.tag:
            return None
        key = self._keys.describe(kms, KeyReference(key_id), deadline=deadline)
        return key if fits(key, creation, dkms_instance_id=kms.dkms_instance_id, now=self._clock.now()) else None


def fits(key: ExternalKey, creation: Creation, *, dkms_instance_id: str, now: datetime) -> bool:
    """Whether a CMK that carries the creation's tag can be what its CreateKey made. A tag can be copied by others.

    Its age by the KMS's clock is compared with the request's by the broker's: that one may be wrong, if it is steadily.
    """
    in_time = True
    if creation.first_sent_at is not None and key.created_at is not None and key.as_of is not None:
        in_time = key.as_of - key.created_at <= now - creation.first_sent_at + _CLOCK_TOLERANCE
    return (
        in_time
        and key.origin == ORIGIN_EXTERNAL
        and key.spec == creation.spec
        and key.dkms_instance_id == dkms_instance_id
    )


def _creation(attempt: Attempt) -> Creation:
    if attempt.creation is None:
        raise ValueError("only a request for a new CMK creates one")
    return attempt.creation


def _one_more(attempt: Attempt, now: datetime) -> Attempt:
    creation = _creation(attempt)
    sent_at = creation.first_sent_at if creation.sends else now
    return replace(
        attempt,
        state=State.CREATING,
        creation=replace(creation, sends=creation.sends + 1, first_sent_at=sent_at),
        failure=None,
    )


def _one_less(attempt: Attempt, error: BrokerError) -> Attempt:
    creation = replace(_creation(attempt), sends=_creation(attempt).sends - 1)
    state = State.CREATING if creation.sends else State.RELEASED
    return replace(attempt, state=state, creation=creation, failure=failure_of(error))


def _may_try_again(error: BrokerError, tries: int, patience: Patience) -> bool:
    """Whether another CreateKey makes sense in this call, the last one having done nothing; waits before it."""
    in_vain = error.reason is Reason.AUDIT_UNAVAILABLE or (isinstance(error, KmsError) and error.fails_fast)
    if in_vain or not REASONS[error.reason].retryable or tries >= MAX_TRIES:
        return False
    return patience.allows("create", at_least_seconds=error.retry_after_seconds or 0.0)


def _to_come_again(error: BrokerError) -> None:
    """Gives an error that passes a time to come again."""
    if REASONS[error.reason].retryable and error.retry_after_seconds is None:
        error.retry_after_seconds = _COME_AGAIN_SECONDS


def _signs_anew(error: BrokerError) -> bool:
    return isinstance(error, KmsError) and error.signs_anew


def _unknown(lost: KmsError | None = None) -> BrokerError:
    return BrokerError(
        Reason.CREATE_OUTCOME_UNKNOWN,
        "CreateKey was sent, no answer settled whether there is a new CMK, and none was found by its tag.",
        metadata=lost.metadata if lost else {},
    )

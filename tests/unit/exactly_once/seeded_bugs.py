"""Bugs to plant: each rule of the import protocol taken away, and what a broker would do without the protocol.

A bug is a context manager under which the site is built and run.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import patch

from keybroker.adapters.ledger import restores, schema, sqlite
from keybroker.domain import import_protocol as protocol
from keybroker.domain.attempt import Attempt, Failure, State
from keybroker.domain.errors import BrokerError, KmsError
from keybroker.domain.external_key import CmkName, ExternalKey, KeyReference
from keybroker.domain.import_protocol import Means, Seen, Sight, Step, claimed
from keybroker.ports import Kms
from keybroker.usecases import carry_on, create_safely
from keybroker.usecases.answers import Answer
from keybroker.usecases.carry_on import CarryOn
from keybroker.usecases.create_safely import CreateSafely
from keybroker.usecases.embargo import Embargo
from keybroker.usecases.import_external_key import ImportExternalKey
from keybroker.usecases.rows import Change, Rows
from keybroker.usecases.settling import Settling
from keybroker.usecases.take_cmk import TakeCmk

Bug = Callable[[], AbstractContextManager[object]]


def resend_not_counted() -> AbstractContextManager[object]:
    """R1: the identical resend leaves unrecorded."""
    return patch.object(protocol, "resent", lambda attempt: attempt)


def refusals_judged_in_memory() -> AbstractContextManager[object]:
    """R1: a process counts its own sends, and writes over what others have counted."""

    def learn(self: Rows, name: str, attempt: Attempt, change: Change) -> Attempt:
        now = self._again(attempt)
        if now.state is not State.PREPARED:
            return now
        return self.write(name, replace(change(attempt), version=now.version))

    return patch.object(Rows, "learn", learn)


def _taken_for_refusals(codes: set[str]) -> AbstractContextManager[object]:
    original = CarryOn._not_accepted

    def not_accepted(self: CarryOn, course: Any, error: BrokerError) -> None:  # private there
        if isinstance(error, KmsError) and error.kms_code in codes:
            error.committed_nothing = True
        original(self, course, error)

    return patch.object(CarryOn, "_not_accepted", not_accepted)


def server_error_is_refusal() -> AbstractContextManager[object]:
    """R2: a 500 is taken for the proof that nothing was done."""
    return _taken_for_refusals({"InternalFailure"})


def nonce_used_is_refusal() -> AbstractContextManager[object]:
    """R2: so is the answer to a request that arrived twice."""
    return _taken_for_refusals({"SignatureNonceUsed"})


def told_before_recorded() -> AbstractContextManager[object]:
    """R3: the terminal state is written after the answer, with the next request."""
    later: dict[int, list[Attempt]] = {}
    find = Rows.find

    def finish(self: Rows, name: str, attempt: Attempt) -> Attempt:  # as there
        later.setdefault(id(self), []).append(attempt)
        return attempt

    def find_later(self: Rows, caller: str, request_id: str, *, digest: bytes) -> Attempt | None:
        for attempt in later.pop(id(self), []):
            self.write("finish", attempt)
        return find(self, caller, request_id, digest=digest)

    return _all(patch.object(Rows, "finish", finish), patch.object(Rows, "find", find_later))


def loser_tells_its_own() -> AbstractContextManager[object]:
    """R3: who loses the write tells what it wanted to write."""

    def finish(self: Rows, name: str, attempt: Attempt) -> Attempt:
        try:
            return self.write(name, attempt)
        except BrokerError:
            return attempt

    return patch.object(Rows, "finish", finish)


def failure_keeps_the_cmk() -> AbstractContextManager[object]:
    """R4: a request that ended NOT_IMPORTED holds its CMK for ever."""
    holds = schema.HOLDS.replace("'NOT_IMPORTED', ", "")
    return _all(
        patch.object(schema, "CREATE", schema.CREATE.replace(schema.HOLDS, holds)),
        patch.object(sqlite, "_HOLDING", sqlite._HOLDING.replace(schema.HOLDS, holds)),
    )


def failure_frees_the_request_id() -> AbstractContextManager[object]:
    """R4: a request that ended NOT_IMPORTED may start over."""

    def not_imported(attempt: Attempt, failure: Failure) -> Attempt:
        return protocol.released(attempt, failure)

    return patch.object(protocol, "not_imported", not_imported)


def pair_before_claim() -> AbstractContextManager[object]:
    """R5: import parameters are fetched, then the CMK is claimed."""
    original = ImportExternalKey._begin

    def begin(self: ImportExternalKey, wish: Any, row: Attempt, key: ExternalKey) -> Answer:
        self._obtain.obtain(wish.kms, key.name, wish.algorithm, deadline=wish.deadline)
        return original(self, wish, row, key)

    return patch.object(ImportExternalKey, "_begin", begin)


def hand_out_beside_claims() -> AbstractContextManager[object]:
    """R5: GetImportParameters does not look who holds the CMK."""
    return patch.object(TakeCmk, "check", TakeCmk.check_own)


def _deciding(otherwise: Callable[[Attempt, Seen, Means], Step | None]) -> AbstractContextManager[object]:
    def decide(attempt: Attempt, seen: Seen, means: Means) -> Step:
        return otherwise(attempt, seen, means) or protocol.decide(attempt, seen, means)

    return patch.object(carry_on, "decide", decide)


def rewrap_beside_open_send() -> AbstractContextManager[object]:
    """R6: PendingImport is enough to wrap the same material again under a new pair."""

    def otherwise(attempt: Attempt, seen: Seen, means: Means) -> Step | None:
        rewrap = attempt.state is State.PREPARED and means.material and means.may_rewrap
        return Step.REWRAP if rewrap and seen.sight is not Sight.BOUND else None

    return _deciding(otherwise)


def one_look_settles() -> AbstractContextManager[object]:
    """R7: one DescribeKey after the expiry is enough."""

    def observe(self: Settling, what: object, sight: Sight, at: datetime | None, *, expired: bool) -> bool:
        return expired and sight in {Sight.PENDING, Sight.GONE}

    return patch.object(Settling, "observe", observe)


def no_margin() -> AbstractContextManager[object]:
    """R7: nothing commits after its token's expiry."""
    return patch.object(protocol, "LATE_COMMIT", timedelta())


def expiry_by_the_local_clock() -> AbstractContextManager[object]:
    """R7: tokens are taken to expire by the broker's clock."""
    look, is_expired = CarryOn._look, protocol.is_expired
    local: list[datetime] = []

    def local_look(self: CarryOn, course: Any) -> None:
        local[:] = [self._clock.now()]
        look(self, course)

    return _all(
        patch.object(CarryOn, "_look", local_look),
        patch.object(protocol, "is_expired", lambda attempt, _: is_expired(attempt, local[0])),
    )


def restore_not_recognised() -> AbstractContextManager[object]:
    """R8: the mark is not looked at."""
    return patch.object(restores, "is_restored", lambda *_: False)


def no_embargo() -> AbstractContextManager[object]:
    """R8: after a restore CMKs are taken as if nothing had been under way."""
    return patch.object(Embargo, "concerns", lambda *_: False)


def restored_rows_not_marked() -> AbstractContextManager[object]:
    """R8: after a restore the counts of the rows are believed."""
    return patch.object(restores, "_mark_row", lambda *_: None)


def regenerated_on_time_out() -> AbstractContextManager[object]:
    """A repeat of a request whose outcome is unknown makes new material."""
    original = ImportExternalKey._resume

    def resume(self: ImportExternalKey, wish: Any, row: Attempt, cmk: CmkName) -> Answer:
        if row.state is not State.PREPARED:
            return original(self, wish, row, cmk)
        key = self._keys.describe(wish.kms, KeyReference(cmk.key_id), deadline=wish.deadline)
        return self._import(wish, self._rows.write("claim", claimed(row, cmk, first=False)), key)

    return patch.object(ImportExternalKey, "_resume", resume)


def enabled_is_success() -> AbstractContextManager[object]:
    """A CMK that is Enabled after a lost answer is told as IMPORTED."""

    def otherwise(attempt: Attempt, seen: Seen, means: Means) -> Step | None:
        adopt = attempt.state is State.PREPARED and seen.sight is Sight.BOUND
        return Step.FINISH_ACCEPTED if adopt else None

    return _deciding(otherwise)


def adopted_unverified() -> AbstractContextManager[object]:
    """What a list by tag shows is adopted, without a look at its tags."""

    def candidate(self: CreateSafely, kms: Kms, creation: object, key_id: str, deadline: Any) -> ExternalKey:
        return self._keys.describe(kms, KeyReference(key_id), deadline=deadline)

    return patch.object(CreateSafely, "_candidate", candidate)


def adopted_by_tag_alone() -> AbstractContextManager[object]:
    """A CMK that carries the tag is adopted whatever else it is."""
    return patch.object(create_safely, "fits", lambda *_, **__: True)


def adopted_by_alias() -> AbstractContextManager[object]:
    """After a lost CreateKey the CMK that has the alias is adopted."""
    original = CreateSafely._search

    def search(self: CreateSafely, kms: Kms, creation: Any, patience: Any, deadline: Any) -> ExternalKey | None:
        if not creation.alias:
            return original(self, kms, creation, patience, deadline)
        try:
            return self._keys.describe(kms, KeyReference(creation.alias), deadline=deadline)
        except BrokerError:
            return None

    return patch.object(CreateSafely, "_search", search)


def created_again() -> AbstractContextManager[object]:
    """After a lost CreateKey another one is sent without asking."""
    original = CreateSafely.ensure

    def ensure(self: CreateSafely, *args: Any, **kwargs: Any) -> tuple[Attempt, ExternalKey]:
        return original(self, *args, **{**kwargs, "allow_second_key": True})

    return patch.object(CreateSafely, "ensure", ensure)


BUGS: Mapping[str, Bug] = {
    bug.__name__: bug
    for bug in (
        resend_not_counted,
        refusals_judged_in_memory,
        server_error_is_refusal,
        nonce_used_is_refusal,
        told_before_recorded,
        loser_tells_its_own,
        failure_keeps_the_cmk,
        failure_frees_the_request_id,
        pair_before_claim,
        hand_out_beside_claims,
        rewrap_beside_open_send,
        one_look_settles,
        no_margin,
        expiry_by_the_local_clock,
        restore_not_recognised,
        no_embargo,
        restored_rows_not_marked,
        regenerated_on_time_out,
        enabled_is_success,
        adopted_unverified,
        adopted_by_tag_alone,
        adopted_by_alias,
        created_again,
    )
}


@contextmanager
def _all(*patches: AbstractContextManager[object]) -> Iterator[None]:
    with ExitStack() as stack:
        for each in patches:
            stack.enter_context(each)
        yield

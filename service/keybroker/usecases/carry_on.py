"""Carries an attempt on, from wherever it stands, by the decision table.

For the call that made it, for a repeat of that call after a crash, and for the recovery in the background. One step at
a time; each is recorded before it is taken.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from keybroker.domain import import_protocol as protocol
from keybroker.domain.attempt import UNFINISHED, Attempt, Evidence, Failure, Kind, State
from keybroker.domain.audit import before_resend
from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import BrokerError, KmsError, Reason
from keybroker.domain.external_key import CmkName, ExternalKey, KeyReference, check_importable
from keybroker.domain.import_parameters import ImportParameters
from keybroker.domain.import_protocol import BOND_REFUSALS, SIGHTS, Means, Seen, Sight, Step, Wrapped, decide
from keybroker.domain.key_material import KeyMaterial
from keybroker.ports import Clock, Kms
from keybroker.usecases.answers import failure_of, unresolved
from keybroker.usecases.embargo import TOKEN_LIFE
from keybroker.usecases.keys import Keys
from keybroker.usecases.obtain_import_parameters import ObtainImportParameters
from keybroker.usecases.patience import Patience
from keybroker.usecases.proof import Proof, Prover
from keybroker.usecases.rows import Rows
from keybroker.usecases.settling import Settling, settling_key

TIME_TO_SEND_SECONDS = 0.25
_MOST_RESENDS = 5  # in one call; the recovery goes on
_NO_DATE = datetime.min.replace(tzinfo=UTC)
_WAITED_FOR = frozenset({Step.LOOK, Step.RESEND})
_FINISHES = {
    Step.FINISH_ACCEPTED: Evidence.ACCEPTED,
    Step.FINISH_SOLE_IMPORTER: Evidence.SOLE_IMPORTER,
}


@dataclass(slots=True)
class Hand:
    """What this process holds of an attempt beside its row. `pair` is what it was wrapped under last."""

    wrapped: Wrapped | None = None
    material: KeyMaterial | None = None
    pair: ImportParameters | None = None
    rewrapped: bool = False
    proof: Proof | None = None


@dataclass(slots=True)
class _Course:
    """One run over one row."""

    kms: Kms
    attempt: Attempt
    hand: Hand
    patience: Patience
    deadline: Deadline
    seen: Seen = Seen()  # noqa: RUF009  # frozen
    key: ExternalKey | None = None
    retry_after_seconds: float = 0.0
    resends: int = 0
    looked_instead: bool = False
    signed_anew: bool = False
    come_again_seconds: float = 0.0
    material_id: str = field(init=False)
    in_vain: set[Step] = field(default_factory=set)  # what the broker itself does not send for now

    def hears(self, error: BrokerError, step: Step) -> None:
        """What an error says of when to try again."""
        self.retry_after_seconds = error.retry_after_seconds or 0.0
        if isinstance(error, KmsError) and error.fails_fast:
            self.in_vain.add(step)
            self.come_again_seconds = self.retry_after_seconds

    def __post_init__(self) -> None:
        self.material_id = self.attempt.material_id

    @property
    def is_ours(self) -> bool:
        """Whether the row is unfinished and still of the material in hand: another process may have begun anew."""
        return self.attempt.state in UNFINISHED and self.attempt.material_id == self.material_id

    @property
    def cmk(self) -> CmkName:
        if self.attempt.cmk is None:
            raise ValueError("an attempt has a CMK from CLAIMED on")
        return self.attempt.cmk


class CarryOn:
    """The protocol, step by step. See the module."""

    def __init__(  # noqa: PLR0913  # what the steps need
        self,
        *,
        rows: Rows,
        keys: Keys,
        obtain: ObtainImportParameters,
        prover: Prover,
        settling: Settling,
        clock: Clock,
        sole_importer: bool,
        receipt: Callable[[Attempt], str],
    ) -> None:
        self._rows = rows
        self._keys = keys
        self._obtain = obtain
        self._prover = prover
        self._settling = settling
        self._clock = clock
        self._sole_importer = sole_importer
        self._receipt = receipt

    def first_send(self, kms: Kms, attempt: Attempt, *, hand: Hand, patience: Patience, deadline: Deadline) -> Attempt:
        """Sends what PREPARED has just recorded, and carries on. As `run`."""
        course = _Course(kms, attempt, hand, patience, deadline)
        with _told_truly(course):
            self._send(course)
        return self._until_done(course)

    def run(
        self, kms: Kms, attempt: Attempt, *, hand: Hand | None = None, patience: Patience, deadline: Deadline
    ) -> Attempt:
        """Carries on from the row. Returns it as far as it came: ended, RELEASED, or unfinished.

        Reasons: IMPORT_IN_PROGRESS (another process works on it), IMPORT_UNRESOLVED (the ledger can't be written),
        LEDGER_RECORD_UNREADABLE.
        """
        return self._until_done(_Course(kms, attempt, hand or Hand(), patience, deadline))

    def end_claim(self, attempt: Attempt) -> Attempt:
        """CLAIMED, and the CMK was seen bound: nothing was generated."""
        step = decide(attempt, Seen(Sight.BOUND), Means(after_restore=self._rows.ledger.restored() is not None))
        ended = protocol.already_bound if step is Step.FINISH_ALREADY_BOUND else protocol.unattributed
        return self._rows.finish("finish", ended(attempt))

    def _until_done(self, course: _Course) -> Attempt:
        with _told_truly(course):
            while course.is_ours and (step := self._due(course)) is not None:
                before = course.attempt
                self._take(step, course)
                if course.attempt.pair_expiries != before.pair_expiries:
                    course.seen = Seen()  # another process has wrapped again: what was seen was of other pairs
        if course.in_vain and course.attempt.state in UNFINISHED:
            why = "it is not sent again for a while"
            raise unresolved(why, {"key_id": course.cmk.key_id}, retry_after_seconds=course.come_again_seconds)
        return course.attempt

    def _due(self, course: _Course) -> Step | None:
        """The next step if there is time for it. Without time for a resend, one look: it may end without."""
        means = self._means(course)
        step = decide(course.attempt, course.seen, means)
        if step not in _WAITED_FOR or self._is_time_for(step, course):
            return step
        step = decide(course.attempt, course.seen, replace(means, may_retry=False))
        if step not in _WAITED_FOR:
            return step
        blind = step is Step.RESEND and course.seen.sight is Sight.NOTHING and not course.looked_instead
        course.looked_instead = True
        return Step.LOOK if blind and self._is_time_for(Step.LOOK, course) else None

    def _is_time_for(self, step: Step, course: _Course) -> bool:
        if step in course.in_vain or (step is Step.RESEND and course.resends == _MOST_RESENDS):
            return False
        wait = 0.0 if step is Step.LOOK and course.in_vain else course.retry_after_seconds
        return course.patience.allows(step, at_least_seconds=wait)

    def _means(self, course: _Course) -> Means:
        hand = course.hand
        return Means(
            blob=bool(course.attempt.wrapped_key_material or hand.wrapped),
            material=hand.material is not None,
            may_retry=course.patience.retries,
            may_rewrap=hand.pair is not None and not hand.rewrapped and course.patience.retries,
            may_prove=self._prover.enabled and hand.proof is None,
            disproved=hand.proof is Proof.DISPROVED,
            sole_importer=self._sole_importer and not self._rows.ledger.handed_out(course.cmk),
            awaits_caller=course.attempt.kind is Kind.IMPORT_WRAPPED,
            after_restore=self._rows.ledger.restored() is not None,
        )

    def _take(self, step: Step, course: _Course) -> None:
        match step:
            case Step.LOOK:
                self._look(course)
            case Step.RESEND:
                course.resends += 1
                course.attempt = self._rows.write("resend", protocol.resent(self._announced(course.attempt)))
                self._send(course)
            case Step.REWRAP:
                self._rewrap(course)
            case Step.PROVE:
                self._prove(course)
            case Step.RELEASE:
                course.attempt = self._rows.write("release", protocol.released(course.attempt, course.attempt.failure))
            case _:
                self._finish(step, course)

    def _announced(self, attempt: Attempt) -> Attempt:
        """A row of a time when nothing was audited is announced before its material is sent again."""
        trail = self._rows.trail
        if attempt.audit_line or not trail.is_on:
            return attempt
        return replace(attempt, audit_line=trail.before(before_resend(attempt)))

    def _look(self, course: _Course) -> None:
        try:
            key = self._keys.describe(course.kms, KeyReference(course.cmk.key_id), deadline=course.deadline)
        except BrokerError as error:
            course.hears(error, Step.LOOK)
            if error.reason is not Reason.KEY_NOT_FOUND:
                return
            sight, at = Sight.GONE, course.kms.now()
        else:
            course.key = key
            sight, at = SIGHTS[key.state], key.as_of or _NO_DATE
        course.retry_after_seconds = 0.0
        newer_pairs = self._may_have_newer_pairs(course.attempt, at)  # dates the restore at the first look
        expired = protocol.is_expired(course.attempt, at) and not newer_pairs
        settled = self._settling.observe(settling_key(course.attempt), sight, at, expired=expired)
        still_bound = sight is Sight.BOUND and course.seen.sight is Sight.BOUND
        refused = still_bound and course.seen.resend_refused
        course.seen = Seen(sight, expired, settled, resend_refused=refused, send_lost=course.seen.send_lost)

    def _may_have_newer_pairs(self, attempt: Attempt, at: datetime) -> bool:
        """R8: a restored row may have been wrapped under pairs that it does not know of."""
        restored = self._rows.ledger.restored()
        if not attempt.restored or restored is None:
            return False
        if restored.at is None and at > _NO_DATE:
            self._rows.ledger.date_restore(at)
        return restored.at is None or at <= restored.at + TOKEN_LIFE + protocol.LATE_COMMIT

    def _send(self, course: _Course) -> None:
        """The send that the row has recorded last. A reply closes its own send only (R1)."""
        wrapped = course.hand.wrapped
        attempt = course.attempt
        course.retry_after_seconds = 0.0
        course.seen = replace(course.seen, send_lost=False)
        course.deadline.is_repeating = attempt.sends > 1
        self._rows.at("send: before")
        try:
            reply = course.kms.import_key_material(
                course.cmk,
                wrapped_key_material=wrapped.wrapped_key_material if wrapped else attempt.wrapped_key_material,
                import_token=wrapped.import_token if wrapped else attempt.import_token,
                deadline=course.deadline,
            )
        except BrokerError as error:
            self._rows.at("send: refused")
            self._not_accepted(course, error)
            return
        except Exception as error:  # noqa: BLE001  # the request may be out: the send stays open
            self._rows.warn("a send failed in the broker", kind=type(error).__name__)
            course.seen = replace(course.seen, send_lost=True)
            return
        self._rows.at("send: accepted")
        self._keys.forget(course.cmk)
        if course.hand.material is not None and not self._prover.enabled:
            course.hand.material.wipe()
            course.hand.material = None
        now = self._clock.now()
        digest = wrapped.public_key_digest if wrapped else attempt.wrapping_public_key_digest
        course.attempt = self._rows.learn(
            "acceptance",
            attempt,
            lambda row: protocol.accepted(row, kms_request_id=reply.request_id, at=now, public_key_digest=digest),
        )

    def _not_accepted(self, course: _Course, error: BrokerError) -> None:
        course.hears(error, Step.RESEND)
        if isinstance(error, KmsError) and not error.committed_nothing:
            course.seen = replace(course.seen, send_lost=True)
            return  # R2: the send stays open
        failure = failure_of(error)
        course.attempt = self._rows.learn("refusal", course.attempt, lambda row: protocol.refused(row, failure))
        if isinstance(error, KmsError) and error.signs_anew and not course.signed_anew:
            self._sign_anew(course)
            return
        if error.reason in BOND_REFUSALS:
            if course.hand.pair is not None:
                self._obtain.drop(course.hand.pair)
            course.seen = replace(course.seen, resend_refused=True)

    def _sign_anew(self, course: _Course) -> None:
        """The KMS refused the credentials or the date, before it looked at anything else: once more, at once."""
        course.signed_anew = True
        if course.attempt.state is State.PREPARED and course.deadline.remaining_seconds() > TIME_TO_SEND_SECONDS:
            course.attempt = self._rows.write("resend", protocol.resent(course.attempt))
            self._send(course)

    def _rewrap(self, course: _Course) -> None:
        """The same material under a new pair: no send is open (R6)."""
        hand = course.hand
        if hand.pair is None or hand.material is None:
            raise ValueError("only material in hand can be wrapped again")
        hand.rewrapped = True
        try:
            hand.pair = self._obtain.replace(course.kms, hand.pair, deadline=course.deadline)
        except BrokerError as error:
            course.attempt = self._rows.write("release", protocol.released(course.attempt, failure_of(error)))
            return
        self._rows.at("rewrap: pair in hand")
        hand.wrapped = wrap(hand.material, hand.pair)
        course.seen = Seen()
        course.attempt = self._rows.write("rewrap", protocol.rewrapped(course.attempt, hand.wrapped))
        self._send(course)

    def _prove(self, course: _Course) -> None:
        if course.hand.material is None:
            raise ValueError("only material in hand can be proved")
        course.hand.proof = self._prover.prove(course.kms, course.cmk, course.hand.material, deadline=course.deadline)
        if course.hand.proof is Proof.PROVED:
            course.attempt = self._rows.finish("finish", self._imported(course, Evidence.PROVED))
            self._obtain.forget(course.cmk)

    def _imported(self, course: _Course, evidence: Evidence) -> Attempt:
        """The row as it ends, with its receipt: one write for both, so that a repeat gets the identical one."""
        if course.key is None:
            raise ValueError("IMPORTED needs a CMK that was seen bound")
        ended = protocol.imported(course.attempt, evidence, course.key)
        return protocol.receipted(ended, self._receipt(ended))

    def _finish(self, step: Step, course: _Course) -> None:
        attempt = course.attempt
        match step:
            case Step.FINISH_NOT_IMPORTED:
                ended = protocol.not_imported(attempt, self._why_not(course))
            case Step.FINISH_UNATTRIBUTED:
                ended = protocol.unattributed(attempt)
            case Step.FINISH_ALREADY_BOUND:
                ended = protocol.already_bound(attempt)
            case _:
                ended = self._imported(course, _FINISHES[step])
        course.attempt = self._rows.finish("finish", ended)
        if course.attempt.state is not State.NOT_IMPORTED:
            self._obtain.forget(course.cmk)

    def _why_not(self, course: _Course) -> Failure:
        attempt = course.attempt
        about = {"key_id": course.cmk.key_id}
        if course.seen.sight is Sight.GONE:
            return failure_of(BrokerError(Reason.KEY_NOT_FOUND, "The CMK has been deleted.", metadata=about))
        if attempt.open_sends or attempt.restored or attempt.failure is None:
            message = "Every import token has expired, and the CMK is still without key material."
            return failure_of(BrokerError(Reason.NOT_IMPORTED, message, metadata=about))
        return self._explained(course, attempt.failure)

    def _explained(self, course: _Course, failure: Failure) -> Failure:
        """The reason to tell after a refusal: the CMK's state if that is in the way, otherwise the refusal.

        Costs one read, and only where the refusal can be about the CMK's state.
        """
        if failure.reason not in {Reason.WRAPPED_KEY_MATERIAL_REFUSED, Reason.KEY_STATE_CONFLICT}:
            return failure
        metadata = dict(failure.metadata) | {"key_id": course.cmk.key_id}
        shown = "what the CMK has could not be seen"
        with suppress(BrokerError):  # without a sight the refusal is all that is known
            key = self._keys.describe(course.kms, KeyReference(course.cmk.key_id), deadline=course.deadline)
            shown = "shows the CMK without any"
            obstacle = _obstacle(key, course.kms)
            if obstacle is not None:
                return failure_of(BrokerError(obstacle.reason, obstacle.message, metadata=metadata | obstacle.metadata))
        if failure.reason != Reason.WRAPPED_KEY_MATERIAL_REFUSED:
            return failure
        if course.attempt.kind is Kind.IMPORT_WRAPPED:
            return replace(failure, metadata=tuple(sorted((metadata | {"field": "wrapped_key_material"}).items())))
        message = f"The KMS refused material that the broker generated and wrapped, and {shown}."
        return failure_of(BrokerError(Reason.GENERATED_MATERIAL_REFUSED, message, metadata=metadata))


def _obstacle(key: ExternalKey, kms: Kms) -> BrokerError | None:
    try:
        check_importable(key, dkms_instance_id=kms.dkms_instance_id)
    except BrokerError as obstacle:
        return obstacle
    return None


@contextmanager
def _told_truly(course: _Course) -> Iterator[None]:
    """That the ledger or the audit log can't be written does not mean that nothing was sent."""
    try:
        yield
    except BrokerError as error:
        if error.reason not in {Reason.LEDGER_UNAVAILABLE, Reason.AUDIT_UNAVAILABLE}:
            raise
        raise unresolved("the broker could not record what came of it", {"key_id": course.cmk.key_id}) from error


def wrap(material: KeyMaterial, pair: ImportParameters) -> Wrapped:
    """The material under a pair. Reasons: WRAPPING_PUBLIC_KEY_REJECTED."""
    return Wrapped(
        pair.import_token,
        material.wrap(pair),
        pair.expires_at,
        pair.algorithm.kms_name,
        pair.wrapping_public_key_digest,
    )

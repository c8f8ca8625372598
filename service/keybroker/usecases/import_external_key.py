"""The main job: a CMK gets material that was generated, wrapped and wiped here. Once, whatever is lost or repeated.

Steps of the seed: 1 create the CMK (or read an existing one), 2 obtain the import parameters, 3 generate and wrap,
4 import, then see that it is Enabled. Origin, spec, state and a vetted public key are at hand before a byte is made,
and the ledger knows of each step before it is taken.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from uuid import uuid4

from keybroker.domain.attempt import NOT_TESTED, TESTS_PASSED, UNFINISHED, Attempt, Kind, State
from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import BrokerError
from keybroker.domain.external_key import CmkName, ExternalKey, KeyReference, NewKey, check_external
from keybroker.domain.import_protocol import SIGHTS, Sight, prepared
from keybroker.domain.key_material import generate
from keybroker.domain.wrapping import WrappingAlgorithm
from keybroker.ports import Clock, EntropySource, Kms
from keybroker.usecases.answers import Answer, answer
from keybroker.usecases.asked import Asked, digest_of, new_attempt, target_parts
from keybroker.usecases.carry_on import TIME_TO_SEND_SECONDS, CarryOn, Hand, wrap
from keybroker.usecases.claims import Claims
from keybroker.usecases.create_safely import CreateSafely
from keybroker.usecases.keys import Keys
from keybroker.usecases.manage_keys import ManageKeys
from keybroker.usecases.obtain_import_parameters import ObtainImportParameters
from keybroker.usecases.patience import Patience, UntilDeadline
from keybroker.usecases.progress import Progress
from keybroker.usecases.rows import Rows
from keybroker.usecases.take_cmk import TakeCmk


@dataclass(slots=True)
class _Wish:
    """One call: what is wanted and how far it has come."""

    kms: Kms
    algorithm: WrappingAlgorithm
    progress: Progress
    patience: Patience
    deadline: Deadline


class ImportExternalKey:
    """Imports material that it generates, into an existing CMK or a new one."""

    def __init__(  # noqa: PLR0913  # the collaborators of the main job
        self,
        *,
        rows: Rows,
        keys: Keys,
        manage: ManageKeys,
        create: CreateSafely,
        take: TakeCmk,
        obtain: ObtainImportParameters,
        claims: Claims,
        carry_on: CarryOn,
        entropy: EntropySource,
        clock: Clock,
    ) -> None:
        self._rows = rows
        self._keys = keys
        self._manage = manage
        self._create = create
        self._take = take
        self._obtain = obtain
        self._claims = claims
        self._carry_on = carry_on
        self._entropy = entropy
        self._clock = clock

    def validate_existing(self, kms: Kms, reference: KeyReference, *, deadline: Deadline) -> ExternalKey:
        """Every check of `run` for an existing CMK, and no change. Reasons: as `run`, as far as they can be known."""
        self._entropy.check()
        return self._take.look(kms, reference, deadline=deadline)

    def validate_new(self, kms: Kms, new_key: NewKey, *, deadline: Deadline) -> None:
        """Every check of `run` for a CMK to create, and no change. Reasons: as above."""
        self._entropy.check()
        self._manage.check_alias_free(kms, new_key, deadline=deadline)

    def run(  # noqa: PLR0913  # the request's fields
        self,
        kms: Kms,
        asked: Asked,
        target: KeyReference | NewKey,
        algorithm: WrappingAlgorithm,
        *,
        allow_second_key: bool,
        progress: Progress,
        deadline: Deadline,
    ) -> Answer:
        """Does the whole import, or goes on with it, or tells again how it ended. Returns an IMPORTED row.

        Reasons: see ImportExternalKey in key_broker_service.proto.
        """
        digest = digest_of(Kind.IMPORT, kms, [*target_parts(target), algorithm.kms_name])
        patience = UntilDeadline(clock=self._clock, deadline=deadline, reserve_seconds=TIME_TO_SEND_SECONDS)
        wish = _Wish(kms, algorithm, progress, patience, deadline)
        with self._claims.request(asked.caller, asked.request_id, deadline=deadline):
            row = self._rows.find(asked.caller, asked.request_id, digest=digest)
            if row is not None and row.is_terminal:
                return answer(row, replayed=True)
            if row is not None and row.cmk is not None and row.state in UNFINISHED:
                return self._resume(wish, row, row.cmk)
            self._entropy.check()  # a CMK that gets no material had better not be made
            row = row or new_attempt(asked, Kind.IMPORT, kms, digest)
            if isinstance(target, NewKey):
                row, key = self._new(wish, row, target, allow_second_key=allow_second_key)
            else:
                key = self._take.look(kms, target, deadline=deadline, own=row)
            return self._begin(wish, row, key)

    def _new(
        self, wish: _Wish, row: Attempt, new_key: NewKey, *, allow_second_key: bool
    ) -> tuple[Attempt, ExternalKey]:
        if row.creation is None:
            row = self._create.wanted(row, new_key)
        row, key = self._create.ensure(
            wish.kms,
            row,
            new_key,
            allow_second_key=allow_second_key,
            before_first=lambda: self._manage.check_alias_free(wish.kms, new_key, deadline=wish.deadline),
            deadline=wish.deadline,
        )
        wish.progress.created_key_id = key.name.key_id
        check_external(key, dkms_instance_id=wish.kms.dkms_instance_id)
        self._create.give_alias(wish.kms, row, key, deadline=wish.deadline)
        self._take.check_for(row, key)
        self._take.check(wish.kms, key)
        return row, key

    def _begin(self, wish: _Wish, row: Attempt, key: ExternalKey) -> Answer:
        """From a CMK that was seen to wait for its material."""
        with self._claims.hold(key.name, deadline=wish.deadline):
            row = self._take.claim(row, key, algorithm=wish.algorithm.kms_name, entropy_source=self._entropy.name)
            return self._import(wish, row, key)

    def _resume(self, wish: _Wish, row: Attempt, cmk: CmkName) -> Answer:
        """From a row that another call, perhaps of a process that died, has left unfinished."""
        wish.progress.goes_on = True
        if row.creation is not None:
            wish.progress.created_key_id = row.creation.key_id
        with self._claims.hold(cmk, deadline=wish.deadline, waits=True):
            row = self._rows.ledger.find(row.caller, row.request_id) or row
            if row.is_terminal:
                return answer(row, replayed=True)  # the recovery was faster
            if row.state is State.CLAIMED:
                return self._reclaim(wish, row, cmk)
            if row.state in UNFINISHED:
                row = self._carry_on.run(wish.kms, row, patience=wish.patience, deadline=wish.deadline)
            return answer(row)

    def _reclaim(self, wish: _Wish, row: Attempt, cmk: CmkName) -> Answer:
        """CLAIMED: nothing was generated, and the claim is still ours."""
        key = self._keys.describe(wish.kms, KeyReference(cmk.key_id), deadline=wish.deadline)
        if SIGHTS[key.state] is Sight.BOUND:
            return answer(self._carry_on.end_claim(row))
        try:
            self._take.check_own(wish.kms, key)
        except BrokerError as error:
            self._take.let_go(row, error)
            raise
        row = self._take.announce(row, key, algorithm=wish.algorithm.kms_name, entropy_source=self._entropy.name)
        return self._import(wish, row, key)

    def _import(self, wish: _Wish, row: Attempt, key: ExternalKey) -> Answer:
        """From CLAIMED to the end. The material is wiped on every way out."""
        with ExitStack() as stack:
            try:
                hand = self._prepared_hand(wish, key, stack)
                row = self._rows.write("prepare", self._ready(wish, row, hand))
            except BaseException as error:
                self._take.let_go(row, error)
                raise
            row = self._carry_on.first_send(wish.kms, row, hand=hand, patience=wish.patience, deadline=wish.deadline)
        return answer(row)

    def _prepared_hand(self, wish: _Wish, key: ExternalKey, stack: ExitStack) -> Hand:
        """A pair, then material of the CMK's length wrapped under it."""
        spec = self._obtain.check(wish.kms, key)
        pair, wish.progress.parameters = self._obtain.obtain(wish.kms, key.name, wish.algorithm, deadline=wish.deadline)
        self._rows.at("pair: in hand")
        wish.deadline.require(TIME_TO_SEND_SECONDS, step="sending the key material")
        material = stack.enter_context(generate(spec.length_bytes, fill=self._entropy.fill))
        self._rows.at("material: generated")
        return Hand(wrap(material, pair), material, pair)

    def _ready(self, wish: _Wish, row: Attempt, hand: Hand) -> Attempt:
        if hand.wrapped is None or hand.material is None or wish.progress.parameters is None:
            raise ValueError("the hand is empty")
        return prepared(
            row,
            hand.wrapped,
            material_id=str(uuid4()),
            check_value=hand.material.check_value().value,
            parameters=wish.progress.parameters.value,
            entropy_source=self._entropy.name,
            entropy_tests=TESTS_PASSED if self._entropy.is_health_tested else NOT_TESTED,
        )

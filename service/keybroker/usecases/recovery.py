"""Finds out in the background what became of attempts that no call works on: after a lost answer, a crash, a restart.

One pass looks at every unfinished row that is due, by the same decision table as the calls. It never generates
material, fetches no pair and creates no CMK. A row is looked at again soon, then less often.
"""

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta

from keybroker.domain.attempt import UNFINISHED, Attempt, State
from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import BrokerError
from keybroker.domain.import_protocol import SETTLING, released
from keybroker.ports import Clock, Kms
from keybroker.usecases.carry_on import CarryOn
from keybroker.usecases.claims import Claims
from keybroker.usecases.create_safely import CreateSafely
from keybroker.usecases.patience import AtOnce
from keybroker.usecases.rows import Rows
from keybroker.usecases.settling import Settling, settling_key

RECOVERY_CALLER = "keybroker:recovery"
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 10.0
_STEP_SECONDS = 15.0
_CLAIM_MARGIN = timedelta(seconds=40)  # beyond what a call lives
_CREATION_IS_GIVEN_UP = timedelta(hours=24)
_PARALLEL = 4


@dataclass(frozen=True, slots=True)
class _Turn:
    version: int
    due_at: float
    pause_seconds: float


class Recovery:
    """`run_due` is called again and again, by one thread."""

    def __init__(  # noqa: PLR0913  # what it works with
        self,
        *,
        instances: Iterable[Kms],
        rows: Rows,
        claims: Claims,
        carry_on: CarryOn,
        create: CreateSafely,
        settling: Settling,
        clock: Clock,
        longest_call_seconds: float,
    ) -> None:
        self._instances = {(kms.region, kms.dkms_instance_id): kms for kms in instances}
        self._rows = rows
        self._claims = claims
        self._carry_on = carry_on
        self._create = create
        self._settling = settling
        self._clock = clock
        self._claim_is_stale = timedelta(seconds=longest_call_seconds) + _CLAIM_MARGIN
        self._lock = threading.Lock()
        self._turns: dict[str, _Turn] = {}

    def run_due(self) -> int:
        """One pass; returns how many rows were looked at. Never raises for what the KMS or the ledger does."""
        try:
            unfinished = self._rows.ledger.unfinished()
        except BrokerError as error:
            self._rows.warn("recovery can't read the ledger", reason=error.reason.value)
            return 0
        self._forget_others(unfinished)
        due = [row for row in unfinished if self._is_due(row)]
        if not due:
            return 0
        with ThreadPoolExecutor(max_workers=min(_PARALLEL, len(due)), thread_name_prefix="recovery") as pool:
            list(pool.map(self._look_at, due))
        return len(due)

    def _look_at(self, row: Attempt) -> None:
        kms = self._instances.get((row.region, row.dkms_instance_id))
        if kms is None:
            self._pause(row, row, _LONGEST_PAUSE_SECONDS)
            return
        after = row
        try:
            after = self._resolved(kms, row)
        except BrokerError as error:
            self._rows.warn("recovery goes on later", record=row.record_id, reason=error.reason.value)
        self._pause(row, after, SETTLING.total_seconds() if self._settling.is_settling(settling_key(row)) else None)

    def _resolved(self, kms: Kms, row: Attempt) -> Attempt:
        deadline = Deadline.after(_STEP_SECONDS, monotonic=self._clock.monotonic, caller=RECOVERY_CALLER)
        if row.state is State.CREATING:
            with self._claims.request(row.caller, row.request_id, deadline=deadline):
                return self._looked_for(kms, row, deadline)
        if row.cmk is None:
            return row
        with self._claims.try_hold(row.cmk) as free:
            now = self._rows.ledger.find(row.caller, row.request_id) if free else None
            if now is None or now.state not in UNFINISHED:
                return now or row
            if now.state is State.CLAIMED:
                return self._let_go(now)
            return self._carry_on.run(kms, now, patience=AtOnce(times=2), deadline=deadline)

    def _looked_for(self, kms: Kms, row: Attempt, deadline: Deadline) -> Attempt:
        now = self._rows.ledger.find(row.caller, row.request_id) or row
        if now.state is not State.CREATING or now.creation is None or now.creation.key_id:
            return now
        if now.updated_at is not None and self._clock.now() - now.updated_at > _CREATION_IS_GIVEN_UP:
            return now  # a repeat of the request looks again
        return self._create.look_once(kms, now, patience=AtOnce(times=1), deadline=deadline)

    def _let_go(self, row: Attempt) -> Attempt:
        """The process that claimed it is gone, and had generated nothing that the ledger knows of."""
        if row.updated_at is not None and abs(self._clock.now() - row.updated_at) < self._claim_is_stale:
            return row  # one from the future: the clock was set back, and would hold the CMK until it is there again
        return self._rows.write("release", released(row, row.failure))

    def _is_due(self, row: Attempt) -> bool:
        turn = self._turns.get(row.record_id)
        return turn is None or turn.version != row.version or turn.due_at <= self._clock.monotonic()

    def _pause(self, before: Attempt, after: Attempt, seconds: float | None) -> None:
        with self._lock:
            last = self._turns.get(before.record_id)
            pause = _FIRST_PAUSE_SECONDS if last is None else min(2 * last.pause_seconds, _LONGEST_PAUSE_SECONDS)
            due_at = self._clock.monotonic() + (pause if seconds is None else seconds)
            self._turns[before.record_id] = _Turn(after.version, due_at, pause)

    def _forget_others(self, unfinished: Sequence[Attempt]) -> None:
        known = {row.record_id for row in unfinished}
        with self._lock:
            self._turns = {record_id: turn for record_id, turn in self._turns.items() if record_id in known}

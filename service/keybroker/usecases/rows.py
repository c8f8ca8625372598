"""The ledger as the use cases write it, every change by name.

`at` is told before and after each write, and at a few places between: tests stop the process there. `on_finished` is
told of each row that these Rows brought to an end.
"""

from collections.abc import Callable
from typing import Protocol

from keybroker.domain.attempt import ENDS, Attempt, State
from keybroker.domain.errors import BrokerError, Reason
from keybroker.domain.external_key import CmkName
from keybroker.ports import CmkHeld, Ledger, RequestKnown, StaleVersion
from keybroker.usecases.claims import in_progress
from keybroker.usecases.trail import Trail

Change = Callable[[Attempt], Attempt]


def _nowhere(place: str) -> None:
    """Production stops nowhere."""


def _unheard(attempt: Attempt) -> None:
    """Nobody counts."""


class Warn(Protocol):
    """Tells the operator of an event, with fields that are fit for a log."""

    def __call__(self, event: str, **fields: str) -> None:
        """One event."""


def _unlogged(event: str, **fields: str) -> None:
    """Nobody reads."""


class Rows:
    """What the use cases do with the ledger. Every method can raise LEDGER_UNAVAILABLE, LEDGER_RECORD_UNREADABLE."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        at: Callable[[str], None] = _nowhere,
        on_finished: Callable[[Attempt], None] = _unheard,
        warn: Warn = _unlogged,
        trail: Trail | None = None,
    ) -> None:
        self.ledger = ledger
        self.trail = trail or Trail(outbox=ledger, log=None)
        self.at = at
        self.warn = warn
        self._on_finished = on_finished

    def find(self, caller: str, request_id: str, *, digest: bytes) -> Attempt | None:
        """The caller's row. Reasons: REQUEST_ID_REUSED."""
        row = self.ledger.find(caller, request_id)
        if row is not None and row.request_digest != digest:
            raise BrokerError(
                Reason.REQUEST_ID_REUSED, "The caller has used this request_id for a request with another content."
            )
        return row

    def check_free(self, cmk: CmkName) -> None:
        """Raises if a row holds the CMK. Reasons: IMPORT_IN_PROGRESS, KEY_MATERIAL_ALREADY_BOUND."""
        holder = self.ledger.holder(cmk)
        if holder is not None:
            raise taken(cmk, holder)

    def write(self, name: str, attempt: Attempt) -> Attempt:
        """Inserts a new row, or writes over the version that was read.

        Reasons: IMPORT_IN_PROGRESS (somebody else has changed the row, or works on the request or the CMK),
        KEY_MATERIAL_ALREADY_BOUND.
        """
        self.at(f"{name}: before")
        try:
            written = self.ledger.update(attempt) if attempt.version else self.ledger.insert(attempt)
        except CmkHeld:
            self.check_free(_cmk_of(attempt))
            raise in_progress(attempt.cmk) from None
        except (RequestKnown, StaleVersion):
            raise in_progress(attempt.cmk) from None
        self.at(f"{name}: after")
        if written.is_terminal:
            self._on_finished(written)
        if written.state in ENDS:
            self.trail.deliver()
        return written

    def learn(self, name: str, attempt: Attempt, change: Change) -> Attempt:
        """Writes what a reply taught, on whatever the row has become while it names the same material and is PREPARED.

        Returns the row as it is then; if it went on to something else meanwhile, that.
        """
        while True:
            self.at(f"{name}: before")
            try:
                written = self.ledger.update(change(attempt))
            except StaleVersion:
                now = self._again(attempt)
                if now.state is not State.PREPARED or now.material_id != attempt.material_id:
                    return now
                attempt = now
                continue
            self.at(f"{name}: after")
            return written

    def _again(self, attempt: Attempt) -> Attempt:
        now = self.ledger.find(attempt.caller, attempt.request_id)
        if now is None:
            raise BrokerError(Reason.LEDGER_RECORD_UNREADABLE, "The broker's record of this request has gone.")
        return now

    def finish(self, name: str, attempt: Attempt) -> Attempt:
        """Writes a terminal state; whoever was faster, what the row says then counts (R3)."""
        try:
            return self.write(name, attempt)
        except BrokerError as error:
            if error.reason is not Reason.IMPORT_IN_PROGRESS:
                raise
        return self._again(attempt)


def taken(cmk: CmkName, holder: Attempt) -> BrokerError:
    """What others hear of a CMK that a row holds: nothing of whose it is."""
    if holder.state in {State.IMPORTED, State.ENABLED_UNATTRIBUTED}:
        return BrokerError(
            Reason.KEY_MATERIAL_ALREADY_BOUND,
            "The CMK is Enabled: it has key material already.",
            metadata={"key_id": cmk.key_id},
        )
    return in_progress(cmk)


def _cmk_of(attempt: Attempt) -> CmkName:
    if attempt.cmk is None:
        raise ValueError("only a row with a CMK can meet one that is held")
    return attempt.cmk

"""One import per CMK at a time, in this process.

While an import of a CMK is under way, or its outcome is unresolved, nobody makes other material for it and no new
import parameters are fetched for it (design, invariant 1). An unresolved outcome keeps its claim until the import token
can no longer be used. Only the identical wrapped key material may be sent again meanwhile. The claims live in memory:
a restart forgets them.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import BrokerError, Reason
from keybroker.domain.external_key import CmkName
from keybroker.ports import Clock

_SWEEP_EVERY = timedelta(minutes=1)
_LATE_COMMIT = timedelta(minutes=5)  # a request checked just before the expiry may commit after it (rule R7)


@dataclass(slots=True)
class Claim:
    """A CMK that is taken. `until` is set while something that was sent for it may still be accepted."""

    fingerprint: bytes | None
    until: datetime | None = None

    @contextmanager
    def sending(self, *, token_expires_at: datetime) -> Iterator[None]:
        """Around one send: only an error other than IMPORT_UNRESOLVED proves that the KMS took nothing of it."""
        before = self.until
        self.until = max(before or token_expires_at, token_expires_at + _LATE_COMMIT)
        try:
            yield
        except BrokerError as error:
            if error.reason is not Reason.IMPORT_UNRESOLVED:
                self.until = before
            raise

    def settle(self) -> None:
        """Lets go at the end of the call: the CMK is Enabled, with known material."""
        self.until = None


class ImportClaims:
    """The CMKs for which an import is under way or unresolved, and those for which parameters are being fetched."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._running: dict[CmkName, Claim] = {}
        self._unresolved: dict[CmkName, Claim] = {}
        self._fetching: Counter[CmkName] = Counter()
        self._swept_at = clock.now()

    @contextmanager
    def hold(self, cmk: CmkName, *, deadline: Deadline, fingerprint: bytes | None = None) -> Iterator[Claim]:
        """Takes the CMK for one call; `fingerprint` identifies wrapped material that may be sent again.

        Waits for those who are fetching parameters: a pair that is issued later may revoke the one in use (rule R5).
        Reasons: IMPORT_IN_PROGRESS, DEADLINE_TOO_SHORT.
        """
        with self._changed:
            self._refuse(cmk, fingerprint)
            while self._fetching[cmk]:
                self._changed.wait(deadline.require(0.001, step="waiting for import parameters that are being fetched"))
                self._refuse(cmk, fingerprint)
            before = self._unresolved.pop(cmk, None)
            claim = self._running[cmk] = Claim(fingerprint, before.until if before else None)
        try:
            yield claim
        finally:
            with self._changed:
                del self._running[cmk]
                if claim.until is not None:
                    self._unresolved[cmk] = claim
                self._sweep()

    @contextmanager
    def fetching(self, cmk: CmkName) -> Iterator[None]:
        """Around getting import parameters for a caller: many at a time, and none while an import has the CMK.

        Reasons: IMPORT_IN_PROGRESS.
        """
        with self._changed:
            self._refuse(cmk, None)
            self._fetching[cmk] += 1
        try:
            yield
        finally:
            with self._changed:
                self._fetching[cmk] -= 1
                if not self._fetching[cmk]:
                    del self._fetching[cmk]
                self._changed.notify_all()

    def check_free(self, cmk: CmkName, *, fingerprint: bytes | None = None) -> None:
        """Raises if the CMK is taken, but for sending the same wrapped material again.

        Reasons: IMPORT_IN_PROGRESS.
        """
        with self._changed:
            self._refuse(cmk, fingerprint)

    def _refuse(self, cmk: CmkName, fingerprint: bytes | None) -> None:
        unresolved = self._unresolved.get(cmk)
        if unresolved is not None and _is_over(unresolved, self._clock.now()):
            unresolved = None
            del self._unresolved[cmk]
        repeated = unresolved is not None and fingerprint is not None and unresolved.fingerprint == fingerprint
        if cmk in self._running or (unresolved is not None and not repeated):
            raise BrokerError(
                Reason.IMPORT_IN_PROGRESS,
                "Another import into this CMK is "
                + ("under way." if cmk in self._running else "unresolved: its key material may be bound."),
                metadata={"key_id": cmk.key_id},
            )

    def _sweep(self) -> None:
        """Lets go of all that are over, now and then."""
        now = self._clock.now()
        if now - self._swept_at >= _SWEEP_EVERY:
            self._swept_at = now
            self._unresolved = {cmk: claim for cmk, claim in self._unresolved.items() if not _is_over(claim, now)}


def _is_over(claim: Claim, now: datetime) -> bool:
    return claim.until is not None and claim.until <= now

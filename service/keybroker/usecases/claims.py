"""One import per CMK at a time, in this process.

While an import of a CMK is under way, or its outcome is unresolved, nobody makes other material for it and no new
import parameters are fetched for it (design, invariant 1). An unresolved outcome keeps its claim until the import token
can no longer be used. Only the identical wrapped key material may be sent again meanwhile. The claims live in memory:
a restart forgets them.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from keybroker.domain.errors import BrokerError, Reason
from keybroker.domain.external_key import CmkName
from keybroker.ports import Clock

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
    """The CMKs for which an import is under way or unresolved."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._running: dict[CmkName, Claim] = {}
        self._unresolved: dict[CmkName, Claim] = {}

    @contextmanager
    def hold(self, cmk: CmkName, *, fingerprint: bytes | None = None) -> Iterator[Claim]:
        """Takes the CMK for one call; `fingerprint` identifies wrapped material that may be sent again.

        Reasons: IMPORT_IN_PROGRESS.
        """
        with self._lock:
            self._refuse(cmk, fingerprint)
            before = self._unresolved.pop(cmk, None)
            claim = self._running[cmk] = Claim(fingerprint, before.until if before else None)
        try:
            yield claim
        finally:
            with self._lock:
                del self._running[cmk]
                if claim.until is not None:
                    self._unresolved[cmk] = claim

    def check_free(self, cmk: CmkName) -> None:
        """Raises if the CMK is taken.

        Reasons: IMPORT_IN_PROGRESS.
        """
        with self._lock:
            self._refuse(cmk, None)

    def _refuse(self, cmk: CmkName, fingerprint: bytes | None) -> None:
        now = self._clock.now()
        for name in [name for name, claim in self._unresolved.items() if claim.until and claim.until <= now]:
            del self._unresolved[name]
        unresolved = self._unresolved.get(cmk)
        repeated = unresolved is not None and fingerprint is not None and unresolved.fingerprint == fingerprint
        if cmk in self._running or (unresolved is not None and not repeated):
            raise BrokerError(
                Reason.IMPORT_IN_PROGRESS,
                "Another import into this CMK is "
                + ("under way." if cmk in self._running else "unresolved: its key material may be bound."),
                metadata={"key_id": cmk.key_id},
            )

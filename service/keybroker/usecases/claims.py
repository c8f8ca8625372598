"""Who works on what in this process: one thread a request, one a CMK; parameters are fetched while nobody imports.

What outlives the process, and what other processes see, is the ledger's row. This is what a row can't do: make threads
wait for each other, and keep a fetch of import parameters and an import of the same CMK apart (rule R5, ADR 9).
"""

import threading
from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import BrokerError, Reason
from keybroker.domain.external_key import CmkName

_LONGEST_WAIT_SECONDS = 1.0


class Claims:
    """The requests and CMKs that threads of this process are at work on."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: set[Hashable] = set()
        self._fetching: Counter[CmkName] = Counter()

    @contextmanager
    def request(self, caller: str, request_id: str, *, deadline: Deadline) -> Iterator[None]:
        """Takes a request; a repeat that comes meanwhile waits. Reasons: IMPORT_IN_PROGRESS."""
        with self._holding((caller, request_id), deadline, waits=True):
            yield

    @contextmanager
    def hold(self, cmk: CmkName, *, deadline: Deadline, waits: bool = False) -> Iterator[None]:
        """Takes a CMK. Waits for those who fetch parameters for it, and if it `waits` for who else holds it.

        Reasons: IMPORT_IN_PROGRESS.
        """
        with self._holding(cmk, deadline, waits=waits):
            yield

    @contextmanager
    def try_hold(self, cmk: CmkName) -> Iterator[bool]:
        """Takes a CMK if it is free now; yields whether it was."""
        with self._changed:
            free = cmk not in self._held and not self._fetching[cmk]
            if free:
                self._held.add(cmk)
        try:
            yield free
        finally:
            if free:
                self._let_go(cmk)

    @contextmanager
    def fetching(self, cmk: CmkName) -> Iterator[None]:
        """Around getting import parameters for a caller: many at a time, none while an import has the CMK.

        Reasons: IMPORT_IN_PROGRESS.
        """
        with self._changed:
            if cmk in self._held:
                raise in_progress(cmk)
            self._fetching[cmk] += 1
        try:
            yield
        finally:
            with self._changed:
                self._fetching[cmk] -= 1
                if not self._fetching[cmk]:
                    del self._fetching[cmk]
                self._changed.notify_all()

    @contextmanager
    def _holding(self, what: Hashable, deadline: Deadline, *, waits: bool) -> Iterator[None]:
        cmk = what if isinstance(what, CmkName) else None
        with self._changed:
            while what in self._held or (cmk is not None and self._fetching[cmk]):
                left = deadline.remaining_seconds()
                if left <= 0 or (what in self._held and not waits):
                    raise in_progress(cmk)
                self._changed.wait(min(left, _LONGEST_WAIT_SECONDS))
            self._held.add(what)
        try:
            yield
        finally:
            self._let_go(what)

    def _let_go(self, what: Hashable) -> None:
        with self._changed:
            self._held.discard(what)
            self._changed.notify_all()


def in_progress(cmk: CmkName | None) -> BrokerError:
    """The answer when somebody else is at work."""
    if cmk is None:
        return BrokerError(Reason.IMPORT_IN_PROGRESS, "Another call with this request_id is being worked on.")
    return BrokerError(
        Reason.IMPORT_IN_PROGRESS,
        "Another import into this CMK is under way or unresolved: its key material may be bound.",
        metadata={"key_id": cmk.key_id},
    )

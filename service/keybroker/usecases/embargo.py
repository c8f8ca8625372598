"""After the ledger was restored from an older copy: what is not known any more stays untouched (rule R8).

No pair and no material for a CMK that existed by then until every pair of that time is expired and the CMK was seen to
settle; an Enabled one without a row is never told as somebody else's. CMKs made since are not concerned.
"""

import threading
from datetime import datetime, timedelta

from cachetools import LRUCache

from keybroker.domain.errors import BrokerError, Reason
from keybroker.domain.external_key import CmkName, ExternalKey
from keybroker.domain.import_protocol import LATE_COMMIT, SETTLING, SIGHTS, Sight
from keybroker.ports import Ledger
from keybroker.usecases.answers import unattributed_error
from keybroker.usecases.settling import Settling

TOKEN_LIFE = timedelta(hours=24)
_REMEMBERED = 100_000
_UNDATED = timedelta(minutes=5)  # until a reply of the KMS has told the time


class Embargo:
    """Asked before anything is begun for a CMK that was just described."""

    def __init__(self, *, ledger: Ledger, settling: Settling) -> None:
        self._ledger = ledger
        self._settling = settling
        self._made: LRUCache[CmkName, None] = LRUCache(maxsize=_REMEMBERED)
        self._lock = threading.Lock()

    def made(self, cmk: CmkName) -> None:
        """A CreateKey of this process has made the CMK: nothing of it can be lost with a newer ledger."""
        with self._lock:
            self._made[cmk] = None

    def concerns(self, key: ExternalKey) -> bool:
        """Whether the ledger was restored, and the CMK existed by then."""
        if self._ledger.restored() is None:
            return False
        with self._lock:
            if key.name in self._made:
                return False
        restored_at = self._restored_at(key)
        return restored_at is None or key.created_at is None or key.created_at <= restored_at

    def check(self, key: ExternalKey) -> None:
        """Raises for a CMK of which something may be under way. Reasons: LEDGER_RESTORED, ENABLED_UNATTRIBUTED."""
        if not self.concerns(key):
            return
        if SIGHTS[key.state] is Sight.BOUND:
            raise unattributed_error({"key_id": key.name.key_id})
        over, wait = self._over(key)
        if self._settling.observe(key.name, SIGHTS[key.state], key.as_of, expired=over):
            return
        raise BrokerError(
            Reason.LEDGER_RESTORED,
            "The broker's ledger is an older copy: what was sent for this CMK before is not known.",
            metadata={"key_id": key.name.key_id},
            retry_after_seconds=wait.total_seconds(),
        )

    def _over(self, key: ExternalKey) -> tuple[bool, timedelta]:
        """Whether every pair of before is expired, by the Date of this sight; and how long to wait at least."""
        restored_at = self._restored_at(key)
        if key.as_of is None or restored_at is None:
            return False, _UNDATED
        ends_at = restored_at + TOKEN_LIFE + LATE_COMMIT
        return key.as_of > ends_at, max(timedelta(0), ends_at - key.as_of) + SETTLING

    def _restored_at(self, key: ExternalKey) -> datetime | None:
        restored = self._ledger.restored()
        if restored is None:
            return None
        if restored.at is not None:
            return restored.at
        if key.as_of is not None:
            self._ledger.date_restore(key.as_of)
        return key.as_of

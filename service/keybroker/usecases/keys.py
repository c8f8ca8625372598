"""Reads CMKs, and remembers what was last seen of each.

The memory is for those who only want import parameters: a state that was seen a moment ago saves them a read. Before
key material is sent the state is always read anew. A sighting counts for every configured instance: it hangs on region
and key id.
"""

import threading
from dataclasses import dataclass
from datetime import datetime

from cachetools import LRUCache

from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import BrokerError, Reason
from keybroker.domain.external_key import CmkName, ExternalKey, KeyReference
from keybroker.ports import Clock, Kms
from keybroker.usecases.single_flight import SingleFlight

RECENT_SECONDS = 60.0
_REMEMBERED_KEYS = 10_000


@dataclass(frozen=True, slots=True)
class _Sighting:
    key: ExternalKey
    at: float


class Keys:
    """The CMKs of all configured instances, as seen through this process."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: LRUCache[tuple[str, str], _Sighting] = LRUCache(maxsize=_REMEMBERED_KEYS)
        self._flights: SingleFlight[ExternalKey] = SingleFlight()
        self._newest_date: datetime | None = None

    def describe(self, kms: Kms, reference: KeyReference, *, deadline: Deadline) -> ExternalKey:
        """Reads the CMK from the KMS.

        Reasons: KEY_NOT_FOUND (also for an ARN whose account is not the CMK's), the KMS_… reasons.
        """
        key = kms.describe_key(reference.key_id, deadline=deadline)
        if reference.account and reference.account != key.name.account:
            raise BrokerError(Reason.KEY_NOT_FOUND, "No CMK has this ARN: the account is another.")
        self.saw(key)
        return key

    def describe_recent(self, kms: Kms, reference: KeyReference, *, deadline: Deadline) -> ExternalKey:
        """What was seen of the CMK in the last RECENT_SECONDS, or one read shared by all who ask at this moment."""
        seen = self._sighting(kms, reference)
        if seen is not None and self._clock.monotonic() - seen.at <= RECENT_SECONDS:
            return seen.key
        return self._flights.run(
            (kms.name, reference), lambda: self.describe(kms, reference, deadline=deadline), deadline=deadline
        )

    @property
    def newest_date(self) -> datetime | None:
        """The newest Date of a description that this process has had: the only clock by which records expire."""
        with self._lock:
            return self._newest_date

    def saw(self, key: ExternalKey) -> None:
        """Remembers what the KMS said of a CMK."""
        with self._lock:
            if key.as_of is not None:
                self._newest_date = max(key.as_of, self._newest_date or key.as_of)
            self._seen[key.name.region, key.name.key_id] = _Sighting(key, self._clock.monotonic())

    def forget(self, cmk: CmkName) -> None:
        """Forgets the CMK: its state has changed or may have."""
        with self._lock:
            self._seen.pop((cmk.region, cmk.key_id), None)

    def _sighting(self, kms: Kms, reference: KeyReference) -> _Sighting | None:
        with self._lock:
            seen = self._seen.get((kms.region, reference.key_id))
        if seen is None or (reference.account and reference.account != seen.key.name.account):
            return None
        return seen

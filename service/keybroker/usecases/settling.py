"""Whether a CMK that shows nothing bound will show nothing bound for ever (rule R7).

Once every pair is known to be expired, by the KMS's Date, two more DescribeKeys at least SETTLING apart have to agree.
What was seen lives in this process only: one that dies starts to count anew.
"""

import threading
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime

from cachetools import LRUCache

from keybroker.domain.attempt import Attempt
from keybroker.domain.import_protocol import SETTLING, Sight

_REMEMBERED = 100_000


@dataclass(frozen=True, slots=True)
class _Course:
    sight: Sight
    first_seen_at: datetime | None  # None: the expiry was only learnt with the last reply


class Settling:
    """What the last DescribeKeys of expired attempts showed; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._courses: LRUCache[Hashable, _Course] = LRUCache(maxsize=_REMEMBERED)

    def observe(self, what: Hashable, sight: Sight, at: datetime | None, *, expired: bool) -> bool:
        """Takes note of one DescribeKey, whose Date was `at`; returns whether the sight is settled."""
        with self._lock:
            course = self._courses.get(what)
            if not expired or at is None or sight not in {Sight.PENDING, Sight.GONE}:
                self._courses.pop(what, None)
                return False
            if course is None or course.sight is not sight:
                self._courses[what] = _Course(sight, None)
                return False
            if course.first_seen_at is None:
                self._courses[what] = _Course(sight, at)
                return False
            return at - course.first_seen_at >= SETTLING

    def is_settling(self, what: Hashable) -> bool:
        """Whether the first of the two was seen, so that the second is worth a look after SETTLING only."""
        with self._lock:
            course = self._courses.get(what)
            return course is not None and course.first_seen_at is not None


def settling_key(attempt: Attempt) -> Hashable:
    """What `observe` is told of: the row, with the pairs whose expiry counts."""
    return attempt.record_id, attempt.pair_expiries

"""Request quotas of the shared gateway: per account, region and class of operations, per second.

An emulator is one account in one region, so one counter per class is enough. Source: contract section 5.
"""

import math
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, get_args

from kms_emulator.errors import KmsError
from kms_emulator.standing import Standing

QuotaMode = Literal["off", "fixed", "sliding"]


@dataclass(frozen=True, slots=True)
class QuotaClass:
    """Operations that share one limit; the operations name their class."""

    name: str
    limit_per_second: int
    standing: Standing = Standing.DOCUMENTED


QUOTA_TABLE = (
    QuotaClass("create", 10),
    QuotaClass("read", 50),
    QuotaClass("write", 30),
    QuotaClass("crypto", 1000),
    QuotaClass("resource-tags", 300),
)


class Quotas:
    """Counts admitted requests in one-second windows; a refused request does not count.

    `fixed` windows start at whole seconds of the emulator's clock; a `sliding` window is the last second. Which of
    the two the service has is not documented.
    """

    def __init__(self, mode: QuotaMode = "off", limits: Mapping[str, int] | None = None) -> None:
        self._lock = threading.Lock()
        self._limits = {row.name: row.limit_per_second for row in QUOTA_TABLE}
        self._admitted: dict[str, deque[datetime]] = {row.name: deque() for row in QUOTA_TABLE}
        self._mode: QuotaMode = "off"
        self.configure(mode=mode, limits=limits or {})

    @property
    def mode(self) -> QuotaMode:
        """`off`, `fixed` or `sliding`."""
        return self._mode

    @property
    def limits(self) -> dict[str, int]:
        """Requests per second by class."""
        with self._lock:
            return dict(self._limits)

    def configure(self, *, mode: QuotaMode | None = None, limits: Mapping[str, int] | None = None) -> None:
        """Change the mode, some limits or both; ValueError for an unknown mode or class or a limit below 1."""
        if mode is not None and mode not in get_args(QuotaMode):
            raise ValueError(f"quota mode must be one of {', '.join(get_args(QuotaMode))}")
        if limits is not None and not isinstance(limits, Mapping):
            raise TypeError("limits must map quota classes to numbers")
        for name, limit in (limits or {}).items():
            if name not in self._limits:
                raise ValueError(f"unknown quota class: {name}")
            if type(limit) is not int or limit < 1:
                raise ValueError(f"limit of {name} must be an integer of at least 1")
        with self._lock:
            self._mode = mode or self._mode
            self._limits.update(limits or {})

    def admit(self, quota_class: str, now: datetime) -> None:
        """Count one request; 429 Rejected.Throttling with the milliseconds to wait when the window is full."""
        if self._mode == "off":
            return
        with self._lock:
            admitted = self._admitted[quota_class]
            while admitted and (self._leaves_at(admitted[0]) <= now or admitted[0] > now):
                admitted.popleft()
            if len(admitted) >= self._limits[quota_class]:
                wait = self._leaves_at(admitted[0]) - now
                raise KmsError("Rejected.Throttling", retry_after_ms=math.ceil(wait / timedelta(milliseconds=1)))
            admitted.append(now)

    def _leaves_at(self, admitted_at: datetime) -> datetime:
        """When a request admitted then stops counting."""
        start = admitted_at.replace(microsecond=0) if self._mode == "fixed" else admitted_at
        return start + timedelta(seconds=1)

"""Calls a minute for each rule and caller, by a moving window of the `limits` library, in memory."""

import time

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from keybroker.domain.policy import Rule


class MovingWindow:
    """rpc.access.RateLimit in this process."""

    def __init__(self) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def wait_seconds(self, rule: Rule, caller: str) -> float:
        """Counts one call and returns 0.0; or how long to wait, if the calls of the last 60 seconds are used up."""
        if rule.requests_per_minute is None:
            return 0.0
        item = RateLimitItemPerMinute(rule.requests_per_minute)
        if self._limiter.hit(item, rule.name, caller):
            return 0.0
        return max(0.1, self._limiter.get_window_stats(item, rule.name, caller).reset_time - time.time())

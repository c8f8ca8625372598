"""How much time a call has left, and on whose account it is spent."""

from collections.abc import Callable

from keybroker.domain.errors import BrokerError, Reason


class Deadline:
    """A point on a monotonic clock, in seconds. `caller` is who waits: the pacer is fair between callers.

    `is_repeating`: what is sent next is key material, or a CreateKey, that was sent before.
    """

    def __init__(self, at: float, *, monotonic: Callable[[], float], caller: str = "") -> None:
        self._at = at
        self._monotonic = monotonic
        self.caller = caller
        self.is_repeating = False

    @classmethod
    def after(cls, seconds: float, *, monotonic: Callable[[], float], caller: str = "") -> "Deadline":
        """The deadline `seconds` from now."""
        return cls(monotonic() + seconds, monotonic=monotonic, caller=caller)

    def remaining_seconds(self) -> float:
        """What is left; 0.0 when it has passed."""
        return max(0.0, self._at - self._monotonic())

    def overdue_seconds(self) -> float:
        """How long ago it passed; 0.0 while it has not."""
        return max(0.0, self._monotonic() - self._at)

    def require(self, seconds: float, *, step: str) -> float:
        """Returns what is left, if that is at least `seconds`.

        Reasons: DEADLINE_TOO_SHORT.
        """
        remaining = self.remaining_seconds()
        if remaining < seconds:
            raise BrokerError(Reason.DEADLINE_TOO_SHORT, f"The deadline leaves no time for: {step}.")
        return remaining

"""The course of a run: how fast it calls, when it has to end, and that it may be told to.

A signal sets a mark and nothing else: it is looked at between requests, so that none is cut and no CMK's id is lost.
"""

from keybroker.domain.deadline import Deadline
from keybroker.ports import Clock

CALLS_PER_SECOND = 5.0
REQUEST_SECONDS = 15.0
CLEAN_UP_SECONDS = 120.0
_SLICE_SECONDS = 0.5
_QUICK_LOOKS = 25  # five seconds at the pace of a run
_SLOW_LOOK_SECONDS = 1.0


class ProbeStopped(Exception):  # noqa: N818  # an end, not an error
    """No further request is sent. `why` is "interrupted" or "out_of_time"."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Course:
    """Paces requests and ends them: by `stop`, or when `seconds_budget` is used up. Cleaning up has time of its own."""

    def __init__(self, *, clock: Clock, seconds_budget: float) -> None:
        self._clock = clock
        self._deadline = Deadline.after(seconds_budget, monotonic=clock.monotonic)
        self._next_call_at = clock.monotonic()
        self._stopped = False
        self._cleaning_up = False

    def stop(self) -> None:
        """Ends the run before its next request; cleaning up goes on. For signal handlers."""
        self._stopped = True

    def begin_clean_up(self) -> None:
        """From now on `stop` is not listened to, and there are CLEAN_UP_SECONDS."""
        self._cleaning_up = True
        self._deadline = Deadline.after(CLEAN_UP_SECONDS, monotonic=self._clock.monotonic)

    def check(self) -> None:
        """Raises ProbeStopped when the run is over."""
        if self._stopped and not self._cleaning_up:
            raise ProbeStopped("interrupted")
        if self._deadline.remaining_seconds() <= 0:
            raise ProbeStopped("out_of_time")

    def take_turn(self) -> Deadline:
        """Waits for the turn of the next request and gives its deadline, which the budget does not shorten."""
        self.wait(self._next_call_at - self._clock.monotonic())
        self._next_call_at = self._clock.monotonic() + 1 / CALLS_PER_SECOND
        return Deadline.after(REQUEST_SECONDS, monotonic=self._clock.monotonic)

    def wait(self, seconds: float) -> None:
        """Sleeps, unless the run is over before."""
        ends_at = self._clock.monotonic() + seconds
        self.check()
        while (left := ends_at - self._clock.monotonic()) > 0:
            self._clock.sleep(min(left, _SLICE_SECONDS))
            self.check()

    def pause_between_looks(self, looks: int) -> None:
        """For who waits for something to show: the first looks come at the pace of the run, later ones each second."""
        self.wait(0.0 if looks < _QUICK_LOOKS else _SLOW_LOOK_SECONDS)

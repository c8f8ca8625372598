"""How many turns in a quota class one call takes, so that a queue is known for as long as it is."""

from weakref import WeakSet

from keybroker.domain.deadline import Deadline

REMEMBERED_TURNS = 300


class TurnsOfACall:
    """How many turns a call takes in all: those who are ahead in a queue come back for their later ones.

    A call is known by its deadline. The mean of the last few hundred turns; `expected` until there are any.
    """

    def __init__(self, expected: float) -> None:
        self._seen: WeakSet[Deadline] = WeakSet()
        self._calls = REMEMBERED_TURNS / expected
        self._turns = float(REMEMBERED_TURNS)

    @property
    def mean(self) -> float:
        """At least 1."""
        return max(1.0, self._turns / self._calls)

    def count(self, deadline: Deadline) -> None:
        """This call has had a turn. Waiters don't count: in a crowd of newcomers each would seem to take one."""
        kept = 1 - 1 / REMEMBERED_TURNS
        self._turns = kept * self._turns + 1
        self._calls = kept * self._calls + (deadline not in self._seen)
        self._seen.add(deadline)

"""Who is next: the callers in turn, whatever each has waiting; of one caller the call whose deadline is nearest.

By deadline, because an import asks several times: one that is under way is further than those that came after it, and
by finishing it makes room. First come, first served would let all of them run out of time half done.
"""

from bisect import bisect_right, insort
from collections import OrderedDict
from threading import Event


class Waiter:
    """One request that waits. `caller` and `owner` say whose it is; `ends_at` is when it stops waiting."""

    __slots__ = ("caller", "ends_at", "event", "is_called_off", "is_granted", "owner")

    def __init__(self, *, caller: str, owner: object, ends_at: float) -> None:
        self.caller = caller
        self.owner = owner
        self.ends_at = ends_at
        self.event = Event()
        self.is_granted = False
        self.is_called_off = False

    def __lt__(self, other: "Waiter") -> bool:
        return self.ends_at < other.ends_at


class FairQueue:
    """The waiters of one quota class. Not safe for threads."""

    def __init__(self) -> None:
        self._by_caller: OrderedDict[str, list[Waiter]] = OrderedDict()  # in the order of their turns

    def __bool__(self) -> bool:
        return bool(self._by_caller)

    def __len__(self) -> int:
        return sum(map(len, self._by_caller.values()))

    def push(self, waiter: Waiter) -> None:
        """One more waits. A caller who had none waiting is the last to have a turn."""
        insort(self._by_caller.setdefault(waiter.caller, []), waiter)

    def first(self) -> Waiter | None:
        """Who is next."""
        return next(iter(self._by_caller.values()))[0] if self._by_caller else None

    def pop(self) -> Waiter:
        """Takes out who is next."""
        caller, waiting = self._by_caller.popitem(last=False)
        waiter = waiting.pop(0)
        if waiting:
            self._by_caller[caller] = waiting
        return waiter

    def remove(self, waiter: Waiter) -> None:
        """Takes out one that is in it."""
        waiting = self._by_caller[waiter.caller]
        waiting.remove(waiter)
        if not waiting:
            del self._by_caller[waiter.caller]

    def remove_all_of(self, owner: object) -> list[Waiter]:
        """Takes out every waiter of an owner."""
        found = [waiter for waiting in self._by_caller.values() for waiter in waiting if waiter.owner is owner]
        for waiter in found:
            self.remove(waiter)
        return found

    def ahead_of(self, caller: str, ends_at: float) -> int:
        """How many have their turn before a new waiter of this caller, if nobody else comes."""
        own = bisect_right(self._by_caller.get(caller, []), ends_at, key=lambda waiter: waiter.ends_at)
        others = (len(waiting) for name, waiting in self._by_caller.items() if name != caller)
        return own + sum(min(count, own + 1) for count in others)

"""The thread of the background: one piece of work that fails keeps none of the others from going on."""

import threading
from collections.abc import Callable

import pytest

from keybroker import recovery_thread
from keybroker.domain.errors import BrokerError, Reason
from keybroker.recovery_thread import RecoveryThread

WORKS = ["recovery", "audit", "prune"]
FAILURES = [RuntimeError("foreign"), BrokerError(Reason.LEDGER_UNAVAILABLE, "The ledger can't be read.")]


class Background:
    """Stands for the recovery, the trail and the pruning; `failing` raises each time."""

    def __init__(self, failing: str, failure: Exception) -> None:
        self.run_due = self._work("recovery", failing, failure)
        self.catch_up = self._work("audit", failing, failure)
        self.prune = self._work("prune", failing, failure)
        self.done: list[str] = []
        self.enough = threading.Event()

    def _work(self, name: str, failing: str, failure: Exception) -> Callable[[], None]:
        def work() -> None:
            self.done.append(name)
            if all(self.done.count(each) > 2 for each in WORKS):
                self.enough.set()
            if name == failing:
                raise failure

        return work


@pytest.mark.parametrize("failure", FAILURES, ids=["unforeseen", "told"])
@pytest.mark.parametrize("failing", WORKS)
def test_work_that_fails_each_time_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, failing: str, failure: Exception
) -> None:
    monkeypatch.setattr(recovery_thread, "_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(recovery_thread, "_PRUNE_EVERY_PASSES", 1)
    background = Background(failing, failure)
    thread = RecoveryThread(recovery=background, trail=background, prune=background.prune)  # type: ignore[arg-type]
    thread.start()
    assert background.enough.wait(10)
    thread.stop(10)
    assert background.done[-1] == "audit"  # at the stop too

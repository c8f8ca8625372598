"""Waiting between steps."""

import random

from keybroker.adapters.kms.guard import Guard
from keybroker.domain.deadline import Deadline
from keybroker.usecases.patience import UntilDeadline
from tests.builders import FakeClock


def test_jitter_leaves_the_random_numbers_of_the_process_alone() -> None:
    """Whoever seeds them would order the waits, and the broker's threads disturb whoever counts on them."""
    clock = FakeClock()
    patience = UntilDeadline(clock=clock, deadline=Deadline.after(60, monotonic=clock.monotonic), reserve_seconds=0.1)
    guard = Guard(clock=clock, pacers={}, on_retry=lambda _: None, on_circuit=lambda _: None)
    before = random.getstate()
    assert all(patience.allows("step") for _ in range(4))
    assert 0 <= guard._rng() < 1
    assert random.getstate() == before

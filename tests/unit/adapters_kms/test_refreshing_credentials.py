"""Temporary credentials kept fresh: when they are fetched, who waits, and what a failing fetch does."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import structlog

from keybroker.adapters.kms.credentials import Credentials, CredentialsError, TemporaryCredentials
from keybroker.adapters.kms.refreshing import LONGEST_BACKOFF_SECONDS, RENEW_EVERY_SECONDS, RefreshingCredentials
from keybroker.domain.deadline import Deadline
from tests.builders import FakeClock

CANARY = "canary-8Rt3"
HOUR = 3600.0


class FakeProvider:
    """Gives numbered credentials, waits for `gate`, and fails with `failure` while there is one."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.life_seconds = HOUR
        self.failure: Exception | None = None
        self.fetches = 0
        self.same = False
        self.at_once = 0
        self.most_at_once = 0
        self.gate = threading.Event()
        self.gate.set()

    def fetch(self) -> TemporaryCredentials:
        self.fetches += 1
        number = 1 if self.same else self.fetches
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.gate.wait(10)
        self.at_once -= 1
        if self.failure is not None:
            raise self.failure
        return TemporaryCredentials(numbered(number), self.clock.now() + timedelta(seconds=self.life_seconds))


def numbered(number: int) -> Credentials:
    return Credentials(f"STS.{number}", f"{CANARY}-secret-{number}", f"{CANARY}-token-{number}")


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.provider = FakeProvider(self.clock)
        self.source = RefreshingCredentials(self.provider, instance="main", clock=self.clock)

    def current(self) -> Credentials:
        return self.source(deadline=soon())

    def after_fetch(self, number: int) -> Credentials:
        """Asks, lets the fetch that this starts end, and asks again."""
        self.current()
        eventually(lambda: self.provider.fetches == number and idle())
        return self.current()

    def renewed(self, refused: Credentials) -> Credentials:
        return self.source.renewed(refused, deadline=soon())


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def logged() -> Any:
    with structlog.testing.capture_logs() as entries:
        yield entries


def soon(seconds: float = 5.0) -> Deadline:
    return Deadline.after(seconds, monotonic=time.monotonic)


def idle() -> bool:
    return not any(thread.name == "credentials-main" for thread in threading.enumerate())


def eventually(what: Callable[[], bool]) -> None:
    deadline = soon(10)
    while not what():
        assert deadline.remaining_seconds() > 0
        time.sleep(0.002)


def failure(world: World) -> str:
    with pytest.raises(CredentialsError) as caught:
        world.current()
    return caught.value.kind


def test_nothing_is_fetched_before_somebody_asks(world: World) -> None:
    assert world.provider.fetches == 0


def test_first_caller_gets_what_is_fetched_and_the_next_the_same(world: World) -> None:
    assert [world.current(), world.current()] == [numbered(1)] * 2
    assert world.source() == numbered(1)
    assert world.provider.fetches == 1


@pytest.mark.parametrize(
    ("life", "fetched_after"), [(6 * HOUR, 6 * HOUR - 900), (HOUR, HOUR - 900), (1000, 750), (8, 6)]
)
def test_fetched_again_a_quarter_of_life_but_at_most_15_minutes_ahead_of_expiry(
    world: World, life: float, fetched_after: float
) -> None:
    world.provider.life_seconds = life
    world.current()
    eventually(idle)
    world.clock.advance(fetched_after - 0.001)
    assert world.current() == numbered(1)
    assert idle()
    world.clock.advance(0.001)
    assert world.after_fetch(2) == numbered(2)


def test_nobody_waits_for_a_refresh_while_the_old_ones_are_valid(world: World) -> None:
    world.current()
    world.clock.advance(HOUR - 60)
    world.provider.gate.clear()
    try:
        assert [world.current() for _ in range(3)] == [numbered(1)] * 3
        eventually(lambda: world.provider.fetches == 2)
    finally:
        world.provider.gate.set()
    eventually(idle)
    assert world.current() == numbered(2)


@pytest.mark.parametrize("expired", [False, True], ids=["first", "expired"])
def test_fifty_callers_without_valid_credentials_share_one_fetch(world: World, expired: bool) -> None:  # noqa: FBT001
    if expired:
        world.current()
        world.clock.advance(HOUR)
    before = world.provider.fetches
    world.provider.gate.clear()
    with ThreadPoolExecutor(50) as pool:
        asking = [pool.submit(world.current) for _ in range(50)]
        time.sleep(0.1)
        world.provider.gate.set()
        assert {task.result() for task in asking} == {numbered(before + 1)}
    assert (world.provider.fetches, world.provider.most_at_once) == (before + 1, 1)


def test_caller_waits_until_its_own_deadline_and_the_fetch_goes_on(world: World) -> None:
    world.provider.gate.clear()
    started = time.monotonic()
    with pytest.raises(CredentialsError):
        world.source(deadline=soon(0.1))
    assert 0.09 < time.monotonic() - started < 2
    world.provider.gate.set()
    assert world.current() == numbered(1)
    assert world.provider.fetches == 1


def test_failing_refresh_leaves_valid_credentials_in_use_and_is_logged_once(
    world: World, logged: list[dict[str, Any]]
) -> None:
    world.current()
    world.provider.failure = CredentialsError("status 500")
    for number in range(2, 5):
        world.clock.advance(HOUR - 900 if number == 2 else LONGEST_BACKOFF_SECONDS)
        assert world.after_fetch(number) == numbered(1)
    warnings = [entry for entry in logged if entry["log_level"] == "warning"]
    assert warnings == [
        {
            "event": "kms_credentials_not_fetched",
            "log_level": "warning",
            "instance": "main",
            "failure": "status 500",
            "still_valid": True,
        }
    ]
    world.provider.failure = None
    world.clock.advance(LONGEST_BACKOFF_SECONDS)
    assert world.after_fetch(5) == numbered(5)
    assert logged[-1]["event"] == "kms_credentials_fetched"


def test_expired_credentials_are_not_given_out_while_the_fetch_fails(world: World, logged: list[Any]) -> None:
    world.current()
    world.provider.failure = CredentialsError("timeout")
    world.clock.advance(HOUR)
    assert failure(world) == "timeout"
    world.clock.advance(LONGEST_BACKOFF_SECONDS)
    assert failure(world) == "timeout"
    world.provider.failure = CredentialsError("status 400 EntityNotExist.Role")
    world.clock.advance(LONGEST_BACKOFF_SECONDS)
    assert failure(world) == "status 400 EntityNotExist.Role"
    assert [entry["failure"] for entry in logged if entry["log_level"] == "warning"] == [
        "timeout",
        "status 400 EntityNotExist.Role",
    ]
    world.provider.failure = None
    world.clock.advance(LONGEST_BACKOFF_SECONDS)
    assert world.current() == numbered(5)


def test_failures_back_off_and_those_who_ask_meanwhile_hear_at_once(world: World) -> None:
    world.provider.failure = CredentialsError("connection")
    for seconds in (1, 2, 4, 8, 16, 30, 30):
        before = world.provider.fetches
        assert failure(world) == "connection"
        assert world.provider.fetches == before + 1
        world.clock.advance(seconds - 0.001)
        assert failure(world) == "connection"
        assert world.provider.fetches == before + 1
        world.clock.advance(0.001)


def test_what_is_fetched_expired_is_a_failure(world: World) -> None:
    world.provider.life_seconds = 0
    assert failure(world) == "already expired"


def test_exception_nobody_foresaw_wakes_those_who_wait_and_keeps_its_text(world: World, logged: list[Any]) -> None:
    world.provider.failure = RuntimeError(CANARY)
    assert failure(world) == "RuntimeError"
    assert CANARY not in repr(logged)


def test_refused_credentials_are_replaced_at_once(world: World) -> None:
    refused = world.current()
    assert world.renewed(refused) == numbered(2)
    assert world.current() == numbered(2)


def test_fifty_refusals_of_the_same_credentials_cost_one_fetch(world: World) -> None:
    refused = world.current()
    with ThreadPoolExecutor(50) as pool:
        assert set(pool.map(lambda _: world.renewed(refused), range(50))) == {numbered(2)}
    assert world.provider.fetches == 2


def test_late_refusal_of_older_credentials_costs_no_fetch(world: World) -> None:
    refused = world.current()
    world.renewed(refused)
    world.clock.advance(RENEW_EVERY_SECONDS)
    assert world.renewed(refused) == numbered(2)
    assert world.provider.fetches == 2


def test_kms_that_refuses_all_it_is_sent_is_no_flood_at_the_provider(world: World) -> None:
    refused = world.renewed(world.current())
    assert [world.renewed(refused) for _ in range(20)] == [refused] * 20
    assert world.provider.fetches == 2
    world.clock.advance(RENEW_EVERY_SECONDS)
    assert world.renewed(refused) == numbered(3)


def test_renewal_that_fails_gives_back_what_was_refused(world: World) -> None:
    refused = world.current()
    world.provider.failure = CredentialsError("status 503")
    assert world.renewed(refused) == refused


def test_renewal_that_gives_the_same_is_told_as_the_same(world: World) -> None:
    world.provider.same = True
    refused = world.current()
    assert world.renewed(refused) == refused
    assert world.provider.fetches == 2


def test_renewal_waits_until_the_deadline_only(world: World) -> None:
    refused = world.current()
    world.provider.gate.clear()
    assert world.source.renewed(refused, deadline=soon(0.05)) == refused
    world.provider.gate.set()
    eventually(idle)


def test_two_sources_share_nothing() -> None:
    one, other = World(), World()
    other.provider.failure = CredentialsError("timeout")
    assert one.current() == numbered(1)
    assert failure(other) == "timeout"
    assert (one.provider.fetches, other.provider.fetches) == (1, 1)


def test_secrets_are_in_no_log_repr_or_error(world: World, logged: list[Any]) -> None:
    world.current()
    world.provider.failure = ValueError(CANARY)
    world.clock.advance(HOUR)
    with pytest.raises(CredentialsError) as caught:
        world.current()
    texts = [repr(logged), repr(world.source), repr(caught.value), repr(caught.value.__context__)]
    assert logged
    assert all(CANARY not in text for text in texts)

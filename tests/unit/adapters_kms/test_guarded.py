"""The guard over calls that fail by a script, in a fake clock's time, and the port over it."""

import inspect
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from keybroker.adapters.kms.circuit import FAILURES
from keybroker.adapters.kms.client import KmsClient
from keybroker.adapters.kms.error_table import kms_error
from keybroker.adapters.kms.failures import timed_out
from keybroker.adapters.kms.guard import RETRY_AFTER_SECONDS, Guard
from keybroker.adapters.kms.guarded import GuardedKms
from keybroker.adapters.kms.pacer import QUOTA_OF, Pacer
from keybroker.adapters.kms.retry_budget import RESERVE
from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import BrokerError, KmsError, Reason
from keybroker.domain.external_key import NewKey
from keybroker.domain.key_spec import AES_256
from keybroker.domain.retry_policy import MAX_TRIES, ONE_CALL
from keybroker.domain.wrapping import RSAES_OAEP_SHA_256
from keybroker.ports import Kms
from tests.builders import FakeClock
from tests.contract.fake_kms import FakeKms

READ, CHANGE = "DescribeKey", "CreateAlias"


def refused() -> KmsError:
    return KmsError(Reason.KMS_UNAVAILABLE, "Nobody there.", kms_code="connection", committed_nothing=True)


def throttled(seconds: float = 1.0) -> KmsError:
    return kms_error("Rejected.Throttling", 429, retry_after_seconds=seconds)


class Script:
    """A guard, and requests that fail as scripted, then succeed. Each takes `takes_seconds`."""

    def __init__(self, *failures: Exception, limit: int | None = None, takes_seconds: float = 0.0) -> None:
        self.clock = FakeClock()
        self.failures = deque(failures)
        self.takes_seconds = takes_seconds
        self.sent = 0
        self.retries: list[str] = []
        self.circuit: list[bool] = []
        self.waits: list[float] = []
        self.pacers = {"read": Pacer(limit, monotonic=self.clock.monotonic, on_wait=self.waits.append)} if limit else {}
        self.guard = Guard(
            clock=self.clock,
            pacers=self.pacers,
            on_retry=self.retries.append,
            on_circuit=self.circuit.append,
            rng=lambda: 1.0,
        )

    def send(self) -> str:
        self.sent += 1
        self.clock.advance(self.takes_seconds)
        if self.failures:
            raise self.failures.popleft()
        return "done"

    def call(self, operation: str = READ, seconds: float = 15.0) -> str:
        return self.guard.call(operation, self.send, Deadline.after(seconds, monotonic=self.clock.monotonic))

    def failure(self, operation: str = READ, seconds: float = 15.0) -> BrokerError:
        with pytest.raises(BrokerError) as caught:
            self.call(operation, seconds)
        return caught.value


def test_read_is_repeated_until_it_succeeds_with_growing_waits() -> None:
    script = Script(timed_out(), refused(), kms_error("InternalFailure", 500))
    assert script.call() == "done"
    assert script.clock.slept == pytest.approx([0.1, 0.2, 0.4])
    assert script.retries == [READ] * 3


def test_read_is_given_up_after_the_tries_of_the_table() -> None:
    script = Script(*[timed_out(), throttled()] * MAX_TRIES)
    assert script.failure().reason is Reason.KMS_UNAVAILABLE
    assert script.sent == MAX_TRIES


@pytest.mark.parametrize("operation", ["ImportKeyMaterial", "CreateKey"])
@pytest.mark.parametrize("error", [refused(), throttled(), timed_out()], ids=["refused", "throttled", "timeout"])
def test_recorded_operation_is_sent_once_whatever_happened(operation: str, error: KmsError) -> None:
    script = Script(error)
    told = error.retry_after_seconds
    assert script.failure(operation) is error
    assert (script.sent, error.retry_after_seconds) == (1, told)


def test_change_that_may_have_been_made_is_not_repeated() -> None:
    script = Script(timed_out())
    assert script.failure(CHANGE).reason is Reason.KMS_UNAVAILABLE
    assert script.sent == 1
    again = Script(throttled(), refused())
    assert again.call(CHANGE) == "done"


def test_refusal_is_not_repeated() -> None:
    script = Script(kms_error("Forbidden.KeyNotFound", 404))
    error = script.failure()
    assert (error.reason, error.retry_after_seconds, script.sent) == (Reason.KEY_NOT_FOUND, None, 1)


def test_wait_that_the_kms_asks_for_is_kept() -> None:
    script = Script(throttled(3.0))
    assert script.call() == "done"
    assert script.clock.slept == pytest.approx([3.1])


def test_wait_beyond_the_deadline_is_not_begun() -> None:
    script = Script(throttled(3.0))
    error = script.failure(seconds=3.0)
    assert (error.reason, error.retry_after_seconds) == (Reason.KMS_THROTTLED, 3.0)
    assert (script.sent, script.clock.slept) == (1, [])


def test_deadline_that_is_too_short_sends_nothing() -> None:
    script = Script()
    assert script.failure(seconds=0.01).reason is Reason.DEADLINE_TOO_SHORT
    assert script.sent == 0


def test_failure_that_passes_says_when_to_come_again() -> None:
    script = Script(timed_out(), takes_seconds=14.96)
    assert script.failure().retry_after_seconds == RETRY_AFTER_SECONDS


def test_retries_end_with_the_budget() -> None:
    script = Script(*[throttled(0.0)] * 1000)
    for _ in range(20):
        script.failure(seconds=1.0)
    assert RESERVE <= len(script.retries) <= RESERVE + 20 * 0.1 + 0.5 * sum(script.clock.slept) + 1
    assert script.sent == 20 + len(script.retries)


def test_throttled_request_that_waits_for_another_turn_needs_no_budget() -> None:
    script = Script(limit=100)
    for _ in range(10):
        script.failures.extend([throttled(0.5)] * 3)
        assert script.call() == "done"
    assert len(script.retries) == 30 > RESERVE + 10 * 0.1


def test_dead_instance_opens_the_circuit_and_costs_a_probe_now_and_then() -> None:
    script = Script(*[refused()] * 10_000)
    started = script.clock.monotonic()
    while script.clock.monotonic() < started + 60:
        error = script.failure(CHANGE)
        assert (error.reason, error.retry_after_seconds is not None) == (Reason.KMS_UNAVAILABLE, True)
        script.clock.advance(0.01)
    assert script.circuit == [True]
    assert script.sent < FAILURES + RESERVE + 60 / 2 + 5
    script.failures.clear()
    script.clock.advance(2.0)
    assert script.call() == "done"
    assert script.circuit == [True, False]


def test_open_circuit_refuses_at_once_and_sends_nothing() -> None:
    script = Script(*[timed_out()] * FAILURES)
    while not script.circuit:
        script.failure("ImportKeyMaterial")
    sent, slept = script.sent, len(script.clock.slept)
    error = script.failure()
    assert isinstance(error, KmsError)
    assert error.committed_nothing
    assert error.retry_after_seconds == pytest.approx(0.5)
    assert (script.sent, len(script.clock.slept)) == (sent, slept)


def test_open_circuit_is_told_before_a_wait_for_a_turn_and_takes_no_slot() -> None:
    script = Script(*[timed_out()] * FAILURES, limit=10)
    for _ in range(FAILURES):
        script.failure("ImportKeyMaterial")
    assert script.failure().reason is Reason.KMS_UNAVAILABLE
    assert script.waits == []


def test_one_call_alone_does_not_open_the_circuit() -> None:
    script = Script(*[kms_error("InternalFailure", 500)] * 100)
    script.failure()
    assert script.circuit == []


def test_request_that_was_never_sent_is_no_answer_and_no_failure() -> None:
    short = BrokerError(Reason.DEADLINE_TOO_SHORT, "")
    script = Script(*[refused()] * (FAILURES - 1), short, refused())
    for _ in range(FAILURES + 1):
        script.failure("ImportKeyMaterial")
    assert script.circuit == [True]


def test_each_request_takes_its_turn_the_repeated_one_too() -> None:
    script = Script(timed_out(), limit=10)
    assert script.call() == "done"
    assert len(script.waits) == 2


def test_throttling_slows_its_own_quota_class_down() -> None:
    script = Script(throttled(), throttled(), limit=10)
    before = script.pacers["read"].rate_per_second
    script.failure("ImportKeyMaterial")
    assert script.pacers["read"].rate_per_second == before
    script.failure(seconds=1.0)
    assert script.pacers["read"].rate_per_second < before


def test_full_quota_is_refused_without_sending() -> None:
    script = Script(limit=2)
    script.call()
    error = script.failure(seconds=0.2)
    assert (error.reason, script.sent) == (Reason.KMS_QUOTA_BUSY, 1)
    assert isinstance(error, KmsError)
    assert error.committed_nothing


def test_open_circuit_ends_the_waits_for_a_turn() -> None:
    script = Script(*[timed_out()] * FAILURES, limit=2)
    called_off: list[object] = []
    script.pacers["read"].call_off = called_off.append  # type: ignore[method-assign]
    for _ in range(FAILURES):
        script.failure("ImportKeyMaterial")
    assert called_off == [script.guard]


# The port


class ClosableFakeKms(FakeKms):
    closed = False

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def kms() -> ClosableFakeKms:
    return ClosableFakeKms(clock=FakeClock())


def guarded(kms: ClosableFakeKms, on_call: Callable[[str], None] = lambda operation: None) -> GuardedKms:
    clock = FakeClock()
    guard = Guard(clock=clock, pacers={}, on_retry=on_call, on_circuit=lambda is_open: None)
    return GuardedKms(kms=kms, guard=guard)


def test_port_passes_on_who_it_is_and_what_time_it_is(kms: ClosableFakeKms) -> None:
    over = guarded(kms)
    assert (over.name, over.region, over.dkms_instance_id) == (kms.name, kms.region, kms.dkms_instance_id)
    assert over.now() == kms.now()
    over.close()
    assert kms.closed


def test_port_has_every_operation_under_its_own_name(kms: ClosableFakeKms) -> None:
    """Each of the port's operations reaches the KMS's operation of that name, and the tables' row of that name."""
    over, seen = guarded(kms), list[str]()
    over._call = lambda operation, send, deadline: seen.append(operation) or send()  # type: ignore[assignment,func-returns-value]
    deadline = Deadline.after(10.0, monotonic=FakeClock().monotonic)
    key, _ = over.create_key(NewKey(AES_256, tags={"team": "a"}), deadline=deadline)
    pair = over.get_parameters_for_import(key.name, RSAES_OAEP_SHA_256, deadline=deadline)
    arguments: dict[str, Any] = {"key_id": key.name.key_id, "deadline": deadline}
    over.describe_key(**arguments)
    over.create_alias(alias="alias/a", **arguments)
    over.list_resource_tags(**arguments)
    over.list_keys(tag_key="team", deadline=deadline)
    for call in (
        lambda: over.import_key_material(
            key.name, wrapped_key_material=bytes(256), import_token=pair.import_token, deadline=deadline
        ),
        lambda: over.encrypt(plaintext=b"x", **arguments),
        lambda: over.cancel_key_deletion(**arguments),
    ):
        with pytest.raises(KmsError):
            call()
    over.schedule_key_deletion(pending_window_days=7, **arguments)
    assert set(seen) == set(ONE_CALL) == set(QUOTA_OF)
    assert seen == [operation for operation in seen if kms.calls[operation] == 1]


@pytest.mark.parametrize("name", [name for name in vars(Kms) if not name.startswith("_")])
def test_port_has_the_signatures_of_the_client(name: str) -> None:
    ours, theirs = inspect.getattr_static(GuardedKms, name), inspect.getattr_static(KmsClient, name)
    if not isinstance(ours, property):
        assert inspect.signature(ours) == inspect.signature(theirs)


def repeated(script: Script, operation: str = "ImportKeyMaterial") -> str:
    """One more recorded send of what was sent before."""
    deadline = Deadline.after(15.0, monotonic=script.clock.monotonic)
    deadline.is_repeating = True
    return script.guard.call(operation, script.send, deadline)


@pytest.mark.parametrize("operation", ["ImportKeyMaterial", "CreateKey"])
def test_recorded_sends_that_keep_failing_end_with_the_budget(operation: str) -> None:
    script = Script(*[timed_out()] * 100)
    for _ in range(20):
        with pytest.raises(KmsError) as caught:
            repeated(script, operation)
        script.guard._circuit.answered()
    assert script.sent == RESERVE == len(script.retries)
    assert (caught.value.fails_fast, caught.value.committed_nothing) == (True, True)
    assert caught.value.retry_after_seconds


def test_recorded_sends_that_succeed_cost_no_budget() -> None:
    script = Script()
    assert {repeated(script) for _ in range(50)} == {"done"}


def test_repetition_that_the_open_circuit_keeps_back_is_not_counted() -> None:
    script = Script(*[timed_out()] * 100)
    while not script.circuit:
        script.failure()
    script.retries.clear()
    sent = script.sent
    for _ in range(20):
        with pytest.raises(KmsError):
            repeated(script)
    assert (script.sent, script.retries) == (sent, [])

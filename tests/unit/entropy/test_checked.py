"""A generator's bytes are used after both tests only; a failure is told, logged once, and recovered from."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from structlog.testing import capture_logs

from keybroker.adapters.entropy.checked import CheckedEntropy
from keybroker.domain.errors import BrokerError, Reason
from tests.unit.entropy.doubles import Noise, Switched, biased, stuck

START = ["connect", 1024]


def source(generator: Noise, **changes: Any) -> CheckedEntropy:
    return CheckedEntropy(name="pkcs11", generator=generator, **changes)


def filled(entropy: CheckedEntropy, length: int = 32) -> bytes:
    buffer = bytearray(length)
    entropy.fill(memoryview(buffer))
    return bytes(buffer)


def refusal(act: Callable[[], object]) -> BrokerError:
    with pytest.raises(BrokerError) as caught:
        act()
    assert caught.value.reason is Reason.ENTROPY_UNAVAILABLE
    assert caught.value.metadata == {"entropy_source": "pkcs11"}
    return caught.value


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with capture_logs() as entries:
        yield entries


# Good noise


def test_construction_asks_nothing() -> None:
    noise = Noise()
    assert source(noise).name == "pkcs11"
    assert noise.calls == []


@pytest.mark.parametrize("length", [16, 24, 32])
def test_fill_gives_what_the_generator_wrote_into_the_buffer_at_the_end_of_a_whole_window(length: int) -> None:
    noise = Noise()
    assert filled(source(noise), length) == noise.given[-1]
    assert noise.calls == [*START, 512 - length, length]


def test_fill_of_a_whole_window_does_not_begin_one() -> None:
    noise = Noise()
    filled(source(noise), 512)
    assert noise.calls == [*START, 512, 512]


def test_second_fill_uses_the_connection_after_asking_for_the_token() -> None:
    noise = Noise()
    entropy = source(noise)
    assert filled(entropy) != filled(entropy)
    assert noise.calls == [*START, 480, 32, "check", 480, 32]


def test_check_connects_once_and_draws_nothing_more() -> None:
    noise = Noise()
    entropy = source(noise)
    entropy.check()
    entropy.check()
    assert noise.calls == [*START, "check"]


# The source fails


@pytest.mark.parametrize("what", ["connect", "read"])
def test_source_that_does_not_answer_is_told_and_comes_back(what: str, logged: list[Any]) -> None:
    noise = Noise()
    entropy = source(noise)
    noise.down = what
    for act in (entropy.check, lambda: filled(entropy), lambda: filled(entropy)):
        assert "does not answer" in refusal(act).message
    noise.down = ""
    assert filled(entropy) == noise.given[-1]
    assert [(entry["event"], entry.get("kind", "")) for entry in logged] == [
        ("entropy_source_failed", f"{what} failed"),
        ("entropy_source_ready", ""),
    ]


def test_token_that_is_taken_away_and_brought_back_is_connected_to_anew() -> None:
    noise = Noise()
    entropy = source(noise)
    filled(entropy)
    noise.calls.clear()
    noise.down = "check"
    assert filled(entropy) == noise.given[-1]  # the session was stale, the token is there
    assert noise.calls == ["check", *START, 480, 32]


@pytest.mark.parametrize("what", ["check", "read"])
def test_connection_that_is_lost_while_idle_costs_no_call(what: str) -> None:
    class Once(Noise):
        def _fail(self, step: str) -> None:
            try:
                super()._fail(step)
            finally:
                if step == self.down:
                    self.down = ""

    noise = Once()
    entropy = source(noise)
    filled(entropy)
    noise.down = what
    assert filled(entropy) == noise.given[-1]


def test_failed_source_is_disconnected() -> None:
    noise = Noise()
    noise.down = "read"
    refusal(source(noise).check)
    assert noise.calls == [*START, "disconnect"]


# A test fails


@pytest.mark.parametrize("broken", [stuck, biased])
def test_generator_that_breaks_at_work_gives_no_key(broken: Callable[[Random], Iterator[int]]) -> None:
    noise = Switched()
    entropy = source(noise)
    filled(entropy)
    noise.broken = broken
    refused = 0
    for _ in range(20):
        try:
            filled(entropy)
        except BrokerError:
            refused += 1
    assert refused >= (20 if broken is stuck else 10)  # a biased one is latched once found, and found again at start-up


def test_stuck_generator_is_told_by_the_test_that_found_it(logged: list[Any]) -> None:
    noise = Switched()
    noise.broken = stuck
    error = refusal(lambda: filled(source(noise)))
    assert "failed its repetition count test" in error.message
    assert [(entry["event"], entry["kind"]) for entry in logged] == [("entropy_source_failed", "repetition count test")]


def test_key_bytes_are_judged_too() -> None:
    """All that surrounds the key is good noise: what is wrong is in the buffer itself."""

    class BadKeys(Noise):
        def some(self, length: int) -> bytes:
            return bytes(length) if length == 32 else super().some(length)

    entropy = source(BadKeys())
    assert "repetition count" in refusal(lambda: filled(entropy)).message


def test_failed_test_is_not_tried_again_in_the_same_call() -> None:
    noise = Switched()
    entropy = source(noise)
    filled(entropy)
    noise.calls.clear()
    noise.broken = stuck
    refusal(lambda: filled(entropy))
    assert noise.calls == ["check", 480, 32, "disconnect"]


def test_failed_test_holds_until_a_start_up_test_passes() -> None:
    noise = Switched()
    entropy = source(noise)
    noise.broken = stuck
    refusal(entropy.check)
    noise.calls.clear()
    refusal(lambda: filled(entropy))
    assert noise.calls == ["connect", 8192, "disconnect"]  # nothing is drawn for a key
    noise.broken = None
    noise.calls.clear()
    filled(entropy)
    assert noise.calls == ["connect", 8192, 480, 32]


def test_generator_that_a_window_finds_in_half_the_cases_gives_no_key_once_it_was_found() -> None:
    noise = Switched(seed=7)
    entropy = source(noise)
    entropy.check()
    noise.broken = biased
    keys = iter(lambda: filled(entropy), b"")
    with pytest.raises(BrokerError, match="adaptive proportion"):
        deque(keys, maxlen=0)
    for _ in range(100):
        refusal(lambda: filled(entropy))


def test_longer_test_is_for_the_connection_after_a_failed_one_only() -> None:
    noise = Switched()
    entropy = source(noise)
    noise.broken = stuck
    refusal(entropy.check)
    noise.broken = None
    entropy.check()
    noise.calls.clear()
    noise.down = "check"
    filled(entropy)
    assert noise.calls == ["check", *START, 480, 32]


# Many calls at once


def test_generator_is_never_asked_by_two_at_once_and_one_that_hangs_holds_nobody_for_long() -> None:
    entered, go = threading.Event(), threading.Event()

    class Hangs(Noise):
        def check(self) -> None:
            entered.set()
            assert go.wait(10)

    noise = Hangs()
    entropy = source(noise, turn_seconds=0.05)
    entropy.check()
    thread = threading.Thread(target=entropy.check)
    thread.start()
    try:
        assert entered.wait(10)
        assert "in time" in refusal(entropy.check).message
        assert noise.calls == START  # it was left alone
    finally:
        go.set()
        thread.join()
    filled(entropy)


def test_generator_that_hangs_is_told_and_waited_for_once(logged: list[Any]) -> None:
    """Calls that each wait their turn out would take every worker."""
    entered, go = threading.Event(), threading.Event()

    class Hangs(Noise):
        def check(self) -> None:
            entered.set()
            assert go.wait(10)

    entropy = source(Hangs(), turn_seconds=0.2)
    entropy.check()
    thread = threading.Thread(target=entropy.check)
    thread.start()
    try:
        assert entered.wait(10)
        refusal(entropy.check)
        started = time.monotonic()
        for _ in range(50):
            refusal(entropy.check)
        assert time.monotonic() - started < 5  # 10 s if each waited
    finally:
        go.set()
        thread.join()
    filled(entropy)
    assert [(entry["event"], entry.get("kind", "")) for entry in logged] == [
        ("entropy_source_ready", ""),
        ("entropy_source_failed", "NoAnswer"),
        ("entropy_source_ready", ""),
    ]


def test_call_waits_its_turn_again_once_the_generator_has_answered() -> None:
    class Slow(Noise):
        slow: threading.Event | None = None

        def check(self) -> None:
            entered.set()
            assert self.slow is None or self.slow.wait(10)

    entered, noise = threading.Event(), Slow()
    entropy = source(noise, turn_seconds=0.05)
    entropy.check()
    for waited_in_vain in (True, False):
        noise.slow = threading.Event()
        entered.clear()
        thread = threading.Thread(target=entropy.check)
        thread.start()
        assert entered.wait(10)
        if waited_in_vain:
            refusal(entropy.check)
            noise.slow.set()
        else:
            entropy._turn_seconds = 10.0
            threading.Timer(0.2, noise.slow.set).start()
            entropy.check()
        thread.join()

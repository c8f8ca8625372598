import pytest

from keybroker.adapters.kms.circuit import (
    FAILURES,
    FIRST_PROBE_SECONDS,
    PATIENCE_SECONDS,
    PROBE_EVERY_SECONDS,
    SILENCE_SECONDS,
    Circuit,
    Pass,
    tell,
)
from keybroker.adapters.kms.error_table import kms_error
from keybroker.adapters.kms.failures import credentials_unreadable, timed_out, unreadable
from keybroker.domain.errors import KmsError, Reason
from tests.builders import FakeClock


class Setting:
    """A circuit, its clock, and what it told of its changes."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.changes: list[bool] = []
        self.circuit = Circuit(monotonic=self.clock.monotonic, on_change=self.changes.append)

    def fail(self, times: int) -> None:
        for _ in range(times):
            self.circuit.failed(self.circuit.admit())

    def refusal(self) -> KmsError:
        with pytest.raises(KmsError) as caught:
            self.circuit.admit()
        return caught.value

    def is_shut(self) -> bool:
        try:
            self.circuit.check()
        except KmsError:
            return True
        return False


@pytest.fixture
def setting() -> Setting:
    return Setting()


def test_circuit_opens_after_failures_in_a_row(setting: Setting) -> None:
    setting.fail(FAILURES - 1)
    setting.circuit.answered()
    setting.fail(FAILURES - 1)
    assert not setting.is_shut()
    setting.fail(1)
    assert setting.is_shut()
    assert setting.changes == [True]


def test_open_circuit_refuses_with_what_a_caller_needs(setting: Setting) -> None:
    setting.fail(FAILURES)
    error = setting.refusal()
    assert (error.reason, error.kms_code, error.committed_nothing) == (Reason.KMS_UNAVAILABLE, "connection", True)
    assert error.retry_after_seconds == pytest.approx(FIRST_PROBE_SECONDS)


def test_one_probe_goes_through_when_it_is_due(setting: Setting) -> None:
    setting.fail(FAILURES)
    setting.clock.advance(FIRST_PROBE_SECONDS)
    assert setting.circuit.admit().is_probe
    setting.refusal()


def test_check_takes_no_probe(setting: Setting) -> None:
    setting.fail(FAILURES)
    setting.clock.advance(FIRST_PROBE_SECONDS)
    setting.circuit.check()
    setting.circuit.check()
    assert setting.circuit.admit().is_probe


def test_answer_to_the_probe_closes_the_circuit_for_all(setting: Setting) -> None:
    setting.fail(FAILURES)
    setting.clock.advance(FIRST_PROBE_SECONDS)
    setting.circuit.admit()
    setting.circuit.answered()
    assert [setting.circuit.admit().is_probe for _ in range(3)] == [False] * 3
    assert setting.changes == [True, False]


def test_probes_never_are_further_apart_than_two_seconds_even_if_they_hang(setting: Setting) -> None:
    setting.fail(FAILURES)
    waits = []
    for _ in range(6):
        waits.append(setting.refusal().retry_after_seconds)
        setting.clock.advance(waits[-1] or 0)
        setting.circuit.admit()  # and never tells
    assert waits == [0.5, 1.0, 2.0, 2.0, 2.0, 2.0]
    assert max(waits) <= PROBE_EVERY_SECONDS


def test_probe_that_fails_leaves_the_circuit_open_and_is_counted_once(setting: Setting) -> None:
    setting.fail(FAILURES)
    setting.clock.advance(FIRST_PROBE_SECONDS)
    setting.circuit.failed(setting.circuit.admit())
    assert setting.refusal().retry_after_seconds == pytest.approx(1.0)
    assert setting.changes == [True]


def test_probe_that_sent_nothing_makes_room_for_another(setting: Setting) -> None:
    setting.fail(FAILURES)
    setting.clock.advance(FIRST_PROBE_SECONDS)
    setting.circuit.not_sent(setting.circuit.admit())
    assert setting.circuit.admit().is_probe


def test_call_of_before_that_sent_nothing_makes_no_probe(setting: Setting) -> None:
    early = setting.circuit.admit()
    setting.fail(FAILURES)
    setting.circuit.not_sent(early)
    assert setting.is_shut()


def test_failures_from_before_the_return_do_not_open_it_again(setting: Setting) -> None:
    stale = [setting.circuit.admit() for _ in range(FAILURES)]
    setting.fail(FAILURES)
    setting.clock.advance(FIRST_PROBE_SECONDS)
    setting.circuit.admit()
    setting.circuit.answered()
    for leave in stale:
        setting.circuit.failed(leave)
    assert not setting.is_shut()


def told(setting: Setting, error: KmsError, *, seconds: float = 0.1, remaining_seconds: float = 5.0) -> bool:
    """Whether so many of these open the circuit."""
    for _ in range(FAILURES):
        tell(setting.circuit, Pass(0), error, seconds=seconds, remaining_seconds=remaining_seconds)
    return setting.is_shut()


def unreachable(*, committed_nothing: bool) -> KmsError:
    return KmsError(Reason.KMS_UNAVAILABLE, "", kms_code="connection", committed_nothing=committed_nothing)


@pytest.mark.parametrize(
    "error",
    [
        unreachable(committed_nothing=True),
        unreachable(committed_nothing=False),
        timed_out(),
        unreadable("it is HTML", status=502),
        kms_error("InternalFailure", 500),
    ],
    ids=["refused", "reset", "timeout", "unreadable", "500"],
)
def test_silence_opens_the_circuit(setting: Setting, error: KmsError) -> None:
    assert told(setting, error)


@pytest.mark.parametrize("code", ["Forbidden.KeyNotFound", "Rejected.Throttling", "SignatureNonceUsed", "Unheard.Of"])
def test_answer_of_any_kind_closes_it(setting: Setting, code: str) -> None:
    setting.fail(FAILURES)
    assert not told(setting, kms_error(code, 400))


def test_credentials_that_can_not_be_read_say_nothing_of_the_kms(setting: Setting) -> None:
    assert not told(setting, credentials_unreadable("OSError"))
    setting.fail(FAILURES)
    assert told(setting, credentials_unreadable("OSError"))


def test_impatient_caller_does_not_shut_the_kms_to_the_others(setting: Setting) -> None:
    """Also where the KMS is slow and the others wait for it longer."""
    assert not told(setting, timed_out(), seconds=PATIENCE_SECONDS / 2, remaining_seconds=0.0)
    assert not told(setting, timed_out(), seconds=PATIENCE_SECONDS, remaining_seconds=0.0)
    setting.clock.advance(SILENCE_SECONDS)
    assert not told(setting, timed_out(), seconds=PATIENCE_SECONDS / 2, remaining_seconds=0.0)
    assert told(setting, timed_out(), seconds=PATIENCE_SECONDS, remaining_seconds=0.0)


def test_reply_that_can_not_be_read_is_an_answer_unless_it_is_a_server_s_failure(setting: Setting) -> None:
    assert not told(setting, unreadable("it is not JSON", status=200))
    assert told(setting, unreadable("it is not JSON", status=502))

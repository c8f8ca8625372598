import pytest

from keybroker.domain.attempt import Attempt, Failure, Kind, State
from keybroker.domain.errors import BrokerError, Reason
from keybroker.rpc.import_meter import ImportMeter
from keybroker.telemetry.metrics import Metrics
from keybroker.usecases.answers import REPLAYED
from keybroker.usecases.obtain_import_parameters import ParametersSource


def failures(metrics: Metrics) -> dict[str, float]:
    """The reasons that were counted, with their counts."""
    [family] = [family for family in metrics.registry.collect() if family.name == "keybroker_import_failures"]
    return {
        sample.labels["reason"]: sample.value
        for sample in family.samples
        if sample.name == "keybroker_import_failures_total" and sample.value
    }


def durations(metrics: Metrics) -> dict[tuple[str, str, str], float]:
    """How many were observed, by outcome, algorithm and parameters."""
    [family] = [family for family in metrics.registry.collect() if family.name == "keybroker_import_duration_seconds"]
    return {
        (sample.labels["outcome"], sample.labels["wrapping_algorithm"], sample.labels["parameters"]): sample.value
        for sample in family.samples
        if sample.name == "keybroker_import_duration_seconds_count"
    }


def fail(metrics: Metrics, error: BaseException, *, outcome: str = "imported") -> None:
    def work() -> None:
        with ImportMeter(metrics=metrics).measure() as measured:
            measured.outcome = outcome
            raise error

    with pytest.raises(type(error)):
        work()


def test_import_that_ends_well_is_one_duration_and_no_failure() -> None:
    metrics = Metrics()
    with ImportMeter(metrics=metrics).measure() as measured:
        measured.wrapping_algorithm = "RSAES_OAEP_SHA_256"
        measured.progress.parameters = ParametersSource.CACHED
    assert durations(metrics) == {("imported", "RSAES_OAEP_SHA_256", "cached"): 1.0}
    assert failures(metrics) == {}


def test_import_that_was_only_validated_says_so() -> None:
    metrics = Metrics()
    with ImportMeter(metrics=metrics).measure() as measured:
        measured.outcome = "validated"
    assert durations(metrics) == {("validated", "unknown", "none"): 1.0}


@pytest.mark.parametrize("reason", Reason)
def test_import_that_fails_counts_its_reason_alone(reason: Reason) -> None:
    metrics = Metrics()
    fail(metrics, BrokerError(reason, "What happened."))
    label = "other" if reason is Reason.KMS_ERROR_UNRECOGNISED else reason.value
    outcome = "unresolved" if reason is Reason.IMPORT_UNRESOLVED else "failed"
    assert failures(metrics) == {label: 1.0}
    assert durations(metrics) == {(outcome, "unknown", "none"): 1.0}


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_import_that_fails_unforeseen_counts_as_internal(error: BaseException) -> None:
    metrics = Metrics()
    fail(metrics, error)
    assert failures(metrics) == {"INTERNAL": 1.0}
    assert durations(metrics) == {("failed", "unknown", "none"): 1.0}


def test_validation_that_fails_is_failed() -> None:
    metrics = Metrics()
    fail(metrics, ValueError("x"), outcome="validated")
    assert durations(metrics) == {("failed", "unknown", "none"): 1.0}


@pytest.mark.parametrize("error", [None, ValueError("x")])
def test_imports_in_flight_counts_up_and_down(error: Exception | None) -> None:
    metrics = Metrics()
    meter = ImportMeter(metrics=metrics)

    def in_flight() -> float | None:
        return metrics.registry.get_sample_value("keybroker_imports_in_flight")

    def work() -> None:
        with meter.measure(), meter.measure():
            assert in_flight() == 2.0
            if error:
                raise error

    if error:
        with pytest.raises(ValueError, match="x"):
            work()
    else:
        work()
    assert in_flight() == 0.0


def test_refused_counts_a_failure_without_a_duration() -> None:
    metrics = Metrics()
    ImportMeter(metrics=metrics).refused(Reason.BROKER_OVERLOADED)
    assert failures(metrics) == {"BROKER_OVERLOADED": 1.0}
    assert durations(metrics) == {}


def row(state: State, failure: Failure | None = None) -> Attempt:
    return Attempt(
        record_id="a-record",
        caller="a caller",
        request_id="a-request",
        kind=Kind.IMPORT,
        request_digest=b"",
        region="cn-hangzhou",
        dkms_instance_id="kst-example",
        state=state,
        algorithm="RSAES_OAEP_SHA_256",
        parameters="fetched",
        failure=failure,
    )


def test_replay_of_an_import_is_not_measured() -> None:
    metrics = Metrics()
    with ImportMeter(metrics=metrics).measure() as measured:
        measured.outcome = REPLAYED
    assert durations(metrics) == {}
    assert failures(metrics) == {}


def test_replay_of_a_failure_is_not_measured() -> None:
    metrics = Metrics()
    fail(metrics, BrokerError(Reason.KMS_ACCESS_DENIED, "Denied.", metadata={REPLAYED: "true"}))
    assert durations(metrics) == {}
    assert failures(metrics) == {}


@pytest.mark.parametrize(
    ("attempt", "outcome", "counted"),
    [
        (row(State.IMPORTED), "imported", {}),
        (row(State.ENABLED_UNATTRIBUTED), "failed", {"ENABLED_UNATTRIBUTED": 1.0}),
        (row(State.NOT_IMPORTED), "failed", {"NOT_IMPORTED": 1.0}),
        (row(State.NOT_IMPORTED, Failure("KMS_ACCESS_DENIED", "x")), "failed", {"KMS_ACCESS_DENIED": 1.0}),
    ],
    ids=lambda value: value.state.value if isinstance(value, Attempt) else "",
)
def test_attempt_resolved_late_is_one_duration_of_its_whole_life(
    attempt: Attempt, outcome: str, counted: dict[str, float]
) -> None:
    metrics = Metrics()
    ImportMeter(metrics=metrics).resolved_late(attempt, 90.0)
    labels = {"outcome": outcome, "wrapping_algorithm": "RSAES_OAEP_SHA_256", "parameters": "fetched"}
    assert durations(metrics) == {tuple(labels.values()): 1.0}
    assert metrics.registry.get_sample_value("keybroker_import_duration_seconds_sum", labels) == 90.0
    assert failures(metrics) == counted


def test_repeat_that_leaves_open_what_was_open_is_not_measured() -> None:
    metrics = Metrics()
    error = BrokerError(Reason.IMPORT_UNRESOLVED, "Not known yet.")

    def work() -> None:
        with ImportMeter(metrics=metrics).measure() as measured:
            measured.progress.goes_on = True
            raise error

    with pytest.raises(BrokerError):
        work()
    assert (durations(metrics), failures(metrics)) == ({}, {})

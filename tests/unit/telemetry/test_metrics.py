from collections.abc import Iterable

import pytest
from prometheus_client.metrics import MetricWrapperBase

from keybroker.domain.errors import Reason
from keybroker.telemetry.metrics import Metrics

LABELS = {  # the design, "Metrics"
    "keybroker_import_duration_seconds": ("outcome", "wrapping_algorithm", "parameters"),
    "keybroker_import_failures_total": ("reason",),
    "keybroker_import_parameters_requests_total": ("result",),
    "keybroker_import_parameters_cached": (),
    "keybroker_reloads_total": ("what", "result"),
    "keybroker_kms_request_duration_seconds": ("operation", "code"),
    "keybroker_kms_clock_skew_seconds": ("instance",),
    "keybroker_kms_retries_total": ("operation",),
    "keybroker_kms_circuit_open": ("instance",),
    "keybroker_kms_pacer_wait_seconds": ("quota",),
    "keybroker_kms_pacer_rate": ("instance", "quota"),
    "keybroker_audit_failing": (),
    "keybroker_audit_events_waiting": (),
    "keybroker_deadline_overrun_seconds": (),
    "keybroker_imports_in_flight": (),
    "grpc_server_started_total": ("grpc_type", "grpc_service", "grpc_method"),
    "grpc_server_handled_total": ("grpc_type", "grpc_service", "grpc_method", "grpc_code"),
    "grpc_server_handling_seconds": ("grpc_type", "grpc_service", "grpc_method"),
}
OF_THE_PROCESS = ("process_", "python_")


def own(metrics: Metrics) -> Iterable[MetricWrapperBase]:
    """The metrics that the module makes itself."""
    return [value for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)]


def exposed_name(metric: MetricWrapperBase) -> str:
    [family] = metric.describe()
    return f"{family.name}_total" if family.type == "counter" else family.name


def test_metrics_have_the_names_and_labels_of_the_design() -> None:
    assert {exposed_name(metric): tuple(metric._labelnames) for metric in own(Metrics())} == LABELS


def test_registry_has_these_and_those_of_the_process_only() -> None:
    metrics = Metrics()
    families = {family.name for family in metrics.registry.collect()}
    others = {name for name in families if not name.startswith(OF_THE_PROCESS)}
    assert others == {name.removesuffix("_total") for name in LABELS}


def test_every_metric_says_what_it_is() -> None:
    assert all(family.documentation.endswith(".") for metric in own(Metrics()) for family in metric.describe())


def reasons(metrics: Metrics) -> dict[str, float]:
    [family] = [family for family in metrics.registry.collect() if family.name == "keybroker_import_failures"]
    return {sample.labels["reason"]: sample.value for sample in family.samples if sample.name.endswith("_total")}


def test_reasons_of_failures_are_a_closed_set_that_is_there_from_the_start() -> None:
    expected = {reason.value for reason in Reason} - {"KMS_ERROR_UNRECOGNISED"} | {"other"}
    metrics = Metrics()
    assert reasons(metrics) == dict.fromkeys(expected, 0.0)
    for reason in Reason:
        metrics.import_failed(reason)
    assert reasons(metrics) == dict.fromkeys(expected, 1.0)


@pytest.mark.parametrize("reason", Reason)
def test_failure_moves_its_own_reason_only(reason: Reason) -> None:
    metrics = Metrics()
    metrics.import_failed(reason)
    moved = {label for label, value in reasons(metrics).items() if value}
    assert moved == {"other" if reason is Reason.KMS_ERROR_UNRECOGNISED else reason.value}


def test_kms_request_is_timed_by_operation_and_code() -> None:
    metrics = Metrics()
    metrics.kms_request("DescribeKey", "OK", 0.25)
    value = metrics.registry.get_sample_value
    labels = {"operation": "DescribeKey", "code": "OK"}
    assert value("keybroker_kms_request_duration_seconds_count", labels) == 1.0
    assert value("keybroker_kms_request_duration_seconds_sum", labels) == 0.25


def test_buckets_reach_the_longest_call_that_is_allowed() -> None:
    metrics = Metrics()
    assert metrics.import_duration._upper_bounds[-2] == 20.0


def test_registries_of_two_brokers_are_apart() -> None:
    first, second = Metrics(), Metrics()
    first.import_failed(Reason.INTERNAL)
    assert reasons(second)["INTERNAL"] == 0.0

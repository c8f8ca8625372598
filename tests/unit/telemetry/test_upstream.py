from keybroker.telemetry.metrics import Metrics
from keybroker.telemetry.upstream import Upstream
from tests.builders import FakeClock


def test_summary_before_any_call_is_empty() -> None:
    assert Upstream(metrics=Metrics(), monotonic=FakeClock().monotonic).summary() == {}


def test_observer_alone_is_no_call() -> None:
    upstream = Upstream(metrics=Metrics(), monotonic=FakeClock().monotonic)
    upstream.observer("main")
    assert upstream.summary() == {}


def test_summary_is_the_last_call_of_each_instance_with_its_age() -> None:
    clock, metrics = FakeClock(), Metrics()
    upstream = Upstream(metrics=metrics, monotonic=clock.monotonic)
    upstream.observer("main")("DescribeKey", "OK", 0.01)
    clock.advance(2.0)
    upstream.observer("main")("CreateKey", "timeout", 10.0)
    upstream.observer("other")("DescribeKey", "Forbidden.KeyNotFound", 0.02)
    clock.advance(1.26)
    assert upstream.summary() == {
        "main": {"operation": "CreateKey", "code": "timeout", "seconds_ago": 1.3},
        "other": {"operation": "DescribeKey", "code": "Forbidden.KeyNotFound", "seconds_ago": 1.3},
    }


def test_each_call_is_timed_in_the_metrics() -> None:
    metrics = Metrics()
    observe = Upstream(metrics=metrics, monotonic=FakeClock().monotonic).observer("main")
    for seconds in (0.5, 0.25):
        observe("DescribeKey", "OK", seconds)
    labels = {"operation": "DescribeKey", "code": "OK"}
    assert metrics.registry.get_sample_value("keybroker_kms_request_duration_seconds_sum", labels) == 0.75

"""What instances share, and what their metrics say."""

import pytest

from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import BrokerError, Reason
from keybroker.kms_guards import KmsGuards
from keybroker.settings import PacingSettings
from keybroker.telemetry.metrics import Metrics
from tests.builders import FakeClock, refusal
from tests.contract.fake_kms import FakeKms


class ClosableFakeKms(FakeKms):
    def close(self) -> None:
        """Nothing to close."""


class Site:
    """Guards over a fake KMS for each instance, by a clock that stands still."""

    def __init__(self, **pacing: object) -> None:
        self.clock = FakeClock()
        self.metrics = Metrics()
        self._guards = KmsGuards(PacingSettings.model_validate(pacing), clock=self.clock, metrics=self.metrics)
        self.kms: dict[str, ClosableFakeKms] = {}

    def describe(self, name: str, times: int, *, region: str = "cn-hangzhou", group: str = "") -> str:
        """Describes a CMK so often, through a new guard: "done", or the reason of the failure."""
        kms = self.kms.setdefault(name, ClosableFakeKms(name, region, clock=self.clock))
        guarded, key_id = self._guards.guarded(kms, quota_group=group), kms.add_key()
        try:
            for _ in range(times):
                guarded.describe_key(key_id, deadline=Deadline.after(0.06, monotonic=self.clock.monotonic))
        except BrokerError as error:
            return error.reason.value
        return "done"

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


def test_instances_of_a_region_share_its_quota() -> None:
    site = Site(read_per_second=10)
    assert site.describe("a", 5) == "done"
    assert site.describe("b", 1) == Reason.KMS_QUOTA_BUSY


@pytest.mark.parametrize(
    ("region", "group"), [("cn-beijing", ""), ("cn-hangzhou", "other-account")], ids=["region", "account"]
)
def test_instances_of_another_region_or_account_do_not(region: str, group: str) -> None:
    site = Site(read_per_second=10)
    assert site.describe("a", 5) == "done"
    assert site.describe("b", 5, region=region, group=group) == "done"


def test_nothing_is_paced_when_pacing_is_off() -> None:
    site = Site(enabled=False, read_per_second=1)
    assert site.describe("a", 1000) == "done"
    assert site.value("keybroker_kms_pacer_rate", instance="a", quota="read") is None


def test_every_quota_class_of_the_contract_has_its_limit() -> None:
    assert PacingSettings().limits() == {"create": 10, "read": 50, "write": 30, "crypto": 1000, "resource_tags": 300}


def test_metrics_tell_of_rate_waits_retries_and_circuit() -> None:
    site = Site()
    assert site.describe("a", 1) == "done"
    assert site.value("keybroker_kms_pacer_rate", instance="a", quota="read") == pytest.approx(0.975 * 50)
    assert site.value("keybroker_kms_pacer_wait_seconds_count", quota="read") == 1
    assert site.value("keybroker_kms_circuit_open", instance="a") == 0
    site.kms["a"].fail_next("DescribeKey", refusal(Reason.KMS_UNAVAILABLE, "connection"), times=100)
    guarded = site._guards.guarded(site.kms["a"], quota_group="")
    for _ in range(2):
        with pytest.raises(BrokerError):
            guarded.describe_key("key-x", deadline=Deadline.after(15.0, monotonic=site.clock.monotonic))
    assert site.value("keybroker_kms_circuit_open", instance="a") == 1
    assert (site.value("keybroker_kms_retries_total", operation="DescribeKey") or 0) >= 4

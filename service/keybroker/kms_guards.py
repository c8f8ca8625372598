"""Puts the guard before each KMS client: pacers shared within an account and region. Part of the composition root."""

from functools import partial

from keybroker.adapters.kms.guard import Guard
from keybroker.adapters.kms.guarded import ClosableKms, GuardedKms
from keybroker.adapters.kms.pacer import Pacer
from keybroker.ports import Clock
from keybroker.settings import PacingSettings
from keybroker.telemetry.metrics import Metrics

_TURNS_OF_AN_IMPORT = {"read": 3.0}  # DescribeKey, GetParametersForImport, DescribeKey


class KmsGuards:
    """Makes guarded clients. Those of one region and quota group share their pacers: the quotas are an account's."""

    def __init__(self, settings: PacingSettings, *, clock: Clock, metrics: Metrics) -> None:
        self._limits = settings.limits() if settings.enabled else {}
        self._clock = clock
        self._metrics = metrics
        self._pacers: dict[tuple[str, str], dict[str, Pacer]] = {}

    def guarded(self, kms: ClosableKms, *, quota_group: str) -> GuardedKms:
        """The client behind its guard."""
        pacers = self._pacers_of(kms.region, quota_group)
        for quota, pacer in pacers.items():
            self._metrics.pacer_rate.labels(kms.name, quota).set_function(partial(_rate, pacer))
        circuit_open = self._metrics.circuit_open.labels(kms.name)
        guard = Guard(
            clock=self._clock,
            pacers=pacers,
            on_retry=lambda operation: self._metrics.kms_retries.labels(operation).inc(),
            on_circuit=circuit_open.set,
        )
        return GuardedKms(kms=kms, guard=guard)

    def _pacers_of(self, region: str, quota_group: str) -> dict[str, Pacer]:
        key = (region, quota_group)
        if key not in self._pacers:
            self._pacers[key] = {
                quota: Pacer(
                    limit,
                    monotonic=self._clock.monotonic,
                    on_wait=self._metrics.pacer_wait.labels(quota).observe,
                    turns_of_a_call=_TURNS_OF_AN_IMPORT.get(quota, 1.0),
                )
                for quota, limit in self._limits.items()
            }
        return self._pacers[key]


def _rate(pacer: Pacer) -> float:
    return pacer.rate_per_second

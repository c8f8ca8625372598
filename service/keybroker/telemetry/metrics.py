"""All metric names, in one place. Every label has a closed set of values: no key ids, no messages, no peers.

Source: design, "Metrics"; the grpc_server_… names are those that the ecosystem's dashboards use.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from keybroker.domain.errors import Reason

_OVERRUN_SECONDS = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)


class Metrics:
    """The process's metrics, on a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.import_duration = Histogram(
            "keybroker_import_duration_seconds",
            "Duration of import calls. outcome: imported, failed, unresolved or validated; parameters: cached, "
            "fetched or none.",
            ["outcome", "wrapping_algorithm", "parameters"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._import_failures = Counter(
            "keybroker_import_failures",
            "Import calls that ended with an error, by ErrorInfo.reason (other: an unknown error of the KMS).",
            ["reason"],
            registry=self.registry,
        )
        self.imports_in_flight = Gauge(
            "keybroker_imports_in_flight", "Import calls being worked on now.", registry=self.registry
        )
        self.parameters_requests = Counter(
            "keybroker_import_parameters_requests",
            "Requests for import parameters. result: cached, fetched, shared (with a fetch under way) or failed.",
            ["result"],
            registry=self.registry,
        )
        self.parameters_cached = Gauge(
            "keybroker_import_parameters_cached", "Import parameters in the cache.", registry=self.registry
        )
        self._reloads = Counter(
            "keybroker_reloads",
            "Files read again after a change. what: policy, certificates, client CAs or token keys; result: good or "
            "refused.",
            ["what", "result"],
            registry=self.registry,
        )
        self.kms_request_duration = Histogram(
            "keybroker_kms_request_duration_seconds",
            "Duration of requests to the KMS. code: OK, a code of its error table, timeout, connection, unreadable or "
            "other.",
            ["operation", "code"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.kms_clock_skew = Gauge(
            "keybroker_kms_clock_skew_seconds",
            "How far the KMS's clock is ahead of this machine's, by the Date of its replies.",
            ["instance"],
            registry=self.registry,
        )
        self.kms_retries = Counter(
            "keybroker_kms_retries",
            "Requests to the KMS that were sent again inside one call.",
            ["operation"],
            registry=self.registry,
        )
        self.circuit_open = Gauge(
            "keybroker_kms_circuit_open",
            "1 while calls fail without being sent, because the instance has not answered.",
            ["instance"],
            registry=self.registry,
        )
        self.pacer_wait = Histogram(
            "keybroker_kms_pacer_wait_seconds",
            "How long requests to the KMS waited for their turn. quota: the class of the operation.",
            ["quota"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.pacer_rate = Gauge(
            "keybroker_kms_pacer_rate",
            "Requests a second that may be sent now: less than configured after the KMS has throttled.",
            ["instance", "quota"],
            registry=self.registry,
        )
        self.audit_failing = Gauge(
            "keybroker_audit_failing",
            "1 while the audit log can't be written, so that nothing is changed.",
            registry=self.registry,
        )
        self.audit_events_waiting = Gauge(
            "keybroker_audit_events_waiting",
            "Outcomes that are told and recorded and that the audit log does not have yet.",
            registry=self.registry,
        )
        self.deadline_overrun = Histogram(
            "keybroker_deadline_overrun_seconds",
            "How long after its deadline the work of a call ended; 0 for those in time.",
            buckets=_OVERRUN_SECONDS,
            registry=self.registry,
        )
        grpc_labels = ["grpc_type", "grpc_service", "grpc_method"]
        self.grpc_started = Counter(
            "grpc_server_started", "RPCs started on the server.", grpc_labels, registry=self.registry
        )
        self.grpc_handled = Counter(
            "grpc_server_handled",
            "RPCs completed on the server, whatever the code.",
            [*grpc_labels, "grpc_code"],
            registry=self.registry,
        )
        self.grpc_handling = Histogram(
            "grpc_server_handling_seconds",
            "Duration of RPCs on the server.",
            grpc_labels,
            buckets=_SECONDS,
            registry=self.registry,
        )
        for reason in Reason:
            self._import_failures.labels(_failure_label(reason))

    def import_failed(self, reason: Reason) -> None:
        """Counts an import call that ended with this reason."""
        self._import_failures.labels(_failure_label(reason)).inc()

    def reloaded(self, what: str, good: bool) -> None:  # noqa: FBT001  # a hook's signature
        """Counts a change of files: in force now, or refused."""
        self._reloads.labels(what, "good" if good else "refused").inc()

    def kms_request(self, operation: str, code: str, seconds: float) -> None:
        """Records one request to the KMS."""
        self.kms_request_duration.labels(operation, code).observe(seconds)


def _failure_label(reason: Reason) -> str:
    return "other" if reason is Reason.KMS_ERROR_UNRECOGNISED else reason.value

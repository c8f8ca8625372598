"""The composition root: settings → adapters → use cases → servers. Only here implementations are chosen."""

import asyncio
import gc
import signal
import sys
from collections.abc import Callable

import structlog

from keybroker import __version__
from keybroker.access_control import access_control, server_tls
from keybroker.adapters.clock import SystemClock
from keybroker.adapters.kms.client import KmsClient
from keybroker.adapters.kms.credentials import Credentials
from keybroker.assembly import Assembly, Choices, Listeners, Ports
from keybroker.audit_store import close_audit_log, make_audit_log, open_audit_log
from keybroker.domain.attempt import Attempt
from keybroker.domain.secret_memory import MEMORY
from keybroker.entropy_choice import look_at, make_entropy
from keybroker.kms_credentials import credentials_source
from keybroker.kms_guards import KmsGuards
from keybroker.ledger_store import make_ledger, open_ledger
from keybroker.ports import Clock, EntropySource
from keybroker.process_hardening import Hardening
from keybroker.receipt_keys import receipt_key, receipt_maker
from keybroker.recovery_thread import RecoveryThread
from keybroker.rpc.access import AccessControl
from keybroker.rpc.handlers import Handlers, UseCases
from keybroker.rpc.import_meter import ImportMeter
from keybroker.rpc.interceptors.deadline import DeadlineInterceptor
from keybroker.rpc.interceptors.errors import ErrorsInterceptor
from keybroker.rpc.interceptors.identity import IdentityInterceptor
from keybroker.rpc.interceptors.logging import LoggingInterceptor
from keybroker.rpc.interceptors.metrics import MetricsInterceptor
from keybroker.rpc.interceptors.unary import UnaryInterceptor
from keybroker.rpc.server import GrpcServer, ServerLimits
from keybroker.rpc.servicer import KeyBrokerServicer
from keybroker.rpc.workers import Workers
from keybroker.self_tests import run_self_tests
from keybroker.settings import (
    ConfigurationError,
    ImportSettings,
    InstanceSettings,
    ServerSettings,
    Settings,
    split_address,
)
from keybroker.telemetry.http import TelemetryServer
from keybroker.telemetry.metrics import Metrics
from keybroker.telemetry.upstream import Upstream
from keybroker.usecases.obtain_import_parameters import ParametersRequestResult

_TIME_TO_FINISH_SECONDS = 20.0
_COLLECTED_AFTER = (1_000, 10, 100)
_SWITCH_INTERVAL_SECONDS = 0.0005  # health answers in time also when many workers compute at once (ADR 2)


class App:
    """One broker: built from its settings, started, stopped. Building does no I/O but reading the files it names."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock | None = None,
        entropy: EntropySource | None = None,
        credentials: Callable[[], Credentials] | None = None,
        at: Callable[[str], None] | None = None,
    ) -> None:
        self._settings = settings
        clock = clock or SystemClock()
        self.metrics = Metrics()
        upstream = Upstream(metrics=self.metrics, monotonic=clock.monotonic)
        guards = KmsGuards(settings.kms.pacing, clock=clock, metrics=self.metrics)
        self._instances = {
            name: guards.guarded(
                _kms_client(
                    name,
                    instance,
                    credentials=credentials or credentials_source(name, instance),
                    clock=clock,
                    pool_size=settings.server.max_concurrent_calls,
                    upstream=upstream,
                    metrics=self.metrics,
                ),
                quota_group=instance.quota_group,
            )
            for name, instance in settings.kms.instances.items()
        }
        self._workers = Workers(limit=settings.server.max_concurrent_calls)
        meter = ImportMeter(metrics=self.metrics)
        self._ledger = make_ledger(settings.ledger, clock=clock, audited=settings.audit.is_on)
        self._audit = make_audit_log(settings.audit, clock=clock)
        self._entropy = entropy or make_entropy(settings.entropy)
        self._receipt_key = receipt_key(settings.receipts)
        self._assembly = assembly = self._assembled(clock, self._entropy, meter, at)
        self._recovery = RecoveryThread(recovery=assembly.recovery, trail=assembly.trail, prune=self._prune)
        access = access_control(settings, clock=clock, on_reload=self.metrics.reloaded)
        handlers = Handlers(
            instances=self._instances,
            default_instance=settings.kms.default_instance,
            use_cases=_use_cases(assembly),
            meter=meter,
            access=access,
            forbid_pkcs1_v1_5=settings.imports.forbid_pkcs1_v1_5,
        )
        self._tls = server_tls(settings.server, on_reload=self.metrics.reloaded)
        self._grpc = GrpcServer(
            servicer=KeyBrokerServicer(
                handlers=handlers,
                workers=self._workers,
                meter=meter,
                on_overrun=self.metrics.deadline_overrun.observe,
            ),
            interceptors=_interceptors(settings.server, self.metrics, clock, access),
            limits=ServerLimits(
                keepalive_seconds=settings.server.keepalive_seconds,
                max_connection_age_seconds=settings.server.max_connection_age_seconds,
                max_connection_age_grace_seconds=settings.server.shutdown_grace_seconds,
            ),
            reflect=settings.server.reflection,
            channelz=settings.server.channelz,
        )
        self._serving = False
        self._hardening = Hardening(settings.hardening, memory=MEMORY)
        self._http = TelemetryServer(
            *split_address(settings.server.http_address),
            registry=self.metrics.registry,
            readiness=lambda: self._readiness(upstream),
        )
        self.grpc_port = 0
        self.http_port = 0

    async def start(self) -> None:
        """Binds both ports and serves.

        Raises ConfigurationError if an address can't be bound, SelfTestFailed. A source of randomness that does not
        answer is no reason not to start: imports say so until it does.
        """
        server = self._settings.server
        run_self_tests(self._receipt_key)
        await asyncio.to_thread(look_at, self._entropy)
        open_ledger(self._ledger)
        if self._audit is not None:
            head = open_audit_log(self._audit, last_head=self._ledger.audit_head())
            await asyncio.to_thread(self._assembly.trail.take_over, head)
        try:
            self.http_port = self._http.start()
        except OSError as error:
            raise ConfigurationError(
                f"server.http_address: can't bind {server.http_address}: {error.strerror}"
            ) from None
        try:
            self.grpc_port = await self._grpc.start(server.grpc_address, self._tls)
        except RuntimeError:
            self._http.stop()
            raise ConfigurationError(f"server.grpc_address: can't bind {server.grpc_address}") from None
        await self._grpc.serving()
        self._serving = True
        self._recovery.start()
        structlog.get_logger().info(
            "serving", version=__version__, grpc_port=self.grpc_port, http_port=self.http_port, tls=bool(self._tls)
        )

    async def stop(self) -> None:
        """Drains: no new calls, those under way finish, then everything closes. Probes answer to the end."""
        self._serving = False
        structlog.get_logger().info("draining")
        await self._grpc.drain(
            self._settings.server.shutdown_grace_seconds, wait_until_idle=self._workers.wait_until_idle
        )
        await asyncio.to_thread(self._workers.close)
        await asyncio.to_thread(self._recovery.stop, _TIME_TO_FINISH_SECONDS)
        if self._audit is not None:
            close_audit_log(self._audit)
        self._ledger.close()
        for kms in self._instances.values():
            kms.close()
        self._http.stop()
        structlog.get_logger().info("stopped")

    def _assembled(
        self, clock: Clock, entropy: EntropySource, meter: ImportMeter, at: Callable[[str], None] | None
    ) -> Assembly:
        def resolved_late(row: Attempt) -> None:
            meter.resolved_late(row, (clock.now() - (row.created_at or clock.now())).total_seconds())

        def requested(result: ParametersRequestResult) -> None:
            self.metrics.parameters_requests.labels(result.value).inc()

        assembly = Assembly(
            Ports(
                instances=list(self._instances.values()),
                ledger=self._ledger,
                clock=clock,
                entropy=entropy,
                audit=self._audit,
                receipt=receipt_maker(self._receipt_key, clock=clock),
            ),
            _choices(self._settings.imports, self._settings.server.max_deadline_seconds),
            Listeners(
                parameters_requested=requested,
                resolved_late=resolved_late,
                warn=_warn,
                **({} if at is None else {"at": at}),
            ),
        )
        self.metrics.parameters_cached.set_function(lambda: len(assembly.cache))
        self.metrics.audit_failing.set_function(lambda: float(assembly.trail.failing))
        self.metrics.audit_events_waiting.set_function(lambda: assembly.trail.waiting)
        return assembly

    def _readiness(self, upstream: Upstream) -> tuple[bool, dict[str, object]]:
        details: dict[str, object] = {
            "version": __version__,
            "kms_last_calls": upstream.summary(),
            "hardening": self._hardening.state(),
            "audit": self._audit_state(),
        }
        return self._serving and self._hardening.is_as_required(), details

    def _audit_state(self) -> str:
        if self._audit is None:
            return "off"
        return "failing" if self._assembly.trail.failing else "on"

    def _prune(self) -> None:
        heard = self._assembly.keys.newest_date
        if heard is not None:
            self._ledger.prune(heard)


def _warn(event: str, **fields: str) -> None:
    structlog.get_logger().warning(event, **fields)


def _interceptors(
    server: ServerSettings, metrics: Metrics, clock: Clock, access: AccessControl | None
) -> list[UnaryInterceptor]:
    """Outermost first."""
    deadline = DeadlineInterceptor(
        default_seconds=server.default_deadline_seconds,
        max_seconds=server.max_deadline_seconds,
        monotonic=clock.monotonic,
    )
    always = [ErrorsInterceptor(), deadline, MetricsInterceptor(metrics=metrics), LoggingInterceptor()]
    return always if access is None else [*always, IdentityInterceptor(access=access)]


async def serve(app: App, *, on_started: Callable[[App], None] | None = None) -> None:
    """Serves until SIGTERM or SIGINT, then drains."""
    sys.setswitchinterval(_SWITCH_INTERVAL_SECONDS)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await app.start()
    _collect_seldom()
    if on_started is not None:
        on_started(app)
    await stopping.wait()
    await app.stop()


def _collect_seldom() -> None:
    """A collection of all objects halts every thread, health's too, for 0.1 s where 2,000 calls have theirs (ADR 2).

    What the start has made stays for good and is looked at no more; what lives longer, at each millionth object.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTED_AFTER)


def _kms_client(  # noqa: PLR0913  # what one client is made of
    name: str,
    settings: InstanceSettings,
    *,
    credentials: Callable[[], Credentials],
    clock: Clock,
    pool_size: int,
    upstream: Upstream,
    metrics: Metrics,
) -> KmsClient:
    try:
        return KmsClient(
            name=name,
            region=settings.region,
            endpoint=settings.endpoint,
            dkms_instance_id=settings.dkms_instance_id,
            credentials=credentials,
            clock=clock,
            allow_emulator=settings.allow_emulator,
            proxy=settings.proxy_url,
            ca_bundle=settings.ca_bundle_file,
            connect_timeout_seconds=settings.connect_timeout_seconds,
            read_timeout_seconds=settings.read_timeout_seconds,
            pool_size=pool_size,
            observe=upstream.observer(name),
            on_skew=metrics.kms_clock_skew.labels(name).set,
        )
    except ValueError as error:
        raise ConfigurationError(f"kms.instances.{name}: {error}") from None


def _choices(settings: ImportSettings, longest_call_seconds: float) -> Choices:
    return Choices(
        cached_parameters=settings.cached_parameters,
        parameters_expiry_margin_seconds=settings.parameters_expiry_margin_seconds,
        allow_foreign_tokens=settings.allow_foreign_tokens,
        prove=settings.prove,
        sole_importer=settings.sole_importer,
        create_settle_seconds=settings.create_settle_seconds,
        longest_call_seconds=longest_call_seconds,
    )


def _use_cases(assembly: Assembly) -> UseCases:
    return UseCases(
        import_external_key=assembly.import_external_key,
        import_wrapped_key_material=assembly.import_wrapped_key_material,
        hand_out_import_parameters=assembly.hand_out_import_parameters,
        create_external_key=assembly.create_external_key,
        manage_keys=assembly.manage_keys,
        get_import=assembly.get_import,
        orphans=assembly.orphans,
    )

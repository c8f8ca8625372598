"""A broker in this process for one call, over real gRPC, and all that is told and written of the call."""

import asyncio
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import structlog
from grpc import aio
from prometheus_client.samples import Sample

from keybroker.adapters.entropy.system import SystemEntropy
from keybroker.adapters.kms.credentials import Credentials
from keybroker.app import App
from keybroker.audit_store import open_audit_log
from keybroker.ledger_store import open_ledger
from keybroker.settings import Settings, parse_settings
from keybroker.telemetry.logs import configure_logs
from kms_emulator import Emulator
from tests.canaries.brokers import CALLER, Estate
from tests.canaries.caller import SERVICE
from tests.canaries.strikes import Strike, Watch, tracing

SECONDS = 6.0
Tracer = Watch | Strike


class KeptEntropy(SystemEntropy):
    """Keeps what it gave, which no source may."""

    def __init__(self) -> None:
        self.given: list[bytes] = []

    def fill(self, buffer: memoryview) -> None:
        super().fill(buffer)
        self.given.append(bytes(buffer))


@dataclass
class Outcome:
    """What came of a call. `told_first` is the answer, or the message of the error."""

    code: str
    told: bytes
    told_first: bytes
    written: str
    metrics: str
    audited: str


class OneCall:
    """Makes calls, each to a broker of its own on one ledger. `tracer` is told of every function that is run."""

    def __init__(self, emulator: Emulator, estate: Estate) -> None:
        self.entropy = KeptEntropy()
        self.bearer = estate.planted.bearer(estate.issuer.token(CALLER))
        self._key = estate.access_key
        self._settings = _settings(emulator, estate)
        self._audited_before = 0

    def call(
        self, method: str, request: Any, tracer: Tracer | None = None, *, at: Callable[[str], None] | None = None
    ) -> Outcome:
        """One RPC. The log is what `keybroker serve` would write at DEBUG."""
        log = io.StringIO()
        stderr, sys.stderr = sys.stderr, log
        configure_logs("DEBUG")
        try:
            app = App(self._settings, entropy=self.entropy, credentials=self._credentials, at=at)
            open_ledger(app._ledger)
            assert app._audit is not None
            open_audit_log(app._audit, last_head=app._ledger.audit_head())
            code, first, rest = asyncio.run(self._called(app, method, request, tracer))
        finally:
            sys.stderr = stderr
            structlog.reset_defaults()
        metrics = {
            text for family in app.metrics.registry.collect() for sample in family.samples for text in _texts(sample)
        }
        app._audit.close()
        app._ledger.close()
        for kms in app._instances.values():
            kms.close()
        told = b"\n".join([first, *rest])
        return Outcome(code, told, first, log.getvalue(), "\n".join(metrics), self._audited())

    def _audited(self) -> str:
        """What has come into the audit log since this was asked last."""
        with Path(self._settings.audit.file or "").open("rb") as log:
            log.seek(self._audited_before)
            new = log.read()
        self._audited_before += len(new)
        return new.decode()

    def _credentials(self) -> Credentials:
        return Credentials(self._key.access_key_id, self._key.access_key_secret, self._key.security_token)

    async def _called(
        self, app: App, method: str, request: Any, tracer: Tracer | None
    ) -> tuple[str, bytes, list[bytes]]:
        port = await app._grpc.start("127.0.0.1:0", None)
        try:
            async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                rpc = channel.unary_unary(f"/{SERVICE.full_name}/{method}")
                metadata = (("authorization", f"Bearer {self.bearer}"),)
                with tracing(tracer) if tracer else nullcontext():
                    return await _outcome(rpc(request.SerializeToString(), timeout=SECONDS, metadata=metadata))
        finally:
            await app._grpc.drain(1.0, wait_until_idle=app._workers.wait_until_idle)
            app._workers.close()


async def _outcome(rpc: Any) -> tuple[str, bytes, list[bytes]]:
    try:
        response, code = await rpc, grpc.StatusCode.OK
    except aio.AioRpcError as error:
        response, code = (error.details() or "").encode(), error.code()
    metadata = [*await rpc.initial_metadata(), *await rpc.trailing_metadata()]
    return code.name, response, [value if isinstance(value, bytes) else value.encode() for _, value in metadata]


def _texts(sample: Sample) -> Iterator[str]:
    """What of a metric is text: its name and its labels."""
    yield sample.name
    yield from sample.labels.values()


def _settings(emulator: Emulator, estate: Estate) -> Settings:
    """Without TLS and an HSM. The CAs are not those of the system: to load them takes longer than a call."""
    settings = estate.configuration(emulator.endpoint, "http://127.0.0.1:9")
    del settings["server"]["tls"], settings["entropy"], settings["kms"]["instances"]["by-uri"]
    del settings["kms"]["instances"]["by-proxy"]
    settings["audit"]["stdout"] = False
    settings["kms"]["instances"]["main"]["ca_bundle_file"] = estate.write("ca.crt", estate.authority.pem)
    return parse_settings(settings)

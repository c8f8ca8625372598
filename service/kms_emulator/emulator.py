"""The emulator as an object: start, stop, and everything tests turn or look at."""

import secrets
import ssl
import threading
from collections import Counter
from types import TracebackType
from typing import Self

from kms_emulator.admin import AdminServer
from kms_emulator.call_record import CallRecord, LoggedCall
from kms_emulator.clock import Clock
from kms_emulator.fault_dial import FaultDial
from kms_emulator.fault_effects import FaultEffects
from kms_emulator.gateway import Gateway
from kms_emulator.http_server import EmulatorServer, check_loopback, tls_context
from kms_emulator.kms import Kms
from kms_emulator.kms_server import KmsServer
from kms_emulator.quotas import Quotas
from kms_emulator.readings import Readings
from kms_emulator.seeding import Seeding
from kms_emulator.settings import EmulatorSettings

ADMIN_HOST = "127.0.0.1"


class Emulator(Seeding):
    """One emulated account and region on one port.

    Use it as a context manager, or call `start` and `stop`. A stopped emulator keeps its CMKs and may be started
    again, on the same ports. ValueError for settings that make no sense, OSError when a port is taken.
    """

    def __init__(self, settings: EmulatorSettings | None = None) -> None:
        self.settings = settings or EmulatorSettings()
        if not self.settings.allow_non_loopback:
            check_loopback(self.settings.host)
        super().__init__(Kms(self.settings))
        self.admin_token = self.settings.admin_token or secrets.token_urlsafe(24)
        self._stopping = threading.Event()
        self._gateway = Gateway(self._kms, self._stopping.wait)
        self._tls = _tls(self.settings)
        self._port = self.settings.port
        self._admin_port = self.settings.admin_port
        self._server: KmsServer | None = None
        self._admin: AdminServer | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen and serve in threads; returns at once. RuntimeError when it runs already."""
        if self._server is not None:
            raise RuntimeError("the emulator is running")
        self._stopping.clear()
        self._effects.held.reopen()
        self._server = KmsServer((self.settings.host, self._port), self._gateway, self._kms.clock, self._tls)
        self._port = self._server.server_port
        self._server.start()
        self._effects.late.start()
        if self._admin_port is not None:
            self._start_admin(self._admin_port, self._server)

    def stop(self) -> None:
        """Close every socket and wait for every thread.

        A call that is delayed or held goes on at once. Late calls that have not landed stay under way and may land
        after the next start.
        """
        self._stopping.set()
        self._effects.held.close()
        servers: tuple[EmulatorServer | None, ...] = (self._server, self._admin)
        for server in servers:
            if server is not None:
                server.stop()
        self._server = self._admin = None
        self._effects.late.stop()

    def pause(self) -> None:
        """Refuse connections to the KMS and shut those there are, until `resume`.

        Everything else goes on: calls that are being served (their answers go nowhere), held and late calls, the admin
        API. May be called from any thread.
        """
        self._running().pause()

    def resume(self) -> None:
        """Listen again on the same port; OSError when somebody else has taken it meanwhile."""
        self._running().resume()

    @property
    def endpoint(self) -> str:
        """`http://host:port`, or `https://…` with TLS."""
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        return f"{'http' if self._tls is None else 'https'}://{host}:{self._port}"

    @property
    def admin_endpoint(self) -> str:
        """`http://127.0.0.1:port` of the admin API; RuntimeError when the settings leave it off."""
        if self._admin_port is None:
            raise RuntimeError("the admin API is off: set admin_port")
        return f"http://{ADMIN_HOST}:{self._admin_port}"

    @property
    def calls(self) -> Counter[str]:
        """Requests received by operation, refused ones too: a copy."""
        return self._record.calls()

    @property
    def call_log(self) -> list[LoggedCall]:
        """The last 10,000 answers as (operation, key id or "", HTTP status or 0 when dropped): a copy."""
        return self._record.log()

    def reset_calls(self) -> None:
        """Empty `calls` and `call_log`."""
        self._record.reset()

    @property
    def clock(self) -> Clock:
        """The emulator's clock."""
        return self._kms.clock

    @property
    def faults(self) -> FaultDial:
        """The fault dial."""
        return self._kms.faults

    @property
    def quotas(self) -> Quotas:
        """The quotas."""
        return self._kms.quotas

    @property
    def readings(self) -> Readings:
        """The readings in force."""
        return self._kms.readings

    def set_readings(self, **changes: object) -> None:
        """Change some readings; ValueError names what does not fit."""
        self._kms.readings = self._kms.readings.changed(changes)

    @property
    def in_flight(self) -> int:
        """Requests being served now."""
        return self._server.in_flight.count if self._server is not None else 0

    @property
    def held(self) -> list[str]:
        """Operations of the calls that a hold fault holds now, in the order of their arrival."""
        return self._effects.held.operations()

    def wait_until_held(self, count: int = 1, *, timeout_seconds: float = 10.0) -> None:
        """Return as soon as `count` calls are held; TimeoutError when that takes too long."""
        if not self._effects.held.wait_for(count, timeout_seconds):
            raise TimeoutError(f"held after {timeout_seconds} s: {self.held}")

    def release_held(self) -> list[str]:
        """Let the held calls go on, and name their operations; a call that comes later may be held again."""
        return self._effects.held.release()

    @property
    def under_way(self) -> list[str]:
        """Operations of the late calls that have not landed yet, in the order of their arrival."""
        return self._effects.late.operations()

    @property
    def landed(self) -> list[LoggedCall]:
        """The late calls that have landed: (operation, key id, HTTP status that nobody was told)."""
        return self._effects.late.landed()

    def land_late(self) -> list[LoggedCall]:
        """Land every late call now, in the order of arrival, in this thread."""
        return self._effects.late.land()

    @property
    def _record(self) -> CallRecord:
        return self._gateway.record

    @property
    def _effects(self) -> FaultEffects:
        return self._gateway.effects

    def _running(self) -> KmsServer:
        if self._server is None:
            raise RuntimeError("the emulator is stopped")
        return self._server

    def _start_admin(self, port: int, server: KmsServer) -> None:
        try:
            self._admin = AdminServer((ADMIN_HOST, port), self._kms, server, self.admin_token)
        except OSError:
            self.stop()
            raise
        self._admin_port = self._admin.server_port
        self._admin.start()


def _tls(settings: EmulatorSettings) -> ssl.SSLContext | None:
    certificate_path, key_path = settings.tls_certificate_path, settings.tls_key_path
    if certificate_path is None and key_path is None:
        return None
    if certificate_path is None or key_path is None:
        raise ValueError("TLS needs both a certificate and a key")
    return tls_context(certificate_path, key_path)

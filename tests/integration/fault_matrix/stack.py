"""The real stack that the cells run on: one broker with an instance for each cell, and emulators that cells share.

A cell has an instance of its own, so that neither circuit nor retry budget remembers another cell; it has its emulator
for itself while it runs. A refused connection is aimed at one operation: the broker's transport is led to a port that
nobody listens on, everything else in it is as in production.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from keybroker.adapters.kms.credentials import Credentials
from keybroker.adapters.kms.transport import Reply, Transport
from keybroker.app import App
from keybroker.background import BackgroundApp
from keybroker.domain.deadline import Deadline
from keybroker.settings import parse_settings
from keybroker_client import KeyBrokerClient, KeyBrokerError
from kms_emulator import AccessKey, Emulator, EmulatorSettings
from kms_emulator.errors import KmsError
from tests.certificates import Authority
from tests.integration.fault_matrix.axes import (
    DEADLINE_SECONDS,
    DELAY,
    READ_TIMEOUT_SECONDS,
    Cell,
    Length,
    Place,
    World,
)

REGION = "cn-hangzhou"
_ACCESS_KEY_PAIR = ("LTAIexample", "not-a-secret")
_MOST_CELLS_A_LANE = 20
_LANES = 90
_RAMP_SECONDS = 0.03
_DEFAULTS: dict[str, object] = {
    "same_material_reimport": True,
    "newest_token_only": False,
    "enabled_lag_describes": 0,
    "tag_filters_ignored": False,
    "tag_filter_lag_seconds": 0.0,
}
_OTHERS_CMKS = 21  # more than the broker goes through one by one when the KMS ignores the filter


class NotStruckError(Exception):
    """The call had its answer before the fault could strike: nothing was measured."""


class Aim:
    """Which sends to one emulator find nobody listening."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._place: Place | None = None
        self._left = 0
        self._seen = 0
        self.struck = 0

    def arm(self, place: Place, *, times: int) -> None:
        """`times` 0: until `clear`."""
        with self._lock:
            self._place, self._left, self._seen, self.struck = place, times or -1, 0, 0

    def clear(self) -> None:
        """Everybody is connected again."""
        with self._lock:
            self._place = None

    def refuses(self, operation: str) -> bool:
        """Counts one send."""
        with self._lock:
            if self._place is None or self._place.operation != operation or not self._left:
                return False
            self._seen += 1
            if self._seen <= self._place.skip:
                return False
            self._left -= 1
            self.struck += 1
            return True


@dataclass(frozen=True, slots=True)
class Lane:
    """An emulator, for one cell at a time."""

    emulator: Emulator
    aim: Aim = field(default_factory=Aim)


@dataclass(frozen=True, slots=True)
class Site:
    """Where one cell runs."""

    client: KeyBrokerClient
    instance: str
    dkms_instance_id: str
    lane: Lane


@contextmanager
def running_lanes(count: int = _LANES) -> Iterator[list[Lane]]:
    """Emulators; pairs of keys are shared within each, for they cost more than all else."""
    settings = EmulatorSettings(
        region=REGION,
        access_keys=(AccessKey(*_ACCESS_KEY_PAIR),),
        dkms_instance_ids=tuple(
            f"kst-{_instance(number, position)}" for number in range(count) for position in range(_MOST_CELLS_A_LANE)
        ),
        rsa_key_pool=1,
    )
    with ExitStack() as stack:
        yield [Lane(stack.enter_context(Emulator(settings))) for _ in range(count)]


def run_cells(
    cells: Sequence[Cell], lanes: Sequence[Lane], run: Callable[[Cell, Site], str], *, prove: bool
) -> dict[str, str | Exception]:
    """What `run` returns for each cell, or the exception that it raised; by the cell's key.

    The lanes start one after the other: what a cell computes must not make another one late.
    """
    slow_first = sorted(cells, key=lambda cell: (cell.ill is not DELAY, cell.length is Length.ONCE, cell.key))
    shares = [slow_first[number :: len(lanes)] for number in range(len(lanes))]
    outcomes: dict[str, str | Exception] = {}
    with _broker(shares, lanes, prove=prove) as client, ThreadPoolExecutor(len(lanes)) as pool:

        def run_share(number: int) -> None:
            time.sleep(number * _RAMP_SECONDS)
            for position, cell in enumerate(shares[number]):
                name = _instance(number, position)
                _prepare(lanes[number].emulator, cell.world)
                try:
                    outcomes[cell.key] = run(cell, Site(client, name, f"kst-{name}", lanes[number]))
                except (AssertionError, NotStruckError, KeyBrokerError, KmsError) as error:
                    outcomes[cell.key] = error

        list(pool.map(run_share, range(len(lanes))))
    return outcomes


def _prepare(emulator: Emulator, world: World) -> None:
    emulator.set_readings(**(_DEFAULTS | dict(world.readings)))
    if world.filters_off:
        for _ in range(_OTHERS_CMKS - len(emulator.key_ids)):
            emulator.create_key()


@contextmanager
def _broker(shares: Sequence[Sequence[Cell]], lanes: Sequence[Lane], *, prove: bool) -> Iterator[KeyBrokerClient]:
    with TemporaryDirectory() as folder, _nobody_listens() as dead_end, pytest.MonkeyPatch.context() as patch:
        ca_bundle = Path(folder) / "ca.pem"
        ca_bundle.write_bytes(Authority().pem)
        aims = {lane.emulator.endpoint: lane.aim for lane in lanes}
        patch.setattr("keybroker.adapters.kms.client.Transport", _aimed_transport(aims, dead_end))
        settings = parse_settings(_configuration(shares, lanes, ca_bundle=ca_bundle, prove=prove))
        app = App(settings, credentials=lambda: Credentials(*_ACCESS_KEY_PAIR, ""))
        with BackgroundApp(app) as background, KeyBrokerClient(background.grpc_address, retries=0) as client:
            yield client


def _configuration(
    shares: Sequence[Sequence[Cell]], lanes: Sequence[Lane], *, ca_bundle: Path, prove: bool
) -> dict[str, Any]:
    instances = {
        _instance(number, position): {
            "region": REGION,
            "endpoint": lane.emulator.endpoint,
            "dkms_instance_id": f"kst-{_instance(number, position)}",
            "allow_emulator": True,
            "read_timeout_seconds": READ_TIMEOUT_SECONDS,
            "ca_bundle_file": ca_bundle,  # the system's takes longer to read than a cell to run
        }
        for number, lane in enumerate(lanes)
        for position in range(len(shares[number]))
    }
    return {
        "server": {
            "grpc_address": "127.0.0.1:0",
            "http_address": "127.0.0.1:0",
            "default_deadline_seconds": DEADLINE_SECONDS,
            "max_deadline_seconds": DEADLINE_SECONDS,
        },
        "kms": {"default_instance": _instance(0, 0), "instances": instances, "pacing": {"enabled": False}},
        "imports": {"prove": prove},
    }


def _aimed_transport(aims: Mapping[str, Aim], dead_end: str) -> type[Transport]:
    class AimedTransport(Transport):
        def __init__(self, *, endpoint: str, **settings: Any) -> None:
            super().__init__(endpoint=endpoint, **settings)
            self._nowhere = Transport(endpoint=dead_end, **settings)
            self._aim = aims[endpoint]

        def post(self, parameters: Mapping[str, str], *, auth: Any, deadline: Deadline) -> Reply:
            if self._aim.refuses(auth._action):
                return self._nowhere.post(parameters, auth=auth, deadline=deadline)
            return super().post(parameters, auth=auth, deadline=deadline)

    return AimedTransport


@contextmanager
def _nobody_listens() -> Iterator[str]:
    """A port that is taken and refuses every connection."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def _instance(number: int, position: int) -> str:
    return f"lane{number}-{position}"

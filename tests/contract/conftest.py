"""The implementations of ports.Kms that the contract suite runs over."""

import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from keybroker.adapters.kms.client import KmsClient
from keybroker.adapters.kms.credentials import Credentials
from keybroker.domain.deadline import Deadline
from keybroker.domain.external_key import KeyState
from keybroker.ports import Kms
from kms_emulator import Emulator, EmulatorSettings
from tests.contract.fake_kms import FakeKms


class MovableClock:
    """The system's clocks, with a time of day that tests move on."""

    def __init__(self) -> None:
        self.offset = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(frozen=True)
class Subject:
    """One implementation, and the hands to set it up and look into it."""

    kms: Kms
    clock: MovableClock
    add_key: Callable[..., str]
    bound_material: Callable[[str], bytes | None]
    set_state: Callable[[str, KeyState], None]
    show_enabled_after_describes: Callable[[int], None]
    advance: Callable[[float], None]
    put_ahead: Callable[[float], None]
    set_readings: Callable[..., None]
    bind_foreign: Callable[[str], bytes | None]
    calls: Callable[[], Counter[str]]

    def deadline(self, seconds: float = 10.0) -> Deadline:
        return Deadline.after(seconds, monotonic=self.clock.monotonic)


def _fake() -> Iterator[Subject]:
    clock = MovableClock()
    kms = FakeKms(clock=clock)

    def advance(seconds: float) -> None:
        clock.offset += timedelta(seconds=seconds)

    def put_ahead(seconds: float) -> None:
        kms.ahead += timedelta(seconds=seconds)

    def set_readings(**changes: Any) -> None:
        for name, value in changes.items():
            assert hasattr(kms, name)
            setattr(kms, name, value)

    yield Subject(
        kms=kms,
        clock=clock,
        add_key=kms.add_key,
        bound_material=kms.bound_material,
        set_state=kms.set_state,
        show_enabled_after_describes=kms.show_enabled_after_describes,
        advance=advance,
        put_ahead=put_ahead,
        set_readings=set_readings,
        bind_foreign=kms.bind_foreign,
        calls=lambda: Counter(kms.calls),
    )


def _client_against_emulator() -> Iterator[Subject]:
    clock = MovableClock()
    with Emulator(EmulatorSettings()) as emulator:
        kms = KmsClient(
            name="main",
            region="cn-hangzhou",
            endpoint=emulator.endpoint,
            dkms_instance_id="kst-example",
            credentials=lambda: Credentials("LTAIexample", "secret"),
            clock=clock,
            allow_emulator=True,
        )

        def add_key(**changes: Any) -> str:
            arguments = dict(changes)
            if "spec" in arguments:
                spec = arguments.pop("spec")
                arguments["key_spec"] = spec.kms_name if spec else "Aliyun_SM4"
            if "state" in arguments:
                arguments["state"] = str(arguments["state"])
            return emulator.create_key(**arguments)

        def advance(seconds: float) -> None:
            clock.offset += timedelta(seconds=seconds)
            emulator.clock.advance(seconds)

        def bind_foreign(key_id: str) -> bytes:
            material = secrets.token_bytes(32)
            emulator.import_material(key_id, material)
            return material

        yield Subject(
            kms=kms,
            clock=clock,
            add_key=add_key,
            bound_material=emulator.bound_material,
            set_state=lambda key_id, state: emulator.set_state(key_id, str(state)),
            show_enabled_after_describes=lambda n: emulator.set_readings(enabled_lag_describes=n),
            advance=advance,
            put_ahead=emulator.clock.advance,
            set_readings=emulator.set_readings,
            bind_foreign=bind_foreign,
            calls=lambda: emulator.calls,
        )
        kms.close()


IMPLEMENTATIONS = {"FakeKms": _fake, "KmsClient": _client_against_emulator}


@pytest.fixture(params=IMPLEMENTATIONS)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    yield from IMPLEMENTATIONS[request.param]()

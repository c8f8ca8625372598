"""A real emulator, a real broker, a real client: loopback, ports chosen by the system."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from typing import Any

import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from keybroker.adapters.clock import SystemClock
from keybroker.adapters.kms.credentials import Credentials
from keybroker.app import App
from keybroker.background import BackgroundApp
from keybroker.settings import Settings, parse_settings
from keybroker_client import KeyBrokerClient
from kms_emulator import AccessKey, Emulator, EmulatorSettings

ACCESS_KEY_ID = "LTAIexample"
ACCESS_KEY_SECRET = "not-a-secret"
DKMS_INSTANCE_ID = "kst-example"


class EmulatorClock(SystemClock):
    """The broker's clock set by the KMS's: what a synchronised host has."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator

    def now(self) -> datetime:
        return self._emulator.clock.now()


class RunningBroker:
    """A broker in this process, and what tests look at."""

    def __init__(self, background: BackgroundApp, client: KeyBrokerClient) -> None:
        self.background = background
        self.client = client
        self.address = background.grpc_address
        self.http_url = background.http_url

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of this name that have these labels."""
        from prometheus_client import generate_latest  # noqa: PLC0415

        text = generate_latest(self.background.app.metrics.registry).decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def failures(self) -> dict[str, float]:
        """keybroker_import_failures_total by reason, without the zeros."""
        from prometheus_client import generate_latest  # noqa: PLC0415

        text = generate_latest(self.background.app.metrics.registry).decode()
        return {
            sample.labels["reason"]: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "keybroker_import_failures_total" and sample.value
        }


def broker_settings(emulator: Emulator, **sections: dict[str, Any]) -> Settings:
    """A broker for this emulator; keyword arguments change sections (server, imports, logs, instance, pacing)."""
    instance = {
        "region": "cn-hangzhou",
        "endpoint": emulator.endpoint,
        "dkms_instance_id": DKMS_INSTANCE_ID,
        "allow_emulator": True,
    } | sections.pop("instance", {})
    server = {"grpc_address": "127.0.0.1:0", "http_address": "127.0.0.1:0"} | sections.pop("server", {})
    pacing = sections.pop("pacing", {"enabled": False})
    kms = {"default_instance": "main", "instances": {"main": instance}, "pacing": pacing}
    return parse_settings({"server": server, "kms": kms, **sections})


@pytest.fixture
def make_emulator() -> Iterator[Callable[..., Emulator]]:
    """Starts an emulator with the settings given."""
    with ExitStack() as stack:

        def make(**settings: Any) -> Emulator:
            defaults = {
                "region": "cn-hangzhou",
                "dkms_instance_ids": (DKMS_INSTANCE_ID,),
                "access_keys": (AccessKey(ACCESS_KEY_ID, ACCESS_KEY_SECRET),),
            }
            return stack.enter_context(Emulator(EmulatorSettings(**(defaults | settings))))

        yield make


@pytest.fixture
def emulator(make_emulator: Callable[..., Emulator]) -> Emulator:
    return make_emulator()


@pytest.fixture
def make_broker(emulator: Emulator) -> Iterator[Callable[..., RunningBroker]]:
    """Starts a broker before `emulator`; `clock` and the sections of its settings can be given."""
    with ExitStack() as stack:

        def make(*, clock: Any = None, **sections: dict[str, Any]) -> RunningBroker:
            app = App(
                broker_settings(emulator, **sections),
                clock=clock,
                credentials=lambda: Credentials(ACCESS_KEY_ID, ACCESS_KEY_SECRET, ""),
            )
            background = stack.enter_context(BackgroundApp(app))
            client = stack.enter_context(KeyBrokerClient(background.grpc_address, retries=0))
            return RunningBroker(background, client)

        yield make


@pytest.fixture
def broker(make_broker: Callable[..., RunningBroker]) -> RunningBroker:
    return make_broker()


@pytest.fixture
def logged() -> Iterator[list[dict[str, Any]]]:
    """What the broker logs while the test runs."""
    with structlog.testing.capture_logs() as entries:
        yield entries


@pytest.fixture(autouse=True)
def _quiet_urllib3() -> None:
    logging.getLogger("urllib3").setLevel(logging.CRITICAL + 1)

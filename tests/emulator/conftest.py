from collections.abc import Iterator

import pytest

from kms_emulator import Emulator
from tests.emulator.client import Client, in_process, over_http


@pytest.fixture
def emulator() -> Emulator:
    """An emulator that is not listening: the gateway is asked in process."""
    return Emulator()


@pytest.fixture
def client(emulator: Emulator) -> Client:
    return in_process(emulator)


@pytest.fixture
def listening() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def http_client(listening: Emulator) -> Client:
    return over_http(listening)

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from keybroker_client import AsyncKeyBrokerClient, KeyBrokerClient
from tests.clients.fake_broker import FakeBroker

if TYPE_CHECKING:
    from collections.abc import Iterator


class Invoke(Protocol):
    """Calls one method of a client and returns its answer or raises its error."""

    def __call__(self, address: str, method: str, *, client: dict[str, Any] | None = None, **arguments: Any) -> Any: ...


def invoke_sync(address: str, method: str, *, client: dict[str, Any] | None = None, **arguments: Any) -> Any:
    with KeyBrokerClient(address, **(client or {})) as broker:
        return getattr(broker, method)(**arguments)


def invoke_async(address: str, method: str, *, client: dict[str, Any] | None = None, **arguments: Any) -> Any:
    async def call() -> Any:
        async with AsyncKeyBrokerClient(address, **(client or {})) as broker:
            return await getattr(broker, method)(**arguments)

    return asyncio.run(call())


@pytest.fixture(params=[invoke_sync, invoke_async], ids=["sync", "asyncio"])
def invoke(request: pytest.FixtureRequest) -> Invoke:
    return request.param


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    with FakeBroker() as running:
        yield running

"""The servicer in isolation: which handler each RPC reaches, on which thread, and what an overload counts as."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import BrokerError, Reason
from keybroker.rpc.call import CURRENT_CALL, Call
from keybroker.rpc.import_meter import ImportMeter
from keybroker.rpc.servicer import KeyBrokerServicer
from keybroker.rpc.workers import Workers
from keybroker.telemetry.metrics import Metrics
from keymaterial.v1 import key_broker_service_pb2 as pb
from tests.builders import FakeClock
from tests.unit.rpc.test_import_meter import durations, failures

METHODS = {
    "ImportExternalKey": "import_external_key",
    "CreateExternalKey": "create_external_key",
    "GetImportParameters": "get_import_parameters",
    "ImportWrappedKeyMaterial": "import_wrapped_key_material",
    "GetImport": "get_import",
    "ListOrphanedKeys": "list_orphaned_keys",
    "DeleteOrphanedKey": "delete_orphaned_key",
    "DescribeKey": "describe_key",
    "ScheduleKeyDeletion": "schedule_key_deletion",
    "CancelKeyDeletion": "cancel_key_deletion",
}
IMPORTS = {"ImportExternalKey", "ImportWrappedKeyMaterial"}
SERVICE = pb.DESCRIPTOR.services_by_name["KeyBrokerService"]


class RecordingHandlers:
    """Every handler notes its name, its call and its thread, and answers with its request."""

    def __init__(self, meter: ImportMeter) -> None:
        self._meter = meter
        self.seen: list[tuple[str, Call, int]] = []
        self.error: BrokerError | None = None

    def __getattr__(self, name: str) -> Any:
        def handle(request: Any, call: Call) -> Any:
            self.seen.append((name, call, threading.get_ident()))
            if self.error is not None:
                with self._meter.measure():
                    raise self.error
            return request

        return handle


class Served:
    """The servicer over the recording handlers."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        meter = ImportMeter(metrics=self.metrics)
        self.handlers: Any = RecordingHandlers(meter)
        self.workers = Workers(limit=1)
        self.servicer = KeyBrokerServicer(handlers=self.handlers, workers=self.workers, meter=meter)
        self.call = Call("/a/method", Deadline.after(1.0, monotonic=FakeClock().monotonic))

    async def invoke(self, method: str, request: Any = None) -> Any:
        CURRENT_CALL.set(self.call)
        return await getattr(self.servicer, method)(request, None)

    async def invoke_while_busy(self, method: str) -> Reason:
        started, let_go = threading.Event(), threading.Event()

        def block() -> None:
            started.set()
            assert let_go.wait(10)

        busy = asyncio.ensure_future(self.workers.run(block))
        assert await asyncio.to_thread(started.wait, 10)
        try:
            with pytest.raises(BrokerError) as caught:
                await self.invoke(method)
        finally:
            let_go.set()
            await busy
        return caught.value.reason


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served()
    yield made
    made.workers.close()


def test_methods_of_the_proto_are_all_served() -> None:
    assert {method.name for method in SERVICE.methods} == set(METHODS)
    assert set(METHODS) <= set(vars(KeyBrokerServicer))


@pytest.mark.parametrize(("method", "handler"), METHODS.items())
def test_method_reaches_its_handler_in_a_worker_with_its_call(served: Served, method: str, handler: str) -> None:
    request = object()
    assert asyncio.run(served.invoke(method, request)) is request
    [(name, call, thread)] = served.handlers.seen
    assert (name, call) == (handler, served.call)
    assert thread != threading.get_ident()


@pytest.mark.parametrize("method", METHODS)
def test_overload_counts_as_a_failure_of_imports_only(served: Served, method: str) -> None:
    assert asyncio.run(served.invoke_while_busy(method)) is Reason.BROKER_OVERLOADED
    assert served.handlers.seen == []
    assert failures(served.metrics) == ({"BROKER_OVERLOADED": 1.0} if method in IMPORTS else {})
    assert durations(served.metrics) == {}


@pytest.mark.parametrize("method", sorted(IMPORTS))
def test_overload_of_the_kms_is_counted_once_by_the_handler(served: Served, method: str) -> None:
    served.handlers.error = BrokerError(Reason.BROKER_OVERLOADED, "From inside.")
    with pytest.raises(BrokerError):
        asyncio.run(served.invoke(method))
    assert failures(served.metrics) == {"BROKER_OVERLOADED": 1.0}

"""keymaterial.v1.KeyBrokerService: hands each RPC to a worker thread."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import structlog

from keybroker.domain.errors import BrokerError
from keybroker.rpc.call import CURRENT_CALL, Call
from keybroker.rpc.handlers import Handlers
from keybroker.rpc.import_meter import ImportMeter
from keybroker.rpc.interceptors.unary import Context
from keybroker.rpc.workers import Workers
from keybroker.telemetry.logs import exception_chain
from keymaterial.v1 import key_broker_service_pb2 as pb
from keymaterial.v1.key_broker_service_pb2_grpc import KeyBrokerServiceServicer

Request = TypeVar("Request")
Response = TypeVar("Response")


def _ignore(seconds: float) -> None:
    """For tests of other things."""


class KeyBrokerServicer(KeyBrokerServiceServicer):
    """The asyncio shell: nothing here blocks, and nothing here decides.

    `on_overrun` is told of each call how many seconds after its deadline its work ended, whether or not its caller
    still waited: 0.0 if in time.
    """

    def __init__(
        self,
        *,
        handlers: Handlers,
        workers: Workers,
        meter: ImportMeter,
        on_overrun: Callable[[float], None] = _ignore,
    ) -> None:
        self._handlers = handlers
        self._workers = workers
        self._meter = meter
        self._on_overrun = on_overrun

    async def ImportExternalKey(
        self, request: pb.ImportExternalKeyRequest, context: Context
    ) -> pb.ImportExternalKeyResponse:
        """See the .proto."""
        return await self._import(self._handlers.import_external_key, request)

    async def CreateExternalKey(
        self, request: pb.CreateExternalKeyRequest, context: Context
    ) -> pb.CreateExternalKeyResponse:
        """See the .proto."""
        return await self._run(self._handlers.create_external_key, request)

    async def GetImportParameters(
        self, request: pb.GetImportParametersRequest, context: Context
    ) -> pb.GetImportParametersResponse:
        """See the .proto."""
        return await self._run(self._handlers.get_import_parameters, request)

    async def ImportWrappedKeyMaterial(
        self, request: pb.ImportWrappedKeyMaterialRequest, context: Context
    ) -> pb.ImportWrappedKeyMaterialResponse:
        """See the .proto."""
        return await self._import(self._handlers.import_wrapped_key_material, request)

    async def GetImport(self, request: pb.GetImportRequest, context: Context) -> pb.GetImportResponse:
        """See the .proto."""
        return await self._run(self._handlers.get_import, request)

    async def ListOrphanedKeys(
        self, request: pb.ListOrphanedKeysRequest, context: Context
    ) -> pb.ListOrphanedKeysResponse:
        """See the .proto."""
        return await self._run(self._handlers.list_orphaned_keys, request)

    async def DeleteOrphanedKey(
        self, request: pb.DeleteOrphanedKeyRequest, context: Context
    ) -> pb.DeleteOrphanedKeyResponse:
        """See the .proto."""
        return await self._run(self._handlers.delete_orphaned_key, request)

    async def DescribeKey(self, request: pb.DescribeKeyRequest, context: Context) -> pb.DescribeKeyResponse:
        """See the .proto."""
        return await self._run(self._handlers.describe_key, request)

    async def ScheduleKeyDeletion(
        self, request: pb.ScheduleKeyDeletionRequest, context: Context
    ) -> pb.ScheduleKeyDeletionResponse:
        """See the .proto."""
        return await self._run(self._handlers.schedule_key_deletion, request)

    async def CancelKeyDeletion(
        self, request: pb.CancelKeyDeletionRequest, context: Context
    ) -> pb.CancelKeyDeletionResponse:
        """See the .proto."""
        return await self._run(self._handlers.cancel_key_deletion, request)

    async def _run(self, handle: Callable[[Request, Call], Response], request: Request) -> Response:
        call = CURRENT_CALL.get()
        work = partial(self._timed, handle, request, call)
        return await self._workers.run(work, on_abandoned=partial(_log_abandoned, call))

    async def _import(self, handle: Callable[[Request, Call], Response], request: Request) -> Response:
        started = False
        call = CURRENT_CALL.get()

        def work() -> Response:
            nonlocal started
            started = True
            return self._timed(handle, request, call)

        try:
            return await self._workers.run(work, on_abandoned=partial(_log_abandoned, call))
        except BrokerError as error:
            if not started:
                self._meter.refused(error.reason)
            raise

    def _timed(self, handle: Callable[[Request, Call], Response], request: Request, call: Call) -> Response:
        try:
            return handle(request, call)
        finally:
            self._on_overrun(call.deadline.overdue_seconds())


def _log_abandoned(call: Call, error: BaseException | None) -> None:
    """The only place that says how a call ended whose caller had gone: an import may be bound, a CMK created."""
    log = structlog.get_logger()
    fields = {"method": call.method, "correlation_id": call.correlation_id, **call.noted.fields()}
    if error is None:
        log.info("ended without its caller", code="OK", **fields)
    elif isinstance(error, BrokerError):
        log.info("ended without its caller", code=error.rule.code.value, reason=error.reason.value, **fields)
    else:
        log.error("ended without its caller", code="INTERNAL", exceptions=exception_chain(error), **fields)

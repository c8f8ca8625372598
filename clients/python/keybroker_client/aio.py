"""The asyncio client: one coroutine for each RPC, the same as in keybroker_client.client."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self, TypeVar

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from keybroker_client import calls
from keybroker_client.channel import channel_options as merged_options
from keybroker_client.channel import require_private
from keybroker_client.retries import DEFAULT_RETRIES, Retries
from keymaterial.v1 import key_broker_service_pb2 as pb
from keymaterial.v1.key_broker_service_pb2_grpc import KeyBrokerServiceStub

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from keymaterial.v1.key_broker_service_pb2_grpc import KeyBrokerServiceAsyncStub
    from keymaterial.v1.types_pb2 import NewKey, WrappingAlgorithm

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT")


class AsyncKeyBrokerClient:
    """Calls a broker from a coroutine; made inside a running event loop and used in that loop only.

    Arguments, timeouts and errors are those of KeyBrokerClient. A task that is cancelled during a change leaves
    its outcome unknown: whoever cancels gives the request_id, and can repeat the call with it.
    """

    def __init__(  # noqa: PLR0913 - keyword-only, each with a default
        self,
        target: str,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        allow_insecure: bool = False,
        timeout_seconds: float | None = None,
        retries: int = DEFAULT_RETRIES,
        channel_options: Sequence[tuple[str, str | int]] = (),
    ) -> None:
        options = merged_options(channel_options)
        if credentials is None:
            require_private(target, allow_insecure=allow_insecure)
            self._channel = grpc.aio.insecure_channel(target, options)
        else:
            self._channel = grpc.aio.secure_channel(target, credentials, options)
        self._stub: KeyBrokerServiceAsyncStub = KeyBrokerServiceStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)
        self._timeout_seconds = timeout_seconds
        self._retries = Retries(retries)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection; calls under way are cancelled."""
        await self._channel.close()

    async def import_external_key(  # noqa: PLR0913 - keyword-only, one for each field
        self,
        *,
        key_id: str | None = None,
        new_key: NewKey | None = None,
        wrapping_algorithm: WrappingAlgorithm | None = None,
        validate_only: bool = False,
        allow_second_key: bool = False,
        instance: str = "",
        request_id: str | None = None,
        timeout_seconds: float | None = None,
    ) -> pb.ImportExternalKeyResponse:
        """Has the broker generate key material and import it, into the CMK key_id or into a new CMK."""
        calls.check_target(key_id, new_key)
        request = pb.ImportExternalKeyRequest(
            request_id=request_id,
            instance=instance,
            key_id=key_id,
            new_key=new_key,
            wrapping_algorithm=wrapping_algorithm,
            validate_only=validate_only,
            allow_second_key=allow_second_key,
        )
        return await self._call(self._stub.ImportExternalKey, request, timeout_seconds)

    async def create_external_key(
        self,
        *,
        new_key: NewKey,
        allow_second_key: bool = False,
        instance: str = "",
        request_id: str | None = None,
        timeout_seconds: float | None = None,
    ) -> pb.CreateExternalKeyResponse:
        """Creates a CMK without key material: one for each request_id."""
        request = pb.CreateExternalKeyRequest(
            request_id=request_id, instance=instance, new_key=new_key, allow_second_key=allow_second_key
        )
        return await self._call(self._stub.CreateExternalKey, request, timeout_seconds)

    async def get_import_parameters(
        self,
        *,
        key_id: str,
        wrapping_algorithm: WrappingAlgorithm | None = None,
        instance: str = "",
        timeout_seconds: float | None = None,
    ) -> pb.GetImportParametersResponse:
        """Gets a wrapping public key and its import token, for callers who wrap their own key material."""
        request = pb.GetImportParametersRequest(instance=instance, key_id=key_id, wrapping_algorithm=wrapping_algorithm)
        return await self._call(self._stub.GetImportParameters, request, timeout_seconds)

    async def import_wrapped_key_material(  # noqa: PLR0913 - keyword-only, one for each field
        self,
        *,
        key_id: str,
        wrapped_key_material: bytes,
        import_token: str,
        validate_only: bool = False,
        instance: str = "",
        request_id: str | None = None,
        timeout_seconds: float | None = None,
    ) -> pb.ImportWrappedKeyMaterialResponse:
        """Imports key material that the caller wrapped: 256 bytes, with the import token they belong to."""
        request = pb.ImportWrappedKeyMaterialRequest(
            request_id=request_id,
            instance=instance,
            key_id=key_id,
            wrapped_key_material=wrapped_key_material,
            import_token=import_token,
            validate_only=validate_only,
        )
        return await self._call(self._stub.ImportWrappedKeyMaterial, request, timeout_seconds)

    async def get_import(self, *, request_id: str, timeout_seconds: float | None = None) -> pb.GetImportResponse:
        """Reads what the broker has recorded of an earlier import or creation of this caller, and changes nothing."""
        request = pb.GetImportRequest(request_id=request_id)
        return await self._call(self._stub.GetImport, request, timeout_seconds)

    async def list_orphaned_keys(
        self, *, instance: str = "", page_token: str = "", timeout_seconds: float | None = None
    ) -> pb.ListOrphanedKeysResponse:
        """Lists CMKs that this broker created and that still wait for key material: one page, of up to 100."""
        request = pb.ListOrphanedKeysRequest(instance=instance, page_token=page_token)
        return await self._call(self._stub.ListOrphanedKeys, request, timeout_seconds)

    async def delete_orphaned_key(
        self,
        *,
        key_id: str,
        pending_window_days: int,
        instance: str = "",
        request_id: str | None = None,
        timeout_seconds: float | None = None,
    ) -> pb.DeleteOrphanedKeyResponse:
        """Schedules the deletion of such a CMK, and of no other, 7 to 30 days ahead."""
        request = pb.DeleteOrphanedKeyRequest(
            request_id=request_id,
            instance=instance,
            key_id=key_id,
            pending_window=calls.days(pending_window_days),
        )
        return await self._call(self._stub.DeleteOrphanedKey, request, timeout_seconds)

    async def describe_key(
        self, *, key_id: str, instance: str = "", timeout_seconds: float | None = None
    ) -> pb.DescribeKeyResponse:
        """Reads a CMK, by key id, ARN or alias."""
        request = pb.DescribeKeyRequest(instance=instance, key_id=key_id)
        return await self._call(self._stub.DescribeKey, request, timeout_seconds)

    async def schedule_key_deletion(
        self,
        *,
        key_id: str,
        pending_window_days: int,
        instance: str = "",
        request_id: str | None = None,
        timeout_seconds: float | None = None,
    ) -> pb.ScheduleKeyDeletionResponse:
        """Schedules the deletion of a CMK and its key material, 7 to 30 days ahead."""
        request = pb.ScheduleKeyDeletionRequest(
            request_id=request_id,
            instance=instance,
            key_id=key_id,
            pending_window=calls.days(pending_window_days),
        )
        return await self._call(self._stub.ScheduleKeyDeletion, request, timeout_seconds)

    async def cancel_key_deletion(
        self,
        *,
        key_id: str,
        instance: str = "",
        request_id: str | None = None,
        timeout_seconds: float | None = None,
    ) -> pb.CancelKeyDeletionResponse:
        """Cancels a scheduled deletion."""
        request = pb.CancelKeyDeletionRequest(request_id=request_id, instance=instance, key_id=key_id)
        return await self._call(self._stub.CancelKeyDeletion, request, timeout_seconds)

    async def check_health(self, service: str = "", *, timeout_seconds: float | None = None) -> str:
        """Asks the broker how it is (grpc.health.v1): "SERVING", "NOT_SERVING" or another ServingStatus name."""
        request = health_pb2.HealthCheckRequest(service=service)
        response: Any = await self._call(self._health.Check, request, timeout_seconds)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))

    async def _call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[RequestT, ResponseT],
        request: RequestT,
        timeout_seconds: float | None,
    ) -> ResponseT:
        calls.prepare(request)
        call = self._retries.start(request, calls.timeout_for(request, timeout_seconds, self._timeout_seconds))
        while True:
            try:
                return await method(request, timeout=call.remaining_seconds())
            except grpc.RpcError as error:
                pause_seconds = call.pause_seconds(error)
            await asyncio.sleep(pause_seconds)

"""The client: one method for each RPC. What an RPC does and when to repeat it: key_broker_service.proto.

The asyncio client in keybroker_client.aio is the same; what they share is in calls, channel, retries
and translation.
"""

from __future__ import annotations

import time
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

    from keymaterial.v1.types_pb2 import NewKey, WrappingAlgorithm

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT")


class KeyBrokerClient:
    """Calls a broker. Threads can share it; close it, or use it in a with statement.

    target: gRPC's name of the broker: "HOST:PORT", "dns:///...", "unix:...".
    credentials: for TLS, from grpc.ssl_channel_credentials. Without, the target must be on this host
    unless allow_insecure is set; otherwise ValueError.
    timeout_seconds: for each call, its retries included; 15 for changes and 10 for reads if not given.
    A method's own timeout_seconds goes before it.
    retries: how often a call is repeated at most, within its timeout; 0: never. What is repeated and when:
    keybroker_client.retries.
    channel_options: gRPC channel arguments over those of keybroker_client.channel.

    Every method raises KeyBrokerError or one of its subclasses. instance: a KMS instance by its name in the
    broker's configuration; empty: the default. request_id: a UUID; generated if not given. A caller who
    may die during a call gives its own and keeps it: with it the call can be repeated later, see get_import too.
    allow_second_key: consent to another CMK, after CREATE_OUTCOME_UNKNOWN only; such a call is sent once.
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
            self._channel = grpc.insecure_channel(target, options)
        else:
            self._channel = grpc.secure_channel(target, credentials, options)
        self._stub = KeyBrokerServiceStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)
        self._timeout_seconds = timeout_seconds
        self._retries = Retries(retries)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; calls under way are cancelled."""
        self._channel.close()

    def import_external_key(  # noqa: PLR0913 - keyword-only, one for each field
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
        return self._call(self._stub.ImportExternalKey, request, timeout_seconds)

    def create_external_key(
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
        return self._call(self._stub.CreateExternalKey, request, timeout_seconds)

    def get_import_parameters(
        self,
        *,
        key_id: str,
        wrapping_algorithm: WrappingAlgorithm | None = None,
        instance: str = "",
        timeout_seconds: float | None = None,
    ) -> pb.GetImportParametersResponse:
        """Gets a wrapping public key and its import token, for callers who wrap their own key material."""
        request = pb.GetImportParametersRequest(instance=instance, key_id=key_id, wrapping_algorithm=wrapping_algorithm)
        return self._call(self._stub.GetImportParameters, request, timeout_seconds)

    def import_wrapped_key_material(  # noqa: PLR0913 - keyword-only, one for each field
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
        return self._call(self._stub.ImportWrappedKeyMaterial, request, timeout_seconds)

    def get_import(self, *, request_id: str, timeout_seconds: float | None = None) -> pb.GetImportResponse:
        """Reads what the broker has recorded of an earlier import or creation of this caller, and changes nothing."""
        request = pb.GetImportRequest(request_id=request_id)
        return self._call(self._stub.GetImport, request, timeout_seconds)

    def list_orphaned_keys(
        self, *, instance: str = "", page_token: str = "", timeout_seconds: float | None = None
    ) -> pb.ListOrphanedKeysResponse:
        """Lists CMKs that this broker created and that still wait for key material: one page, of up to 100."""
        request = pb.ListOrphanedKeysRequest(instance=instance, page_token=page_token)
        return self._call(self._stub.ListOrphanedKeys, request, timeout_seconds)

    def delete_orphaned_key(
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
        return self._call(self._stub.DeleteOrphanedKey, request, timeout_seconds)

    def describe_key(
        self, *, key_id: str, instance: str = "", timeout_seconds: float | None = None
    ) -> pb.DescribeKeyResponse:
        """Reads a CMK, by key id, ARN or alias."""
        request = pb.DescribeKeyRequest(instance=instance, key_id=key_id)
        return self._call(self._stub.DescribeKey, request, timeout_seconds)

    def schedule_key_deletion(
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
        return self._call(self._stub.ScheduleKeyDeletion, request, timeout_seconds)

    def cancel_key_deletion(
        self,
        *,
        key_id: str,
        instance: str = "",
        request_id: str | None = None,
        timeout_seconds: float | None = None,
    ) -> pb.CancelKeyDeletionResponse:
        """Cancels a scheduled deletion."""
        request = pb.CancelKeyDeletionRequest(request_id=request_id, instance=instance, key_id=key_id)
        return self._call(self._stub.CancelKeyDeletion, request, timeout_seconds)

    def check_health(self, service: str = "", *, timeout_seconds: float | None = None) -> str:
        """Asks the broker how it is (grpc.health.v1): "SERVING", "NOT_SERVING" or another ServingStatus name."""
        request = health_pb2.HealthCheckRequest(service=service)
        response: Any = self._call(self._health.Check, request, timeout_seconds)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))

    def _call(
        self,
        method: grpc.UnaryUnaryMultiCallable[RequestT, ResponseT],
        request: RequestT,
        timeout_seconds: float | None,
    ) -> ResponseT:
        calls.prepare(request)
        call = self._retries.start(request, calls.timeout_for(request, timeout_seconds, self._timeout_seconds))
        while True:
            try:
                return method(request, timeout=call.remaining_seconds())
            except grpc.RpcError as error:
                pause_seconds = call.pause_seconds(error)
            time.sleep(pause_seconds)

"""A KeyBrokerService on 127.0.0.1 that records what it gets and answers what a test puts in.

Not the broker: it has no KMS and checks nothing. A test sets `answers[RPC]` to a message, to a Failure, or
to a list of them (one for each call, the last for all further ones), and reads `calls`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import grpc
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import HealthServicer
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from keymaterial.v1 import key_broker_service_pb2 as pb
from keymaterial.v1 import types_pb2 as types
from keymaterial.v1.key_broker_service_pb2_grpc import add_KeyBrokerServiceServicer_to_server

if TYPE_CHECKING:
    import threading

    from google.protobuf.message import Message

KEY_ID = "key-hzz62f1cb66fa42qo1234"
TOKEN = "Base64String-import-token-canary=="
PUBLIC_KEY = bytes(range(256)) + bytes(38)
RPCS = tuple(method.name for method in pb.DESCRIPTOR.services_by_name["KeyBrokerService"].methods)


@dataclass
class Failure:
    """A status for the fake to answer; with a reason it carries the details that the broker would give."""

    code: grpc.StatusCode
    reason: str = ""
    message: str = "something went wrong"
    metadata: dict[str, str] = field(default_factory=dict)
    details: tuple[Message, ...] = ()
    domain: str = "keybroker"
    after: threading.Event | None = None
    """It comes when this is set, or 20 s later."""

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        if not self.reason:
            return ()
        info = error_details_pb2.ErrorInfo(reason=self.reason, domain=self.domain, metadata=self.metadata)
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for message in (info, *self.details):
            packed = any_pb2.Any()
            packed.Pack(message)
            status.details.append(packed)
        return (("grpc-status-details-bin", status.SerializeToString()),)


def bad_request(name: str, advice: str) -> Message:
    violation = error_details_pb2.BadRequest.FieldViolation(field=name, description=advice)
    return error_details_pb2.BadRequest(field_violations=[violation])


def precondition(advice: str) -> Message:
    violation = error_details_pb2.PreconditionFailure.Violation(type="KEY", subject=KEY_ID, description=advice)
    return error_details_pb2.PreconditionFailure(violations=[violation])


def retry_info(seconds: float) -> Message:
    return error_details_pb2.RetryInfo(retry_delay=Duration(seconds=int(seconds), nanos=int(seconds % 1 * 10**9)))


def external_key(**fields: Any) -> types.ExternalKey:
    defaults: dict[str, Any] = {
        "key_id": KEY_ID,
        "arn": f"acs:kms:cn-hangzhou:123456789012:key/{KEY_ID}",
        "instance": "main",
        "dkms_instance_id": "kst-example",
        "key_spec": types.KEY_SPEC_AES_256,
        "state": types.KEY_STATE_ENABLED,
        "origin": types.KEY_ORIGIN_EXTERNAL,
        "create_time": {"seconds": 1_795_000_000},
    }
    return types.ExternalKey(**(defaults | fields))


def orphaned_key(**fields: Any) -> pb.OrphanedKey:
    defaults: dict[str, Any] = {
        "key": external_key(state=types.KEY_STATE_PENDING_IMPORT),
        "request_id": "6f1c9c1e-3c1b-4f65-9c53-3a8f1c1d2e3f",
        "caller": "spiffe://example/billing",
        "state": types.REQUEST_STATE_RELEASED,
        "age": {"seconds": 273_845},
        "deletable": True,
    }
    return pb.OrphanedKey(**(defaults | fields))


def default_answers() -> dict[str, Message | Failure | list[Message | Failure]]:
    key, empty = external_key(), external_key(state=types.KEY_STATE_PENDING_IMPORT)
    imported = {"seconds": 1_795_000_060}
    return {
        "ImportExternalKey": pb.ImportExternalKeyResponse(
            key=key,
            key_check_value={"method": types.KEY_CHECK_VALUE_METHOD_CMAC_AES, "value": b"\x1a\x2b\x3c"},
            wrapping_algorithm=types.WRAPPING_ALGORITHM_RSAES_OAEP_SHA_256,
            evidence=types.IMPORT_EVIDENCE_ACCEPTED,
            parameters_source=types.PARAMETERS_SOURCE_FETCHED,
            import_time=imported,
            kms_request_id="4c8ae23f-3a42-6791-a4ba-1faa77831c28",
        ),
        "CreateExternalKey": pb.CreateExternalKeyResponse(key=empty, kms_request_id="create-1"),
        "GetImportParameters": pb.GetImportParametersResponse(
            key_id=KEY_ID,
            wrapping_public_key=PUBLIC_KEY,
            import_token=TOKEN,
            wrapping_algorithm=types.WRAPPING_ALGORITHM_RSAES_OAEP_SHA_256,
            expire_time={"seconds": 1_795_086_400},
        ),
        "ImportWrappedKeyMaterial": pb.ImportWrappedKeyMaterialResponse(
            key=key, import_time=imported, kms_request_id="import-1"
        ),
        "GetImport": pb.GetImportResponse(
            request_id="6f1c9c1e-3c1b-4f65-9c53-3a8f1c1d2e3f",
            state=types.REQUEST_STATE_IMPORTED,
            key_id=KEY_ID,
            created_key_id=KEY_ID,
            evidence=types.IMPORT_EVIDENCE_PROVED,
            key_check_value={"method": types.KEY_CHECK_VALUE_METHOD_CMAC_AES, "value": b"\x1a\x2b\x3c"},
            wrapping_algorithm=types.WRAPPING_ALGORITHM_RSAES_OAEP_SHA_256,
            kms_request_id="import-1",
            import_time=imported,
            sends=2,
            create_time={"seconds": 1_795_000_050},
            update_time={"seconds": 1_795_000_070},
        ),
        "ListOrphanedKeys": pb.ListOrphanedKeysResponse(keys=[orphaned_key()]),
        "DeleteOrphanedKey": pb.DeleteOrphanedKeyResponse(
            key=external_key(state=types.KEY_STATE_PENDING_DELETION, delete_time={"seconds": 1_795_604_800}),
            kms_request_id="schedule-2",
        ),
        "DescribeKey": pb.DescribeKeyResponse(key=key),
        "ScheduleKeyDeletion": pb.ScheduleKeyDeletionResponse(
            key=external_key(state=types.KEY_STATE_PENDING_DELETION, delete_time={"seconds": 1_795_604_800}),
            kms_request_id="schedule-1",
        ),
        "CancelKeyDeletion": pb.CancelKeyDeletionResponse(key=key, kms_request_id="cancel-1"),
    }


@dataclass
class Received:
    """One call as it arrived."""

    rpc: str
    request: Any
    time_remaining_seconds: float


class FakeBroker:
    """The server: a context manager that listens between enter and exit."""

    def __init__(
        self, *, credentials: grpc.ServerCredentials | None = None, health: bool = True, address: str = "127.0.0.1:0"
    ) -> None:
        self.answers = default_answers()
        self.calls: list[Received] = []
        self.health = HealthServicer()
        self._pool = ThreadPoolExecutor(4)
        self._server = grpc.server(self._pool)
        add_KeyBrokerServiceServicer_to_server(self, self._server)  # type: ignore[arg-type]
        if health:
            add_HealthServicer_to_server(self.health, self._server)
        if credentials is None:
            port = self._server.add_insecure_port(address)
        else:
            port = self._server.add_secure_port(address, credentials)
        self.address = f"127.0.0.1:{port}"

    def __enter__(self) -> Self:
        self.set_health(health_pb2.HealthCheckResponse.SERVING)
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(grace=None).wait()
        self._pool.shutdown()

    def set_health(self, status: int, service: str = "") -> None:
        self.health.set(service, status)

    @property
    def rpcs(self) -> list[str]:
        return [call.rpc for call in self.calls]

    @property
    def only_call(self) -> Received:
        (call,) = self.calls
        return call

    def __getattr__(self, name: str) -> Any:
        if name not in RPCS:
            raise AttributeError(name)
        return lambda request, context: self._answer(name, request, context)

    def _answer(self, rpc: str, request: Message, context: grpc.ServicerContext) -> Message:
        self.calls.append(Received(rpc, request, context.time_remaining() or 0.0))
        answer = self.answers[rpc]
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if isinstance(answer, Failure):
            if answer.after:
                answer.after.wait(20)
            context.set_trailing_metadata(answer.trailing_metadata())
            context.abort(answer.code, answer.message)
        return answer

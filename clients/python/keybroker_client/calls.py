"""What both clients do to a request before it is sent: request ids, deadlines, checks of arguments.

Fields are checked by the broker, once and for all callers. Checked here is only what a message can
not carry to it.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration

from keymaterial.v1 import key_broker_service_pb2 as pb

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from keymaterial.v1.types_pb2 import NewKey

# The broker works at most 20 seconds on a call and shaves its own margin off the caller's deadline.
CHANGE_TIMEOUT_SECONDS = 15.0
READ_TIMEOUT_SECONDS = 10.0

SECONDS_PER_DAY = 86_400

IDEMPOTENT_CHANGES = (pb.ImportExternalKeyRequest, pb.ImportWrappedKeyMaterialRequest, pb.CreateExternalKeyRequest)
"""The broker knows these again by their request_id."""
OTHER_CHANGES = (pb.ScheduleKeyDeletionRequest, pb.CancelKeyDeletionRequest, pb.DeleteOrphanedKeyRequest)
READS = (
    pb.GetImportParametersRequest,
    pb.DescribeKeyRequest,
    pb.GetImportRequest,
    pb.ListOrphanedKeysRequest,
)


def prepare(request: Message) -> None:
    """Names a request that changes state, unless its caller did: a UUID (RFC 9562), version 4."""
    if isinstance(request, IDEMPOTENT_CHANGES + OTHER_CHANGES) and not request.request_id:
        request.request_id = str(uuid.uuid4())


def timeout_for(request: Message, *choices: float | None) -> float:
    """The first timeout that somebody chose; 15 seconds otherwise for a change, 10 for a read."""
    is_change = isinstance(request, IDEMPOTENT_CHANGES + OTHER_CHANGES)
    default = CHANGE_TIMEOUT_SECONDS if is_change else READ_TIMEOUT_SECONDS
    return next((choice for choice in choices if choice is not None), default)


def changes_state(request: Message) -> bool:
    """Whether the call can change anything."""
    is_change = isinstance(request, IDEMPOTENT_CHANGES + OTHER_CHANGES)
    return is_change and not getattr(request, "validate_only", False)


def can_be_repeated(request: Message) -> bool:
    """Whether sending the request again does no more than sending it once."""
    repeatable = isinstance(request, READS + IDEMPOTENT_CHANGES)
    return repeatable and not getattr(request, "allow_second_key", False)


def request_id_of(request: Message) -> str:
    """The id that the request has, or asks for; empty if it is a read of something else."""
    return getattr(request, "request_id", "")


def check_target(key_id: str | None, new_key: NewKey | None) -> None:
    """Refuses two targets of an import, or none: a oneof would keep the last one silently."""
    if (key_id is None) == (new_key is None):
        raise ValueError("give either key_id or new_key")


def days(count: int) -> Duration:
    """A duration of whole days."""
    return Duration(seconds=count * SECONDS_PER_DAY)

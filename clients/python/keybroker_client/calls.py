"""What both clients do to a request before it is sent: request ids, deadlines, checks of arguments.

Fields are checked by the broker, once and for all callers. Checked here is only what a message can
not carry to it.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from keymaterial.v1.types_pb2 import NewKey

# The broker works at most 20 seconds on a call and shaves its own margin off the caller's deadline.
CHANGE_TIMEOUT_SECONDS = 15.0
READ_TIMEOUT_SECONDS = 10.0

SECONDS_PER_DAY = 86_400


def prepare(request: Message) -> None:
    """Names a request that changes state, unless its caller did: a UUID (RFC 9562), version 4."""
    if _takes_request_id(request) and not request_id_of(request):
        request.request_id = str(uuid.uuid4())  # type: ignore[attr-defined]


def timeout_for(request: Message, *choices: float | None) -> float:
    """The first timeout that somebody chose; 15 seconds otherwise for a change, 10 for a read."""
    default = CHANGE_TIMEOUT_SECONDS if _takes_request_id(request) else READ_TIMEOUT_SECONDS
    return next((choice for choice in choices if choice is not None), default)


def changes_state(request: Message) -> bool:
    """Whether the call can change anything. Requests that can carry a request_id, others have none."""
    return _takes_request_id(request) and not getattr(request, "validate_only", False)


def request_id_of(request: Message) -> str:
    """The request's id; empty for a read."""
    return getattr(request, "request_id", "")


def check_target(key_id: str | None, new_key: NewKey | None) -> None:
    """Refuses two targets of an import, or none: a oneof would keep the last one silently."""
    if (key_id is None) == (new_key is None):
        raise ValueError("give either key_id or new_key")


def days(count: int) -> Duration:
    """A duration of whole days."""
    return Duration(seconds=count * SECONDS_PER_DAY)


def _takes_request_id(request: Message) -> bool:
    return "request_id" in request.DESCRIPTOR.fields_by_name

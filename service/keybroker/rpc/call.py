"""The RPC being handled: its deadline, and what may be logged of it.

The fields of Call are the allow-list of the request log. They are set only from values that passed validation.
"""

from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from uuid import uuid4

from keybroker.domain.deadline import Deadline


@dataclass(slots=True)
class Noted:
    """What the request log says of a call. Empty fields are left out."""

    caller: str = ""
    rule: str = ""
    request_id: str = ""
    instance: str = ""
    key_id: str = ""
    created_key_id: str = ""
    wrapping_algorithm: str = ""
    parameters: str = ""
    validate_only: bool = False
    evidence: str = ""
    kms_request_id: str = ""
    replayed: bool = False

    def fields(self) -> dict[str, object]:
        """The fields that have a value."""
        return {name: value for name, value in asdict(self).items() if value}


@dataclass(slots=True)
class Call:
    """One RPC. `correlation_id` leads from an INTERNAL error to the log."""

    method: str
    deadline: Deadline
    correlation_id: str = field(default_factory=lambda: str(uuid4()))
    noted: Noted = field(default_factory=Noted)


CURRENT_CALL: ContextVar[Call] = ContextVar("current_call")

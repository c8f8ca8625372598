"""Calls that go well and calls that do not: between them they come through all of the broker that can be struck."""

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from google.protobuf.duration_pb2 import Duration

from keymaterial.v1 import key_broker_service_pb2 as pb
from keymaterial.v1 import types_pb2
from kms_emulator import Emulator, Fault
from tests.canaries.course import OAEP, PKCS1, SPECS, wrapped

WEEK = Duration(seconds=604800)
Send = Callable[[str, Any], bytes]


def request_of(method: str, **fields: Any) -> Any:
    """A request with an id of its own, if it has one."""
    message = getattr(pb, f"{method}Request")
    own = {"request_id": str(uuid4())} if "request_id" in message.DESCRIPTOR.fields_by_name else {}
    return message(**own | fields)


def _new_key(_: Emulator, __: Send) -> dict[str, Any]:
    alias = f"alias/{secrets.token_hex(8)}"
    return {"new_key": types_pb2.NewKey(key_spec=SPECS[2], alias=alias, description="text", tags={"team": "payments"})}


def _key(algorithm: int = OAEP, **changes: Any) -> Callable[[Emulator, Send], dict[str, Any]]:
    def fields(emulator: Emulator, _: Send) -> dict[str, Any]:
        return {"key_id": emulator.create_key(), "wrapping_algorithm": algorithm, **changes}

    return fields


def _wrapped(emulator: Emulator, send: Send) -> dict[str, Any]:
    key_id = emulator.create_key()
    parameters = pb.GetImportParametersResponse.FromString(
        send("GetImportParameters", request_of("GetImportParameters", key_id=key_id))
    )
    return {
        "key_id": key_id,
        "import_token": parameters.import_token,
        "wrapped_key_material": wrapped(parameters, os.urandom(32)),
    }


def _foreign(emulator: Emulator, _: Send) -> dict[str, Any]:
    key_id = emulator.create_key()
    return {"key_id": key_id, "import_token": secrets.token_urlsafe(60), "wrapped_key_material": os.urandom(256)}


def _orphan(_: Emulator, send: Send) -> dict[str, Any]:
    created = send("CreateExternalKey", request_of("CreateExternalKey", new_key=types_pb2.NewKey(key_spec=SPECS[0])))
    return {"key_id": pb.CreateExternalKeyResponse.FromString(created).key.key_id, "pending_window": WEEK}


def _imported(emulator: Emulator, send: Send) -> dict[str, Any]:
    request = request_of("ImportExternalKey", key_id=emulator.create_key())
    send("ImportExternalKey", request)
    return {"request_id": request.request_id}


def _existing(state: str, **fields: Any) -> Callable[[Emulator, Send], dict[str, Any]]:
    return lambda emulator, _: {"key_id": emulator.create_key(state=state), **fields}


@dataclass(frozen=True)
class Scenario:
    """One call: its method, what gives the fields of its request, and what strikes the emulator meanwhile."""

    method: str
    fields: Callable[[Emulator, Send], dict[str, Any]]
    faults: tuple[Fault, ...] = field(default=())


def _refused(code: str, operation: str = "ImportKeyMaterial", **changes: Any) -> tuple[Fault, ...]:
    return (Fault(operation=operation, action="error", code=code, **changes),)


SCENARIOS: Mapping[str, Scenario] = {
    "orphans": Scenario("ListOrphanedKeys", lambda *_: {}),  # first: later there are many
    "a new key": Scenario("ImportExternalKey", _new_key),
    "PKCS#1 v1.5": Scenario("ImportExternalKey", _key(PKCS1)),
    "only checked": Scenario("ImportExternalKey", _key(validate_only=True)),
    "token refused": Scenario("ImportExternalKey", _key(), _refused("InvalidImportToken")),
    "answer lost": Scenario(
        "ImportExternalKey", _key(), (Fault(operation="ImportKeyMaterial", when="after", action="drop"),)
    ),
    "throttled": Scenario("ImportExternalKey", _key(), _refused("Rejected.Throttling", count=0)),
    "material refused": Scenario("ImportExternalKey", _key(), _refused("InvalidKeyMaterial", count=0)),
    "key not created": Scenario("ImportExternalKey", _new_key, _refused("Rejected.Throttling", "CreateKey", count=0)),
    "creation lost": Scenario(
        "ImportExternalKey", _new_key, (Fault(operation="CreateKey", when="after", action="drop"),)
    ),
    "public key refused": Scenario(
        "ImportExternalKey", _key(), (Fault(operation="GetParametersForImport", action="public_key_short", count=0),)
    ),
    "bound already": Scenario("ImportExternalKey", _existing("Enabled")),
    "no such request": Scenario("GetImport", lambda *_: {}),
    "a field is wrong": Scenario("ImportExternalKey", lambda *_: {"key_id": "\u2028"}),
    "wrapped by the caller": Scenario("ImportWrappedKeyMaterial", _wrapped),
    "wrapped, token unknown": Scenario("ImportWrappedKeyMaterial", _foreign),
    "parameters": Scenario("GetImportParameters", _key()),
    "creation": Scenario("CreateExternalKey", _new_key),
    "an import told": Scenario("GetImport", _imported),
    "description": Scenario("DescribeKey", lambda emulator, _: {"key_id": emulator.create_key()}),
    "deletion": Scenario("ScheduleKeyDeletion", _existing("Enabled", pending_window=WEEK)),
    "no deletion": Scenario("CancelKeyDeletion", _existing("PendingDeletion")),
    "deletion of an orphan": Scenario("DeleteOrphanedKey", _orphan),
}

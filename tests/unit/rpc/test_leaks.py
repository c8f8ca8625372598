"""A canary in every text of every request, refused or not: neither client nor log nor standard error repeats it.

The whole path from the wire to the use cases, over the fake KMS.
"""

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from keybroker.rpc.handlers import Handlers, UseCases
from keybroker.rpc.import_meter import ImportMeter
from keybroker.rpc.servicer import KeyBrokerServicer
from keybroker.rpc.workers import Workers
from keybroker.telemetry.metrics import Metrics
from keymaterial.v1 import key_broker_service_pb2 as pb
from keymaterial.v1 import types_pb2
from tests.builders import World
from tests.unit.rpc.harness import SERVICE, Outcome, call

CANARY = "canary-2b8e77"
REFUSED = f"{CANARY} \u2028\u00e9"  # no field but free text takes white space or anything beyond ASCII
REQUEST_ID = "8a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"

Change = Callable[[Any], None]
BROKER_SERVICE = pb.DESCRIPTOR.services_by_name["KeyBrokerService"]


def good_request(method: str, key_id: str) -> Message:
    """One that the fake KMS's CMK would take."""
    request: Any = getattr(pb, f"{method}Request")()
    for field, value in {
        "request_id": REQUEST_ID,
        "key_id": key_id,
        "wrapped_key_material": bytes(256),
        "import_token": "a-token",
        "pending_window": Duration(seconds=604800),
    }.items():
        if field in request.DESCRIPTOR.fields_by_name:
            set_field(request, field, value)
    if method == "CreateExternalKey":
        request.new_key.key_spec = types_pb2.KEY_SPEC_AES_256
    return request


def set_field(message: Any, field: str, value: Any) -> None:
    if isinstance(value, Message):
        getattr(message, field).CopyFrom(value)
    else:
        setattr(message, field, value)


def changes(message: Any, path: str = "") -> Iterator[tuple[str, Change]]:
    """For each text or bytes field, at any depth, what puts a bad value with the canary there."""
    for field in message.DESCRIPTOR.fields:
        name = f"{path}{field.name}"
        if field.type == field.TYPE_STRING:
            yield name, lambda request, name=name: set_at(request, name, REFUSED)
        elif field.type == field.TYPE_BYTES:
            yield name, lambda request, name=name: set_at(request, name, CANARY.encode() * 9)
        elif field.type == field.TYPE_MESSAGE and field.message_type.GetOptions().map_entry:
            yield f"{name} (key)", lambda request, name=name: set_at(request, name, {f"acs:{CANARY}": "value"})
            yield f"{name} (value)", lambda request, name=name: set_at(request, name, {"key": f"{CANARY}{'x' * 128}"})
        elif field.type == field.TYPE_MESSAGE and field.message_type.full_name.startswith("keymaterial."):
            yield from changes(getattr(message, field.name), f"{name}.")


def set_at(request: Any, path: str, value: Any) -> None:
    *parents, field = path.split(".")
    for parent in parents:
        request = getattr(request, parent)
        request.key_spec = types_pb2.KEY_SPEC_AES_256
    if field == "description":
        value = CANARY * 1000  # only its length can be wrong
    if isinstance(value, dict):
        getattr(request, field).update(value)
    else:
        setattr(request, field, value)


CASES = [
    pytest.param(method.name, change, id=f"{method.name} {path}")
    for method in BROKER_SERVICE.methods
    for path, change in changes(good_request(method.name, "key-1"))
]


def made_call(method: str, change: Change) -> Outcome:
    world, metrics = World(), Metrics()
    meter, workers = ImportMeter(metrics=metrics), Workers(limit=2)
    handlers = Handlers(
        instances={"main": world.kms},
        default_instance="main",
        use_cases=UseCases(
            import_external_key=world.import_external_key,
            import_wrapped_key_material=world.import_wrapped,
            hand_out_import_parameters=world.hand_out,
            create_external_key=world.create,
            manage_keys=world.manage,
            get_import=world.assembly.get_import,
            orphans=world.assembly.orphans,
        ),
        meter=meter,
        access=None,
        forbid_pkcs1_v1_5=False,
    )
    request = good_request(method, world.kms.add_key())
    change(request)
    try:
        servicer = KeyBrokerServicer(handlers=handlers, workers=workers, meter=meter)
        outcome = call(servicer, request, method=f"/{SERVICE}/{method}", metrics=metrics)
    finally:
        workers.close()
    assert CANARY not in str(list(metrics.registry.collect()))
    return outcome


@pytest.mark.parametrize(("method", "change"), CASES)
def test_refused_text_is_repeated_to_nobody(
    method: str, change: Change, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    outcome = made_call(method, change)
    printed = capfd.readouterr()
    assert outcome.code is grpc.StatusCode.INVALID_ARGUMENT
    assert outcome.error_info.reason == "INVALID_FIELD"
    assert CANARY not in f"{outcome.everything()}{caplog.text}{printed.out}{printed.err}"


def test_cases_cover_what_the_protos_have() -> None:
    ids = {str(case.id) for case in CASES}
    assert len(ids) == len(CASES)
    assert ids >= {
        "ImportExternalKey new_key.description",
        "ImportExternalKey new_key.tags (key)",
        "ImportWrappedKeyMaterial wrapped_key_material",
        "ImportWrappedKeyMaterial import_token",
        "GetImportParameters instance",
    }


ACCEPTED: dict[str, tuple[str, Change, grpc.StatusCode]] = {
    "description": (
        "CreateExternalKey",
        lambda request: set_text(request.new_key, "description"),
        grpc.StatusCode.OK,
    ),
    "tags": (
        "CreateExternalKey",
        lambda request: set_at(request, "new_key.tags", {CANARY: CANARY}),
        grpc.StatusCode.OK,
    ),
    "import_token": (
        "ImportWrappedKeyMaterial",
        lambda request: set_text(request, "import_token"),
        grpc.StatusCode.FAILED_PRECONDITION,
    ),
    "wrapped_key_material": (
        "ImportWrappedKeyMaterial",
        lambda request: set_field(request, "wrapped_key_material", CANARY.encode().ljust(256, b"\x00")),
        grpc.StatusCode.FAILED_PRECONDITION,
    ),
}


def set_text(message: Any, field: str) -> None:
    set_field(message, field, CANARY)


@pytest.mark.parametrize(("method", "change", "code"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_taken_text_is_not_logged(
    method: str, change: Change, code: grpc.StatusCode, capfd: pytest.CaptureFixture[str]
) -> None:
    outcome = made_call(method, change)
    printed = capfd.readouterr()
    assert outcome.code is code
    assert CANARY not in f"{outcome.everything()}{printed.out}{printed.err}"


def test_call_that_succeeds_logs_what_was_validated() -> None:
    line = made_call("DescribeKey", lambda request: None).call_line
    assert line["code"] == "OK"
    assert line["instance"] == "main"
    assert line["key_id"].startswith("key-fake")

"""What is asked of the broker in a run: every RPC, in every way that it can go well or wrong."""

import base64
import json
import os
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

from cryptography.hazmat.primitives.serialization import load_der_public_key
from google.protobuf.duration_pb2 import Duration

from keybroker.domain.wrapping import WRAPPING_ALGORITHMS
from keymaterial.v1 import key_broker_service_pb2 as pb
from keymaterial.v1 import types_pb2
from kms_emulator import Emulator, Fault
from tests.canaries.caller import SERVICE, Caller, Told
from tests.canaries.planted import Planted

NEW_KEY = types_pb2.NewKey(key_spec=types_pb2.KEY_SPEC_AES_256)
WEEK = Duration(seconds=604800)
SPECS = (types_pb2.KEY_SPEC_AES_128, types_pb2.KEY_SPEC_AES_192, types_pb2.KEY_SPEC_AES_256)
OAEP = types_pb2.WRAPPING_ALGORITHM_RSAES_OAEP_SHA_256
PKCS1 = types_pb2.WRAPPING_ALGORITHM_RSAES_PKCS1_V1_5

FAULTS = [
    Fault(operation="ImportKeyMaterial", action="drop"),
    Fault(operation="ImportKeyMaterial", when="after", action="drop"),
    Fault(operation="ImportKeyMaterial", when="after", action="reset"),
    Fault(operation="ImportKeyMaterial", when="after", action="truncated"),
    Fault(operation="ImportKeyMaterial", when="after", action="garbage"),
    Fault(operation="ImportKeyMaterial", when="after", action="oversize"),
    Fault(operation="ImportKeyMaterial", action="error", code="Rejected.Throttling", retry_after_ms=10),
    Fault(operation="ImportKeyMaterial", action="error", code="InvalidImportToken"),
    Fault(operation="ImportKeyMaterial", action="error", code="InvalidKeyMaterial", count=0),
    Fault(operation="ImportKeyMaterial", action="error", code="SignatureDoesNotMatch"),
    Fault(operation="ImportKeyMaterial", action="error", code="InternalFailure", count=0),
    Fault(operation="ImportKeyMaterial", action="error", status=418, code="NobodyKnowsThis", count=0),
    Fault(operation="ImportKeyMaterial", action="foreign_import"),
    Fault(operation="GetParametersForImport", when="after", action="truncated", count=0),
    Fault(operation="GetParametersForImport", when="after", action="drop"),
    Fault(operation="GetParametersForImport", action="public_key_unparsable", count=0),
    Fault(operation="GetParametersForImport", action="public_key_swapped", count=0),
    Fault(operation="CreateKey", when="after", action="drop"),
    Fault(operation="CreateKey", action="error", code="Rejected.Throttling", count=0),
    Fault(operation="DescribeKey", action="error", status=418, code="NobodyKnowsThis", count=0),
    Fault(operation="DescribeKey", when="after", action="garbage", count=0),
    Fault(operation="Encrypt", action="error", code="InternalFailure", count=0),
]
"""Each strikes a request for a new CMK with material."""


def exercise(caller: Caller, emulator: Emulator, planted: Planted) -> None:
    """All but what needs the broker to die."""
    good_imports(caller)
    wrapped_imports(caller, emulator, planted)
    import_with_parameters_at_hand(caller, emulator)
    management(caller)
    for fault in FAULTS:
        faulty_import(caller, emulator, planted, fault)
    broken_requests(caller, emulator, planted)
    wrong_callers(caller, planted)
    other_instances(caller, emulator)


def good_imports(caller: Caller) -> None:
    """The three sizes, both algorithms, each once more; and what is only checked."""
    for number, spec in enumerate(SPECS):
        for algorithm in (OAEP, PKCS1):
            new_key = types_pb2.NewKey(
                key_spec=spec,
                description="made by a test",
                alias=f"alias/{spec}-{algorithm}",
                tags={"team": f"payments-{number}"},
            )
            wanted: dict[str, Any] = {"request_id": str(uuid4()), "new_key": new_key, "wrapping_algorithm": algorithm}
            for _ in range(2):
                expect(caller.call("ImportExternalKey", **wanted), "OK")
            expect(caller.call("GetImport", request_id=wanted["request_id"]), "OK")
            expect(caller.call("ImportExternalKey", **wanted | {"wrapping_algorithm": 3 - algorithm}), "ALREADY_EXISTS")
    expect(
        caller.call("ImportExternalKey", request_id=str(uuid4()), new_key=new_key, validate_only=True), "ALREADY_EXISTS"
    )


def wrapped_imports(caller: Caller, emulator: Emulator, planted: Planted) -> None:
    """Material of the caller's: good, once more, of a wrong length, garbage; and a token that nobody knows."""
    for algorithm in (OAEP, PKCS1):
        key_id = emulator.create_key()
        parameters = caller.call("GetImportParameters", key_id=key_id, wrapping_algorithm=algorithm).response
        for blob, code in (
            (os.urandom(256), "INVALID_ARGUMENT"),
            (wrapped(parameters, secrets.token_bytes(24)), "INVALID_ARGUMENT"),
            (wrapped(parameters, secrets.token_bytes(32)), "OK"),
        ):
            planted.binary("wrapped material", blob)
            wanted = {"request_id": str(uuid4()), "key_id": key_id, "import_token": parameters.import_token}
            if algorithm == OAEP or code == "OK":  # PKCS#1 v1.5 takes garbage
                expect(caller.call("ImportWrappedKeyMaterial", wrapped_key_material=blob, **wanted), code)
        expect(caller.call("ImportWrappedKeyMaterial", wrapped_key_material=blob, **wanted), "OK")
    strange = wanted | {"request_id": str(uuid4()), "import_token": planted.text("import token")}
    for changes in ({}, {"validate_only": True}):
        told = caller.call("ImportWrappedKeyMaterial", wrapped_key_material=blob, **strange, **changes)
        expect(told, "FAILED_PRECONDITION")


def import_with_parameters_at_hand(caller: Caller, emulator: Emulator) -> None:
    """The broker has them from its cache, with the token that the caller was given too."""
    key_id = emulator.create_key()
    for _ in range(2):
        expect(caller.call("GetImportParameters", key_id=key_id, wrapping_algorithm=OAEP), "OK")
    told = caller.call("ImportExternalKey", request_id=str(uuid4()), key_id=key_id, wrapping_algorithm=OAEP)
    expect(told, "OK")
    assert told.response.parameters_source == types_pb2.PARAMETERS_SOURCE_CACHED


def wrapped(parameters: pb.GetImportParametersResponse, material: bytes) -> bytes:
    """As a caller wraps material under what it was given."""
    public_key: Any = load_der_public_key(parameters.wrapping_public_key)
    names = {OAEP: "RSAES_OAEP_SHA_256", PKCS1: "RSAES_PKCS1_V1_5"}
    blob: bytes = public_key.encrypt(material, WRAPPING_ALGORITHMS[names[parameters.wrapping_algorithm]].padding)
    return blob


def management(caller: Caller) -> None:
    """CMKs made, shown, deleted, brought back; orphans."""
    created = [
        caller.call("CreateExternalKey", request_id=str(uuid4()), new_key=types_pb2.NewKey(key_spec=SPECS[2])).response
        for _ in range(2)
    ]
    key_id, other_key_id = (answer.key.key_id for answer in created)
    expect(caller.call("DescribeKey", key_id=key_id), "OK")
    for changes in ({}, {"validate_only": True}):
        expect(caller.call("ScheduleKeyDeletion", request_id=str(uuid4()), key_id=key_id, pending_window=WEEK), None)
        expect(caller.call("CancelKeyDeletion", request_id=str(uuid4()), key_id=key_id), None)
        expect(caller.call("ImportExternalKey", request_id=str(uuid4()), key_id=key_id, **changes), None)
    expect(caller.call("ListOrphanedKeys"), "OK")
    deletion = {"request_id": str(uuid4()), "key_id": other_key_id, "pending_window": WEEK}
    expect(caller.call("DeleteOrphanedKey", **deletion), None)
    expect(caller.call("GetImport", request_id=str(uuid4())), "NOT_FOUND")


def faulty_import(caller: Caller, emulator: Emulator, planted: Planted, fault: Fault) -> None:
    """One request for a new CMK that a fault strikes, then the same again without."""
    said = Fault.from_mapping(fault.to_mapping() | {"message": planted.text("text of the KMS")})
    emulator.faults.add(said)
    wanted = {"request_id": str(uuid4()), "new_key": types_pb2.NewKey(key_spec=SPECS[0])}
    caller.call("ImportExternalKey", seconds=2.5, **wanted)
    emulator.faults.clear()
    caller.call("ImportExternalKey", seconds=10.0, **wanted)
    caller.call("GetImport", request_id=wanted["request_id"])


def other_instances(caller: Caller, emulator: Emulator) -> None:
    """Credentials from a URI, and a proxy that nobody listens at."""
    key_id = emulator.create_key()
    expect(caller.call("ImportExternalKey", request_id=str(uuid4()), key_id=key_id, instance="by-uri"), "OK")
    expect(caller.call("DescribeKey", key_id=key_id, instance="by-proxy", seconds=1.0), None)


def broken_requests(caller: Caller, emulator: Emulator, planted: Planted) -> None:
    """A text that no field takes, and one that bytes and tokens take, in each field; and what is no message."""
    key_id = emulator.create_key()
    for method in SERVICE.methods:
        for request in _broken(method.input_type._concrete_class, key_id, planted):
            caller.send(method.name, request)
        planted.text("no message", noise := secrets.token_urlsafe(30))
        caller.send(method.name, b"\xff" + noise.encode())
    caller.send(planted.text("name of a method"), b"")


def _broken(message: Any, key_id: str, planted: Planted) -> Iterator[Any]:
    good = {
        "request_id": str(uuid4()),
        "key_id": key_id,
        "import_token": "a-token",
        "wrapped_key_material": bytes(256),
        "pending_window": WEEK,
    }
    fields = message.DESCRIPTOR.fields
    usual = {field.name: good[field.name] for field in fields if field.name in good}
    for field in fields:
        if field.type == field.TYPE_STRING:
            text = planted.text("text of a request")
            yield message(**usual | {field.name: f"{text} \u2028"})
            if field.name == "import_token":
                yield message(**usual | {field.name: text})
        elif field.type == field.TYPE_BYTES:
            for length in (40, 256):
                yield message(**usual | {field.name: planted.binary("wrapped material", os.urandom(length))})
        elif field.message_type and field.message_type.name == "NewKey":
            without = {name: value for name, value in usual.items() if name != "key_id"}
            inner = types_pb2.NewKey(key_spec=SPECS[0], tags={"acs:": planted.text("text of a request")})
            yield message(**without, **{field.name: inner})
            for broken in _broken(types_pb2.NewKey, "", planted):
                broken.key_spec = SPECS[0]
                yield message(**without, **{field.name: broken})


def wrong_callers(caller: Caller, planted: Planted) -> None:
    """Tokens of every kind that is refused."""
    good = caller.bearer()
    head, body, _ = good.split(".")
    header = base64.urlsafe_b64encode(json.dumps({"alg": "none", "kid": planted.text("kid")}).encode()).decode()
    bad = [
        caller.bearer(exp=0),
        caller.bearer(aud=[planted.text("claim")]),
        caller.bearer(headers={"kid": planted.text("kid")}),
        f"{head}.{body}.{planted.text('signature of a token')}",
        f"{header}.{body}.",
        planted.text("bearer token"),
        planted.text("bearer token", secrets.token_urlsafe(9000)),
    ]
    attempts = [
        *([("authorization", f"Bearer {planted.bearer(token)}")] for token in bad),
        [("authorization", f"Basic {planted.text('password')}")],
        [("authorization", f"Bearer {good}"), ("authorization", f"Bearer {caller.bearer()}")],
        [("x-api-key", planted.text("password")), ("cookie", planted.text("password"))],
    ]
    for metadata in attempts:
        told = caller.call("GetImport", request_id=str(uuid4()), metadata=metadata)
        assert told.code in {"UNAUTHENTICATED", "RESOURCE_EXHAUSTED"}, told.code


def hold_in_flight(caller: Caller, emulator: Emulator, pool: ThreadPoolExecutor) -> list[dict[str, Any]]:
    """Starts imports that the KMS does not answer; the broker has recorded that it sent them."""
    emulator.faults.add(Fault(operation="ImportKeyMaterial", action="hold", count=0))
    wanted: list[dict[str, Any]] = [
        {"request_id": str(uuid4()), "key_id": emulator.create_key(), "wrapping_algorithm": algorithm}
        for algorithm in (OAEP, PKCS1)
    ]
    for request in wanted:
        pool.submit(caller.call, "ImportExternalKey", seconds=15.0, **request)
    emulator.wait_until_held(len(wanted))
    return wanted


def expect(told: Told, code: str | None) -> None:
    """None: whatever comes of it."""
    assert code is None or told.code == code, (told.method, told.code, told.details)

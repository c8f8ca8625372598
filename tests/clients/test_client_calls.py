"""What each method sends and with which deadline; and what it returns."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.json_format import MessageToDict
from grpc_health.v1 import health_pb2

from keybroker_client import NewKey, WrappingAlgorithm
from keymaterial.v1 import types_pb2 as types
from tests.clients.fake_broker import KEY_ID, RPCS, TOKEN, FakeBroker

if TYPE_CHECKING:
    from tests.clients.conftest import Invoke

REQUEST_ID = "6f1c9c1e-3c1b-4f65-9c53-3a8f1c1d2e3f"
NEW_KEY = NewKey(key_spec=types.KEY_SPEC_AES_128, description="d", alias="alias/a", tags={"team": "pay"})
PKCS1 = WrappingAlgorithm.WRAPPING_ALGORITHM_RSAES_PKCS1_V1_5
WRAPPED = bytes(256)

# RPC, method, the fewest arguments
CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("ImportExternalKey", "import_external_key", {"key_id": KEY_ID}),
    ("CreateExternalKey", "create_external_key", {"new_key": NEW_KEY}),
    ("GetImportParameters", "get_import_parameters", {"key_id": KEY_ID}),
    (
        "ImportWrappedKeyMaterial",
        "import_wrapped_key_material",
        {"key_id": KEY_ID, "wrapped_key_material": WRAPPED, "import_token": TOKEN},
    ),
    ("GetImport", "get_import", {"request_id": REQUEST_ID}),
    ("ListOrphanedKeys", "list_orphaned_keys", {}),
    ("DeleteOrphanedKey", "delete_orphaned_key", {"key_id": KEY_ID, "pending_window_days": 7}),
    ("DescribeKey", "describe_key", {"key_id": KEY_ID}),
    ("ScheduleKeyDeletion", "schedule_key_deletion", {"key_id": KEY_ID, "pending_window_days": 7}),
    ("CancelKeyDeletion", "cancel_key_deletion", {"key_id": KEY_ID}),
]
READS = [call for call in CALLS if call[0] in {"GetImportParameters", "GetImport", "ListOrphanedKeys", "DescribeKey"}]
CHANGES = [call for call in CALLS if call not in READS]
COMMON = {"instance": "backup", "request_id": REQUEST_ID}

# What arrives, in protobuf's JSON, when every argument is given.
FULL_REQUESTS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "import_external_key",
        {"key_id": KEY_ID, "wrapping_algorithm": PKCS1, "validate_only": True, **COMMON},
        {
            "key_id": KEY_ID,
            "wrapping_algorithm": "WRAPPING_ALGORITHM_RSAES_PKCS1_V1_5",
            "validate_only": True,
            **COMMON,
        },
    ),
    (
        "import_external_key",
        {"new_key": NEW_KEY, "allow_second_key": True, **COMMON},
        {
            "allow_second_key": True,
            "new_key": {
                "key_spec": "KEY_SPEC_AES_128",
                "description": "d",
                "alias": "alias/a",
                "tags": {"team": "pay"},
            },
            **COMMON,
        },
    ),
    (
        "create_external_key",
        {"new_key": NewKey(key_spec=types.KEY_SPEC_AES_192), "allow_second_key": True, **COMMON},
        {"new_key": {"key_spec": "KEY_SPEC_AES_192"}, "allow_second_key": True, **COMMON},
    ),
    (
        "get_import_parameters",
        {"key_id": KEY_ID, "wrapping_algorithm": PKCS1, "instance": "backup"},
        {"key_id": KEY_ID, "wrapping_algorithm": "WRAPPING_ALGORITHM_RSAES_PKCS1_V1_5", "instance": "backup"},
    ),
    (
        "import_wrapped_key_material",
        {"key_id": KEY_ID, "wrapped_key_material": b"abc", "import_token": TOKEN, "validate_only": True, **COMMON},
        {"key_id": KEY_ID, "wrapped_key_material": "YWJj", "import_token": TOKEN, "validate_only": True, **COMMON},
    ),
    ("get_import", {"request_id": REQUEST_ID}, {"request_id": REQUEST_ID}),
    (
        "list_orphaned_keys",
        {"instance": "backup", "page_token": "3"},
        {"instance": "backup", "page_token": "3"},
    ),
    (
        "delete_orphaned_key",
        {"key_id": KEY_ID, "pending_window_days": 7, **COMMON},
        {"key_id": KEY_ID, "pending_window": "604800s", **COMMON},
    ),
    ("describe_key", {"key_id": "alias/a", "instance": "backup"}, {"key_id": "alias/a", "instance": "backup"}),
    (
        "schedule_key_deletion",
        {"key_id": KEY_ID, "pending_window_days": 30, **COMMON},
        {"key_id": KEY_ID, "pending_window": "2592000s", **COMMON},
    ),
    ("cancel_key_deletion", {"key_id": KEY_ID, **COMMON}, {"key_id": KEY_ID, **COMMON}),
]


@pytest.mark.parametrize(("rpc", "method", "arguments"), CALLS)
def test_method_returns_the_answer(
    broker: FakeBroker, invoke: Invoke, rpc: str, method: str, arguments: dict[str, Any]
) -> None:
    assert invoke(broker.address, method, **arguments) == broker.answers[rpc]
    assert broker.rpcs == [rpc]


def test_calls_cover_every_rpc() -> None:
    assert tuple(rpc for rpc, _, _ in CALLS) == RPCS


@pytest.mark.parametrize(("method", "arguments", "expected"), FULL_REQUESTS)
def test_method_sends_every_argument(
    broker: FakeBroker, invoke: Invoke, method: str, arguments: dict[str, Any], expected: dict[str, Any]
) -> None:
    invoke(broker.address, method, **arguments)
    assert MessageToDict(broker.only_call.request, preserving_proto_field_name=True) == expected


@pytest.mark.parametrize(("rpc", "method", "arguments"), CHANGES)
def test_change_without_request_id_gets_a_new_uuid(
    broker: FakeBroker, invoke: Invoke, rpc: str, method: str, arguments: dict[str, Any]
) -> None:
    for _ in range(2):
        invoke(broker.address, method, **arguments)
    first, second = (call.request.request_id for call in broker.calls)
    assert first != second
    assert str(uuid.UUID(first, version=4)) == first


@pytest.mark.parametrize("arguments", [{}, {"key_id": KEY_ID, "new_key": NEW_KEY}])
def test_import_without_exactly_one_target_is_refused(
    broker: FakeBroker, invoke: Invoke, arguments: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="either key_id or new_key"):
        invoke(broker.address, "import_external_key", **arguments)
    assert broker.calls == []


@pytest.mark.parametrize(("calls", "seconds"), [(CHANGES, 15), (READS, 10)], ids=["changes", "reads"])
def test_call_has_a_default_deadline(
    broker: FakeBroker, invoke: Invoke, calls: list[tuple[str, str, dict[str, Any]]], seconds: float
) -> None:
    for _, method, arguments in calls:
        invoke(broker.address, method, **arguments)
    assert all(seconds - 3 < call.time_remaining_seconds < seconds + 1 for call in broker.calls)
    assert len(broker.calls) == len(calls)


def test_timeout_of_the_call_goes_before_that_of_the_client(broker: FakeBroker, invoke: Invoke) -> None:
    invoke(broker.address, "describe_key", client={"timeout_seconds": 60.0}, key_id=KEY_ID)
    invoke(broker.address, "describe_key", client={"timeout_seconds": 60.0}, key_id=KEY_ID, timeout_seconds=30.0)
    first, second = (call.time_remaining_seconds for call in broker.calls)
    assert 50 < first < 61
    assert 20 < second < 31


def test_check_health_says_what_the_broker_says(broker: FakeBroker, invoke: Invoke) -> None:
    broker.set_health(health_pb2.HealthCheckResponse.NOT_SERVING, "keymaterial.v1.KeyBrokerService")
    assert invoke(broker.address, "check_health") == "SERVING"
    assert invoke(broker.address, "check_health", service="keymaterial.v1.KeyBrokerService") == "NOT_SERVING"

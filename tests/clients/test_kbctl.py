"""Each command: what it sends, what it prints for people and for programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.json_format import MessageToDict
from grpc_health.v1 import health_pb2

from kbctl.__main__ import main
from keymaterial.v1 import key_broker_service_pb2 as pb
from keymaterial.v1 import types_pb2 as types
from tests.clients.fake_broker import KEY_ID, TOKEN, FakeBroker, external_key

if TYPE_CHECKING:
    from pathlib import Path

REQUEST_ID = "6f1c9c1e-3c1b-4f65-9c53-3a8f1c1d2e3f"
CHANGE = ["--instance", "backup", "--request-id", REQUEST_ID]
SENT = {"instance": "backup", "request_id": REQUEST_ID}
NEW_KEY = ["--spec", "aes-192", "--alias", "alias/a", "--description", "d e", "--tag", "a=b", "--tag", "c=d=e"]
NEW_KEY_SENT = {
    "key_spec": "KEY_SPEC_AES_192",
    "alias": "alias/a",
    "description": "d e",
    "tags": {"a": "b", "c": "d=e"},
}
KEY_TABLE = [
    ["key id", KEY_ID],
    ["state", "ENABLED"],
    ["spec", "AES_256"],
    ["origin", "EXTERNAL"],
    ["instance", "main (kst-example)"],
    ["ARN", f"acs:kms:cn-hangzhou:123456789012:key/{KEY_ID}"],
    ["created", "2026-11-18 11:06:40 UTC"],
]

# RPC, arguments, request in protobuf's JSON
COMMANDS: list[tuple[str, list[str], dict[str, Any]]] = [
    (
        "ImportExternalKey",
        ["import", "--key-id", KEY_ID, "--algorithm", "pkcs1-v1.5", "--validate-only", *CHANGE],
        {
            "key_id": KEY_ID,
            "wrapping_algorithm": "WRAPPING_ALGORITHM_RSAES_PKCS1_V1_5",
            "validate_only": True,
            **SENT,
        },
    ),
    ("ImportExternalKey", ["import", "--new-key", *NEW_KEY, *CHANGE], {"new_key": NEW_KEY_SENT, **SENT}),
    ("CreateExternalKey", ["create", *NEW_KEY, *CHANGE], {"new_key": NEW_KEY_SENT, **SENT}),
    (
        "GetImportParameters",
        ["parameters", "--key-id", KEY_ID, "--algorithm", "oaep-sha256", "--instance", "backup"],
        {"key_id": KEY_ID, "instance": "backup", "wrapping_algorithm": "WRAPPING_ALGORITHM_RSAES_OAEP_SHA_256"},
    ),
    ("DescribeKey", ["describe", "--key-id", "alias/a"], {"key_id": "alias/a"}),
    (
        "ScheduleKeyDeletion",
        ["schedule-deletion", "--key-id", KEY_ID, "--days", "7", *CHANGE],
        {"key_id": KEY_ID, "pending_window": "604800s", **SENT},
    ),
    ("CancelKeyDeletion", ["cancel-deletion", "--key-id", KEY_ID, *CHANGE], {"key_id": KEY_ID, **SENT}),
]


@pytest.fixture(autouse=True)
def address(broker: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KBCTL_ADDRESS", broker.address)


def table(text: str) -> list[list[str]]:
    return [line.split(maxsplit=1) if "  " not in line else line.split("  ", 1) for line in text.splitlines()]


def rows(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    return [[cell.strip() for cell in row] for row in table(capsys.readouterr().out)]


@pytest.mark.parametrize(("rpc", "argv", "expected"), COMMANDS)
def test_command_sends_its_arguments(broker: FakeBroker, rpc: str, argv: list[str], expected: dict[str, Any]) -> None:
    assert main(argv) == 0
    assert broker.only_call.rpc == rpc
    assert MessageToDict(broker.only_call.request, preserving_proto_field_name=True) == expected


@pytest.mark.parametrize(("rpc", "argv", "expected"), COMMANDS)
def test_command_with_json_prints_the_whole_message(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str], rpc: str, argv: list[str], expected: dict[str, Any]
) -> None:
    assert main([*argv, "--output", "json"]) == 0
    whole = MessageToDict(
        broker.answers[rpc], preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    if rpc == "ImportExternalKey":
        whole["check_value"] = "cmac-aes:1a2b3c"
    assert json.loads(capsys.readouterr().out) == whole


def test_import_table_shows_the_evidence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "--key-id", KEY_ID]) == 0
    assert rows(capsys) == [
        ["result", "imported"],
        *KEY_TABLE,
        ["check value", "cmac-aes:1a2b3c"],
        ["evidence", "ACCEPTED"],
        ["algorithm", "RSAES_OAEP_SHA_256"],
        ["parameters", "FETCHED"],
        ["imported", "2026-11-18 11:07:40 UTC"],
        ["KMS request id", "4c8ae23f-3a42-6791-a4ba-1faa77831c28"],
    ]


def test_import_validated_only_says_that_nothing_changed(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    broker.answers["ImportExternalKey"] = pb.ImportExternalKeyResponse(
        key=types.ExternalKey(instance="main", key_spec=types.KEY_SPEC_AES_128),
        wrapping_algorithm=types.WRAPPING_ALGORITHM_RSAES_OAEP_SHA_256,
    )
    assert main(["import", "--new-key", "--spec", "aes-128", "--validate-only"]) == 0
    assert rows(capsys) == [
        ["result", "checks passed, nothing was changed"],
        ["state", "UNSPECIFIED"],
        ["spec", "AES_128"],
        ["origin", "UNSPECIFIED"],
        ["instance", "main"],
        ["algorithm", "RSAES_OAEP_SHA_256"],
    ]


def test_import_repeated_answer_is_named(broker: FakeBroker, capsys: pytest.CaptureFixture[str]) -> None:
    broker.answers["ImportExternalKey"].replayed = True  # type: ignore[union-attr]
    assert main(["import", "--key-id", KEY_ID]) == 0
    assert rows(capsys)[0] == ["result", "imported (repeated answer)"]


def test_describe_table_shows_the_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "--key-id", KEY_ID]) == 0
    assert rows(capsys) == KEY_TABLE


def test_describe_table_shows_values_of_a_newer_broker_and_no_control_characters(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    broker.answers["DescribeKey"] = pb.DescribeKeyResponse(key=external_key(state=99, arn="a\x1b[2Jb"))
    assert main(["describe", "--key-id", KEY_ID]) == 0
    shown = dict(rows(capsys))
    assert (shown["state"], shown["ARN"]) == ("99", "a?[2Jb")


@pytest.mark.parametrize(
    ("argv", "state", "request_id"),
    [
        (["create", "--spec", "aes-256"], "PENDING_IMPORT", "create-1"),
        (["schedule-deletion", "--key-id", KEY_ID, "--days", "30"], "PENDING_DELETION", "schedule-1"),
        (["cancel-deletion", "--key-id", KEY_ID], "ENABLED", "cancel-1"),
    ],
)
def test_change_table_shows_the_state_after_it(
    capsys: pytest.CaptureFixture[str], argv: list[str], state: str, request_id: str
) -> None:
    assert main(argv) == 0
    shown = dict(rows(capsys))
    assert (shown["key id"], shown["state"], shown["KMS request id"]) == (KEY_ID, state, request_id)
    assert shown.get("will be deleted") == ("2026-11-25 11:06:40 UTC" if state == "PENDING_DELETION" else None)


def test_parameters_table_shows_key_and_token(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["parameters", "--key-id", KEY_ID]) == 0
    shown = dict(rows(capsys))
    assert (shown["algorithm"], shown["import token"]) == ("RSAES_OAEP_SHA_256", TOKEN)
    assert shown["public key"].startswith("AAECAwQF")
    assert shown["token ends"] == "2026-11-19 11:06:40 UTC"


@pytest.mark.parametrize("name", ["pkcs1", "RSAES_PKCS1_V1_5", "WRAPPING_ALGORITHM_RSAES_PKCS1_V1_5", "PKCS1-v1.5"])
def test_algorithm_by_any_of_its_names(broker: FakeBroker, name: str) -> None:
    assert main(["parameters", "--key-id", KEY_ID, "--algorithm", name]) == 0
    assert broker.only_call.request.wrapping_algorithm == types.WRAPPING_ALGORITHM_RSAES_PKCS1_V1_5


def test_import_wrapped_sends_the_files_and_shows_the_key(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    wrapped, token = tmp_path / "EncryptedKeyMaterial.bin", tmp_path / "token.txt"
    wrapped.write_bytes(bytes(range(256)))
    token.write_text(f"{TOKEN}\n")
    argv = ["import-wrapped", "--key-id", KEY_ID, "--wrapped", str(wrapped), "--token", str(token), "--validate-only"]
    assert main([*argv, *CHANGE]) == 0
    assert broker.only_call.request == pb.ImportWrappedKeyMaterialRequest(
        **SENT, key_id=KEY_ID, wrapped_key_material=bytes(range(256)), import_token=TOKEN, validate_only=True
    )
    assert rows(capsys)[:2] == [["result", "checks passed, nothing was changed"], ["key id", KEY_ID]]
    assert main(argv[:-1]) == 0
    assert rows(capsys) == [
        ["result", "imported"],
        *KEY_TABLE,
        ["imported", "2026-11-18 11:07:40 UTC"],
        ["KMS request id", "import-1"],
    ]


@pytest.mark.parametrize(
    ("status", "exit_code"),
    [("SERVING", 0), ("NOT_SERVING", 8), ("UNKNOWN", 8)],
)
@pytest.mark.parametrize("service", ["", "keymaterial.v1.KeyBrokerService"])
def test_health_shows_the_status(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str], status: str, exit_code: int, service: str
) -> None:
    broker.set_health(health_pb2.HealthCheckResponse.ServingStatus.Value(status), service)
    assert main(["health", "--service", service]) == exit_code
    assert rows(capsys)[0] == ["status", status]
    assert main(["health", "--service", service, "--output", "json"]) == exit_code
    assert json.loads(capsys.readouterr().out) == {"status": status, "service": service}


def test_timeout_is_the_deadline_of_the_call(broker: FakeBroker) -> None:
    assert main(["--timeout", "60", "describe", "--key-id", KEY_ID]) == 0
    assert 50 < broker.only_call.time_remaining_seconds < 61


def test_common_option_goes_before_or_after_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["--output", "json", "health"], ["health", "--output", "json"]):
        assert main(argv) == 0
        assert json.loads(capsys.readouterr().out)["status"] == "SERVING"


def test_address_option_goes_before_the_environment(broker: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KBCTL_ADDRESS", "127.0.0.1:1")
    assert main(["health"]) == 7
    assert main(["health", "--address", broker.address]) == 0

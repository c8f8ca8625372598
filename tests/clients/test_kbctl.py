"""Each command: what it sends, what it prints for people and for programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from grpc_health.v1 import health_pb2

from kbctl.__main__ import main
from kbctl.orphans import age_text
from kbctl.status import MEANINGS
from keymaterial.v1 import key_broker_service_pb2 as pb
from keymaterial.v1 import types_pb2 as types
from tests.clients.fake_broker import KEY_ID, TOKEN, Failure, FakeBroker, external_key, orphaned_key

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
    (
        "ImportExternalKey",
        ["import", "--new-key", *NEW_KEY, "--allow-second-key", *CHANGE],
        {"new_key": NEW_KEY_SENT, "allow_second_key": True, **SENT},
    ),
    ("CreateExternalKey", ["create", *NEW_KEY, *CHANGE], {"new_key": NEW_KEY_SENT, **SENT}),
    (
        "CreateExternalKey",
        ["create", *NEW_KEY, "--allow-second-key", *CHANGE],
        {"new_key": NEW_KEY_SENT, "allow_second_key": True, **SENT},
    ),
    ("GetImport", ["import-status", REQUEST_ID], {"request_id": REQUEST_ID}),
    ("ListOrphanedKeys", ["orphans", "--instance", "backup"], {"instance": "backup"}),
    ("ListOrphanedKeys", ["orphans", "list", "--instance", "backup"], {"instance": "backup"}),
    ("ListOrphanedKeys", ["orphans", "--instance", "backup", "list"], {"instance": "backup"}),
    (
        "DeleteOrphanedKey",
        ["orphans", "delete", KEY_ID, "--days", "7", *CHANGE],
        {"key_id": KEY_ID, "pending_window": "604800s", **SENT},
    ),
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
    if rpc in {"ImportExternalKey", "GetImport"}:
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


def test_create_repeated_answer_is_named(broker: FakeBroker, capsys: pytest.CaptureFixture[str]) -> None:
    broker.answers["CreateExternalKey"].replayed = True  # type: ignore[union-attr]
    assert main(["create", "--spec", "aes-256"]) == 0
    assert rows(capsys)[0] == ["result", "created (repeated answer)"]


REPEATABLE = [
    ("ImportExternalKey", ["import", "--key-id", KEY_ID]),
    ("CreateExternalKey", ["create", "--spec", "aes-256"]),
    (
        "ImportWrappedKeyMaterial",
        ["import-wrapped", "--key-id", KEY_ID, "--wrapped", "wrapped", "--token", "token"],
    ),
]


@pytest.mark.parametrize(("rpc", "argv"), REPEATABLE)
@pytest.mark.parametrize("output", ["table", "json"])
def test_new_request_id_is_told_before_the_call(
    broker: FakeBroker,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    rpc: str,
    argv: list[str],
    output: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrapped").write_bytes(bytes(256))
    (tmp_path / "token").write_text(TOKEN)
    told: list[str] = []
    answer = broker.answers[rpc]

    class Answers(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            told.append(capsys.readouterr().err)
            return answer

    monkeypatch.setattr(broker, "answers", Answers())
    assert main([*argv, "--output", output]) == 0
    request_id = broker.only_call.request.request_id
    expected = json.dumps({"request_id": request_id}) if output == "json" else f"kbctl: request id {request_id}"
    assert told == [f"{expected}\n"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "argv",
    [
        ["import", "--key-id", KEY_ID, "--request-id", REQUEST_ID],
        ["import", "--key-id", KEY_ID, "--validate-only"],
        ["cancel-deletion", "--key-id", KEY_ID],
    ],
    ids=["given", "validate only", "no use"],
)
def test_request_id_that_nobody_needs_is_not_told(capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    assert main(argv) == 0
    assert capsys.readouterr().err == ""


def test_import_status_table_shows_the_record(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import-status", REQUEST_ID]) == 0
    assert rows(capsys) == [
        ["request id", REQUEST_ID],
        ["state", "IMPORTED"],
        ["meaning", "final: imported"],
        ["key id", KEY_ID],
        ["created CMK", KEY_ID],
        ["check value", "cmac-aes:1a2b3c"],
        ["evidence", "PROVED"],
        ["algorithm", "RSAES_OAEP_SHA_256"],
        ["sends", "2 recorded"],
        ["imported", "2026-11-18 11:07:40 UTC"],
        ["KMS request id", "import-1"],
        ["recorded", "2026-11-18 11:07:30 UTC"],
        ["changed", "2026-11-18 11:07:50 UTC"],
    ]


def test_import_status_of_an_unfinished_request_shows_what_is_known(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    broker.answers["GetImport"] = pb.GetImportResponse(request_id=REQUEST_ID, state=types.REQUEST_STATE_CREATING)
    assert main(["import-status", REQUEST_ID]) == 0
    assert rows(capsys) == [
        ["request id", REQUEST_ID],
        ["state", "CREATING"],
        ["meaning", "whether a CMK was created is not known yet"],
    ]


def test_import_status_knows_every_state() -> None:
    names = {name.removeprefix("REQUEST_STATE_") for name in types.RequestState.keys()}  # noqa: SIM118 - no mapping
    assert set(MEANINGS) == names - {"UNSPECIFIED"}


def test_orphans_table_has_a_line_for_each_key_of_every_page(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = [
        pb.ListOrphanedKeysResponse(keys=[orphaned_key()], next_page_token="2"),
        pb.ListOrphanedKeysResponse(next_page_token="3"),
        pb.ListOrphanedKeysResponse(
            keys=[
                orphaned_key(
                    key=external_key(key_id="key-other", state=types.KEY_STATE_PENDING_IMPORT),
                    request_id="",
                    caller="",
                    state=types.REQUEST_STATE_UNSPECIFIED,
                    age={"seconds": 59},
                    deletable=False,
                )
            ]
        ),
    ]
    broker.answers["ListOrphanedKeys"] = list(pages)
    assert main(["orphans"]) == 0
    assert capsys.readouterr().out == (
        "key id                     age    state           deletable  request state  "
        "request id                            caller\n"
        f"{KEY_ID}  3d 4h  PENDING_IMPORT  yes        RELEASED       "
        f"{REQUEST_ID}  spiffe://example/billing\n"
        "key-other                  59s    PENDING_IMPORT  no         -              "
        "-                                     -\n"
    )
    assert [call.request.page_token for call in broker.calls] == ["", "2", "3"]
    broker.answers["ListOrphanedKeys"] = pages
    assert main(["orphans", "list", "--output", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [orphan["key"]["key_id"] for orphan in shown["keys"]] == [KEY_ID, "key-other"]
    assert (shown["keys"][0]["age"], shown["keys"][0]["deletable"]) == ("273845s", True)
    assert shown["next_page_token"] == ""


def test_orphans_without_any_shows_the_header(broker: FakeBroker, capsys: pytest.CaptureFixture[str]) -> None:
    broker.answers["ListOrphanedKeys"] = pb.ListOrphanedKeysResponse()
    assert main(["orphans"]) == 0
    assert capsys.readouterr().out == "key id  age  state  deletable  request state  request id  caller\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59, "59s"), (60, "1m"), (3_725, "1h 2m"), (86_400, "1d"), (273_845, "3d 4h"), (86_405, "1d 5s")],
)
def test_age_is_told_in_two_units(seconds: int, text: str) -> None:
    assert age_text(Duration(seconds=seconds)) == text


def test_retries_is_how_often_a_call_is_repeated(broker: FakeBroker) -> None:
    broker.answers["DescribeKey"] = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "BROKER_OVERLOADED")
    for count in (0, 2):
        broker.calls.clear()
        assert main(["describe", "--key-id", KEY_ID, "--retries", str(count)]) == 7
        assert len(broker.calls) == 1 + count


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
        (["orphans", "delete", KEY_ID, "--days", "30"], "PENDING_DELETION", "schedule-2"),
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

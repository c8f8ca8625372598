"""What kbctl says and how it ends when something fails; which files it refuses."""

from __future__ import annotations

import io
import json
import os
import re
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import grpc
import pytest
from grpc_health.v1 import health_pb2

import keybroker_client
from kbctl.__main__ import main
from tests.clients.fake_broker import KEY_ID, PUBLIC_KEY, TOKEN, Failure, FakeBroker, precondition, retry_info

if TYPE_CHECKING:
    from collections.abc import Callable

REQUEST_ID = "6f1c9c1e-3c1b-4f65-9c53-3a8f1c1d2e3f"
Code = grpc.StatusCode
IMPORT = ["import", "--key-id", KEY_ID, "--request-id", REQUEST_ID, "--retries", "0"]
REPEAT = f"Repeat the command with --request-id {REQUEST_ID}."
REPEAT_OR_LOOK = f"Repeat the command with --request-id {REQUEST_ID}, or look with 'kbctl import-status'."
PARAMETERS = ["parameters", "--key-id", KEY_ID]

# With a reason: the broker's message says what to do. Without: kbctl does.
FAILURES = [
    (Failure(Code.INVALID_ARGUMENT, "INVALID_FIELD"), 3, ""),
    (Failure(Code.INVALID_ARGUMENT), 3, "Correct the argument."),
    (Failure(Code.NOT_FOUND, "KEY_NOT_FOUND"), 4, ""),
    (Failure(Code.NOT_FOUND), 4, "Check the name, and --instance."),
    (Failure(Code.FAILED_PRECONDITION, "KEY_MATERIAL_ALREADY_BOUND"), 5, ""),
    (Failure(Code.FAILED_PRECONDITION, "ENABLED_UNATTRIBUTED"), 5, ""),
    (Failure(Code.ALREADY_EXISTS, "REQUEST_ID_REUSED"), 5, ""),
    (Failure(Code.RESOURCE_EXHAUSTED, "KMS_QUOTA_EXCEEDED"), 5, ""),
    (Failure(Code.FAILED_PRECONDITION), 5, "Look at the CMK with 'kbctl describe'."),
    (Failure(Code.ABORTED, "IMPORT_UNRESOLVED"), 6, REPEAT_OR_LOOK),
    (
        Failure(Code.ABORTED, "CREATE_OUTCOME_UNKNOWN"),
        6,
        REPEAT.replace(".", "; --allow-second-key too makes another CMK if the first is not found."),
    ),
    (Failure(Code.INTERNAL), 6, f"Whether the change happened is unknown. {REPEAT_OR_LOOK}"),
    (Failure(Code.RESOURCE_EXHAUSTED, "KMS_THROTTLED"), 7, REPEAT),
    (Failure(Code.UNAVAILABLE, "KMS_UNAVAILABLE"), 7, REPEAT),
    (Failure(Code.ABORTED, "IMPORT_IN_PROGRESS"), 7, REPEAT),
    (Failure(Code.ABORTED, "NOT_IMPORTED"), 10, ""),
    (Failure(Code.INTERNAL, "WRAPPING_PUBLIC_KEY_REJECTED"), 1, ""),
    (Failure(Code.PERMISSION_DENIED), 9, "Ask the broker's operator."),
]


@pytest.fixture(autouse=True)
def address(broker: FakeBroker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KBCTL_ADDRESS", broker.address)
    monkeypatch.chdir(tmp_path)


def usage_error(capsys: pytest.CaptureFixture[str], argv: list[str]) -> str:
    """The last line on stderr of a command that ends in 2."""
    try:
        exit_code = main(argv)
    except SystemExit as exit_:
        exit_code = exit_.code  # type: ignore[assignment]
    assert exit_code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(("failure", "exit_code", "advice"), FAILURES)
def test_error_is_one_line_with_advice_and_reason(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str], failure: Failure, exit_code: int, advice: str
) -> None:
    broker.answers["ImportExternalKey"] = failure
    assert main(IMPORT) == exit_code
    shown = capsys.readouterr()
    message = failure.message if failure.reason else f"no account from the broker, only the code {failure.code.name}"
    told = f"{message}. {advice}".strip()
    assert shown.err == f"kbctl: {told} [{failure.reason or failure.code.name}] (request id {REQUEST_ID})\n"
    assert shown.out == ""


def test_error_shows_what_the_broker_advises_and_knows(broker: FakeBroker, capsys: pytest.CaptureFixture[str]) -> None:
    broker.answers["ImportExternalKey"] = Failure(
        Code.FAILED_PRECONDITION,
        "KEY_DISABLED",
        "the CMK is\x1b disabled.",
        metadata={"created_key_id": "key-new", "kms_request_id": "kms-1", "correlation_id": "c-1"},
        details=(precondition("Have it enabled."), retry_info(2.5)),
    )
    assert main(IMPORT) == 5
    assert capsys.readouterr().err == (
        "kbctl: the CMK is? disabled. Have it enabled. [KEY_DISABLED] "
        "(created CMK key-new; "
        f"retry after seconds 2.5; request id {REQUEST_ID}; KMS request id kms-1; correlation id c-1)\n"
    )


def test_error_does_not_say_the_advice_twice(broker: FakeBroker, capsys: pytest.CaptureFixture[str]) -> None:
    failure = Failure(
        Code.FAILED_PRECONDITION, "KEY_DISABLED", "Off. Enable it.", details=(precondition("Enable it."),)
    )
    broker.answers["DescribeKey"] = failure
    assert main(["describe", "--key-id", KEY_ID]) == 5
    assert capsys.readouterr().err == "kbctl: Off. Enable it. [KEY_DISABLED]\n"


def test_error_with_json_is_an_object(broker: FakeBroker, capsys: pytest.CaptureFixture[str]) -> None:
    metadata = {"created_key_id": "key-new"}
    broker.answers["ImportExternalKey"] = Failure(Code.ABORTED, "IMPORT_UNRESOLVED", metadata=metadata)
    assert main([*IMPORT, "--output", "json"]) == 6
    shown = capsys.readouterr()
    assert json.loads(shown.err) == {
        "error": {
            "reason": "IMPORT_UNRESOLVED",
            "code": "ABORTED",
            "message": "something went wrong",
            "advice": REPEAT_OR_LOOK,
            "field": "",
            "metadata": metadata,
            "created_key_id": "key-new",
            "retry_after_seconds": None,
            "request_id": REQUEST_ID,
            "outcome_unknown": True,
            "exit_code": 6,
            "repeatable": True,
        }
    }
    assert shown.out == ""


@pytest.mark.parametrize(
    ("code", "reason", "exit_code"), [(Code.ABORTED, "CHANGE_OUTCOME_UNKNOWN", 6), (Code.UNAVAILABLE, "", 6)]
)
def test_deletion_that_failed_is_not_to_be_repeated(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str], code: grpc.StatusCode, reason: str, exit_code: int
) -> None:
    broker.answers["CancelKeyDeletion"] = Failure(code, reason)
    assert main(["cancel-deletion", "--key-id", KEY_ID, "--output", "json"]) == exit_code
    error = json.loads(capsys.readouterr().err)["error"]
    assert error["repeatable"] is False
    assert error["advice"] == "Don't repeat the command: look with 'kbctl describe' first."


def test_import_status_of_an_unknown_request_ends_in_4(broker: FakeBroker, capsys: pytest.CaptureFixture[str]) -> None:
    broker.answers["GetImport"] = Failure(Code.NOT_FOUND, "REQUEST_NOT_FOUND", "no such request")
    assert main(["import-status", REQUEST_ID]) == 4
    assert capsys.readouterr().err == f"kbctl: no such request. [REQUEST_NOT_FOUND] (request id {REQUEST_ID})\n"


def test_change_with_a_broker_that_breaks_off_is_unresolved(broker: FakeBroker) -> None:
    broker.answers["ImportExternalKey"] = Failure(Code.UNAVAILABLE)
    assert main(IMPORT) == 6


def test_change_without_a_broker_is_unavailable_and_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*IMPORT, "--address", "127.0.0.1:1"]) == 7
    (line,) = capfd.readouterr().err.splitlines()
    assert re.fullmatch(r"kbctl: no answer from the broker: .* \[UNAVAILABLE\]", line)


def test_change_with_a_broker_without_health_is_sent() -> None:
    with FakeBroker(health=False) as broker:
        assert main(["health", "--address", broker.address]) == 1
        assert main([*IMPORT, "--address", broker.address]) == 0
        assert broker.rpcs == ["ImportExternalKey"]


def test_change_with_a_broker_not_serving_is_sent(broker: FakeBroker) -> None:
    broker.set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
    assert main(IMPORT) == 0


def test_interrupt_of_a_change_warns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(keybroker_client.KeyBrokerClient, "import_external_key", interrupt)
    assert main(["import", "--key-id", KEY_ID]) == 130
    told, interrupted = capsys.readouterr().err.splitlines()
    assert interrupted == (
        "kbctl: interrupted: the change may have happened, repeat the command with --request-id "
        f"{told.removeprefix('kbctl: request id ')}"
    )


def test_interrupt_of_a_deletion_says_to_look(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(keybroker_client.KeyBrokerClient, "cancel_key_deletion", interrupt)
    monkeypatch.setattr(keybroker_client.KeyBrokerClient, "describe_key", interrupt)
    assert main(["cancel-deletion", "--key-id", KEY_ID]) == 130
    assert capsys.readouterr().err == ("kbctl: interrupted: the change may have happened, look with 'kbctl describe'\n")
    assert main(["describe", "--key-id", KEY_ID]) == 130
    assert capsys.readouterr().err == "kbctl: interrupted\n"


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ([], "required: COMMAND"),
        (["import"], "one of the arguments --key-id --new-key is required"),
        (["import", "--key-id", "k", "--new-key"], "not allowed with"),
        (["import", "--new-key"], "--new-key needs --spec"),
        (["import", "--key-id", "k", "--spec", "aes-128"], "are for --new-key"),
        (["create", "--spec", "sm4"], "invalid choice: 'sm4'"),
        (["create", "--spec", "aes-128", "--tag", "a"], "'a' is not KEY=VALUE"),
        (["create", "--spec", "aes-128", "--tag", "a=1", "--tag", "a=2"], "the same key is given twice"),
        (["import", "--key-id", "k", "--allow-second-key"], "are for --new-key"),
        (["import-status"], "the following arguments are required: REQUEST_ID"),
        (["orphans", "delete", "k"], "the following arguments are required: --days"),
        (["orphans", "delete", "k", "--days", "6"], "'6' is not a number of days from 7 to 30"),
        (["orphans", "purge"], "invalid choice: 'purge'"),
        (["health", "--retries", "-1"], "'-1' is not a number from 0 to 100"),
        (["schedule-deletion", "--key-id", "k", "--days", "31"], "'31' is not a number of days from 7 to 30"),
        (["schedule-deletion", "--key-id", "k", "--days", "-7"], "'-7' is not a number of days from 7 to 30"),
        (["parameters", "--key-id", "k", "--algorithm", "sm2"], "'sm2' is not one of oaep-sha256, pkcs1-v1.5"),
        (["describe", "--key-id", "k", "--request-id", "r"], "unrecognized arguments"),
        (["describe", "--key-id", "\udcff"], "an argument is not UTF-8 text"),
        (["health", "--timeout", "nan"], "'nan' is not a number of seconds"),
        (["health", "--time", "3"], "unrecognized arguments"),
        (["health", "--address", "10.0.0.7:50051"], "give --tls or --tls-ca FILE (or --allow-insecure"),
        (["health", "--tls-cert", "c.pem"], "--tls-cert and --tls-key go together"),
        (["health", "--tls-ca", "missing.pem"], "missing.pem: No such file or directory"),
    ],
)
def test_wrong_arguments_end_in_2_before_any_call(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str], argv: list[str], text: str
) -> None:
    assert text in usage_error(capsys, argv)
    assert broker.calls == []


def test_local_error_with_json_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "--new-key", "--output", "json"]) == 2
    assert json.loads(capsys.readouterr().err) == {
        "error": {"reason": "USAGE", "message": "--new-key needs --spec", "exit_code": 2}
    }


def test_parameters_writes_private_files(broker: FakeBroker, capsys: pytest.CaptureFixture[str]) -> None:
    os.umask(os.umask(0o022))  # whatever it is, it takes nothing away from 0600
    assert main([*PARAMETERS, "--public-key-out", "PublicKey.bin", "--token-out", "token.txt", "--output", "json"]) == 0
    assert (Path("PublicKey.bin").read_bytes(), Path("token.txt").read_text()) == (PUBLIC_KEY, TOKEN)
    assert {stat.S_IMODE(path.stat().st_mode) for path in Path().iterdir()} == {0o600}
    assert sorted(path.name for path in Path().iterdir()) == ["PublicKey.bin", "token.txt"]
    shown = json.loads(capsys.readouterr().out)
    assert (shown["wrapping_public_key_file"], shown["import_token_file"]) == ("PublicKey.bin", "token.txt")
    assert {"wrapping_public_key", "import_token"}.isdisjoint(shown)


@pytest.mark.parametrize("option", ["--public-key-out", "--token-out"])
def test_parameters_never_replaces_a_file_without_force(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    Path("old").write_text("old")
    assert "old exists: choose another name, or --force" in usage_error(capsys, [*PARAMETERS, option, "old"])
    assert Path("old").read_text() == "old"
    assert broker.calls == []


def test_parameters_with_force_replaces_a_file_and_its_mode() -> None:
    Path("token.txt").write_text("old")
    Path("token.txt").chmod(0o644)
    assert main([*PARAMETERS, "--token-out", "token.txt", "--force"]) == 0
    assert Path("token.txt").read_text() == TOKEN
    assert stat.S_IMODE(Path("token.txt").stat().st_mode) == 0o600


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])  # made here: a test must not risk a real device
def test_parameters_with_force_replaces_regular_files_only(
    capsys: pytest.CaptureFixture[str], make: Callable[[str], None]
) -> None:
    make("special")
    assert "to replace a regular file" in usage_error(capsys, [*PARAMETERS, "--token-out", "special", "--force"])


def test_parameters_never_writes_through_a_dangling_link(capsys: pytest.CaptureFixture[str]) -> None:
    Path("link").symlink_to("elsewhere")
    assert "link exists" in usage_error(capsys, [*PARAMETERS, "--token-out", "link"])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--public-key-out", "a", "--token-out", "a"], "must be different files"),
        (["--token-out", "missing/token.txt"], "no such directory"),
    ],
)
def test_parameters_refuses_useless_names(capsys: pytest.CaptureFixture[str], options: list[str], text: str) -> None:
    assert text in usage_error(capsys, [*PARAMETERS, *options])


def test_parameters_that_fail_leave_no_file(broker: FakeBroker) -> None:
    broker.answers["GetImportParameters"] = Failure(Code.FAILED_PRECONDITION, "KEY_DISABLED")
    assert main([*PARAMETERS, "--public-key-out", "PublicKey.bin", "--token-out", "token.txt"]) == 5
    assert list(Path().iterdir()) == []


def wrapped_argv(option: str, path: str, token: str = "token.txt") -> list[str]:
    return ["import-wrapped", "--key-id", KEY_ID, option, path, "--token", token]


@pytest.mark.parametrize("from_stdin", [False, True], ids=["file", "stdin"])
def test_wrapped_key_material_in_base64_is_decoded(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch, *, from_stdin: bool
) -> None:
    encoded = b"AAAA\n" * 85 + b"AA==\n"
    Path("wrapped.b64").write_bytes(encoded)
    Path("token.txt").write_text(TOKEN)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(encoded)))
    assert main(wrapped_argv("--wrapped-b64", "-" if from_stdin else "wrapped.b64")) == 0
    assert broker.only_call.request.wrapped_key_material == bytes(256)


@pytest.mark.parametrize(
    ("option", "wrapped", "text"),
    [
        ("--wrapped", bytes(32), "wrapped key material has 256 bytes, this has 32"),
        ("--wrapped", bytes(70_000), "longer than 65536 bytes"),
        ("--wrapped-b64", b"*", "not base64"),
        ("--wrapped-b64", b"AAAA", "this has 3"),
    ],
    ids=["in the clear", "too long", "no base64", "short"],
)
def test_wrapped_key_material_of_another_form_is_not_sent(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str], option: str, wrapped: bytes, text: str
) -> None:
    Path("wrapped").write_bytes(wrapped)
    Path("token.txt").write_text(TOKEN)
    assert text in usage_error(capsys, wrapped_argv(option, "wrapped"))
    assert broker.calls == []


def test_token_that_is_no_text_is_not_sent(broker: FakeBroker, capsys: pytest.CaptureFixture[str]) -> None:
    Path("wrapped").write_bytes(bytes(256))
    Path("token.txt").write_bytes(b"\xff")
    assert "an import token is ASCII text" in usage_error(capsys, wrapped_argv("--wrapped", "wrapped"))
    assert broker.calls == []


def test_stdin_that_is_closed_is_a_usage_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert "standard input is closed" in usage_error(capsys, wrapped_argv("--wrapped", "-", "token"))


def test_two_files_from_stdin_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "only one file can come from stdin" in usage_error(capsys, wrapped_argv("--wrapped", "-", "-"))

"""The command kms-emulator: what it prints, how it ends, what it refuses."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from kms_emulator import Emulator, EmulatorSettings
from kms_emulator.__main__ import main
from tests.emulator.builders import MATERIAL, OAEP, wrapped_b64
from tests.emulator.client import Client, over_http

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def start_one(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "kms_emulator", "--port", "0", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start_one
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()


def client_of(process: subprocess.Popen[str]) -> Client:
    """A client of the emulator that printed its first line."""
    assert process.stdout is not None
    line = process.stdout.readline()
    match = re.fullmatch(r"KMS emulator 0\.1\.0 at http://127\.0\.0\.1:(\d+) \(region (\S+), account \d+\)\n", line)
    assert match is not None, line
    remote = Emulator(EmulatorSettings(port=int(match[1])))  # never started: it only knows port and access key
    return over_http(remote)


def ended(process: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> tuple[str, str]:
    """The rest of stdout and stderr after the signal; read as readline left off, which communicate would not."""
    assert process.stdout is not None
    assert process.stderr is not None
    process.send_signal(number)
    assert process.wait(timeout=10) == 0
    return process.stdout.read(), process.stderr.read()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_command_serves_until_a_signal_and_exits_0(start: Start, number: signal.Signals) -> None:
    process = start()
    assert client_of(process).call("ListKeys").status == 200
    output, _ = ended(process, number)
    assert "access key: LTAIexample  secret: secret" in output


def test_command_logs_one_line_a_request_without_token_or_blob(start: Start) -> None:
    process = start()
    client = client_of(process)
    key_id = client.ok("CreateKey", Origin="EXTERNAL", DKMSInstanceId="kst-example")["KeyMetadata"]["KeyId"]
    body = client.ok("GetParametersForImport", KeyId=key_id, WrappingKeySpec="RSA_2048", WrappingAlgorithm=OAEP)
    blob = wrapped_b64(client.emulator.issue_parameters(client.emulator.create_key(), OAEP)[0], MATERIAL)
    client.call("ImportKeyMaterial", KeyId=key_id, EncryptedKeyMaterial=blob, ImportToken=body["ImportToken"])
    client.call("DescribeKey", KeyId="two\nlines")
    _, errors = ended(process)
    lines = [re.sub(r"[\d.]+ ms$", "N ms", line) for line in errors.splitlines()]
    assert sorted(lines) == [  # each call has its own connection, and a line is written after its reply
        f"CreateKey '{key_id}' 200 N ms",
        "DescribeKey 'two\\nlines' 404 N ms",
        f"GetParametersForImport '{key_id}' 200 N ms",
        f"ImportKeyMaterial '{key_id}' 400 N ms",
    ]


def test_command_quiet_logs_nothing(start: Start) -> None:
    process = start("--quiet")
    client_of(process).ok("ListKeys")
    assert ended(process)[1] == ""


def test_command_options_reach_the_emulator(start: Start) -> None:
    process = start(
        *("--fault", "operation=ListKeys,action=error,code=Forbidden.NoPermission"),
        *("--quotas", "fixed", "--reading", "newest_token_only=true", "--clock-offset", "3600"),
        *("--admin-port", "0", "--rsa-key-pool", "1", "--dkms-instance", "kst-a", "--dkms-instance", "kst-b"),
    )
    client = client_of(process)
    assert client.call("DescribeKey", KeyId="x").code == "InvalidTimeStamp.Expired"
    client.emulator.clock.advance(3600)
    assert client.call("ListKeys").code == "Forbidden.NoPermission"
    assert client.call("CreateKey", DKMSInstanceId="kst-b").status == 200
    output, _ = ended(process)
    assert "Dedicated KMS instances: kst-a, kst-b" in output
    assert re.search(r"admin API at http://127\.0\.0\.1:\d+  bearer token: \S{20,}", output)


REFUSED = {
    "address": (["--host", "0.0.0.0"], "loopback"),
    "reading": (["--reading", "colour=red"], "unknown reading: colour"),
    "fault": (["--fault", "action=explode"], "action must be one of"),
    "TLS without a key": (["--tls-cert", "cert.pem"], "both a certificate and a key"),
    "negative pool": (["--rsa-key-pool", "-1"], "rsa_key_pool"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_command_with_arguments_that_do_not_fit_exits_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--port", "0", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_command_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == "kms-emulator 0.1.0\n"

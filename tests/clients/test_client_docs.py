"""docs/kbctl.md and docs/client.md: complete, and their examples run."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from kbctl.__main__ import build_parser
from kbctl.failures import MEANINGS
from keymaterial.v1 import types_pb2 as types
from tests.clients.fake_broker import KEY_ID, Failure, FakeBroker

DOCS = Path(__file__).parents[2] / "docs"
KBCTL, CLIENT = (DOCS / "kbctl.md").read_text(encoding="utf-8"), (DOCS / "client.md").read_text(encoding="utf-8")
SHELL = re.findall(r"```sh\n(.*?)```", KBCTL, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", CLIENT, re.DOTALL)
COMMON = {"--instance", "--request-id"}
OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


def commands(parser: argparse.ArgumentParser, prefix: str = "") -> dict[str, argparse.ArgumentParser]:
    """Every command with those under it, by its words."""
    found: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                found |= {prefix + name: below} | commands(below, f"{prefix}{name} ")
    return found


def options(parser: argparse.ArgumentParser) -> set[str]:
    return {name for action in parser._actions for name in action.option_strings if name not in {"-h", "--help"}}


def test_kbctl_page_lists_commands_as_help_does() -> None:
    listed = dict(re.findall(r"^\| `([a-z][a-z -]+)` \| ([^|]+) \|", KBCTL, re.MULTILINE))
    found = commands(build_parser())
    assert listed == {name: parser.description.removesuffix(".") for name, parser in found.items()}
    for words, about in listed.items():
        above, _, name = words.rpartition(" ")
        help_text = (found[above] if above else build_parser()).format_help()
        assert re.search(rf"^    {name} +{about}$", help_text, re.MULTILINE), words


def test_kbctl_page_lists_the_options_of_each_command() -> None:
    common = options(build_parser())
    for name, parser in commands(build_parser()).items():
        (row,) = re.findall(rf"^\| `{name}` \| .*$", KBCTL, re.MULTILINE)
        assert set(re.findall(r"--[a-z0-9-]+", row)) == options(parser) - common - COMMON, name
    section = KBCTL.partition("## Connection and output")[2].partition("\n## ")[0]
    listed = {
        name for cell in re.findall(r"^\| (`--[^|]+) \|", section, re.MULTILINE) for name in cell.split("`")[1::2]
    }
    assert listed == common - {"--version"}


def test_kbctl_page_lists_exit_codes_as_help_does() -> None:
    listed = {int(code): meaning for code, meaning in re.findall(r"^\| (\d+) \| ([^|]+) \|$", KBCTL, re.MULTILINE)}
    assert listed == {int(code): meaning for code, meaning in MEANINGS.items()}
    assert all(f"  {code:>3}  {meaning}" in build_parser().format_help() for code, meaning in listed.items())


@pytest.mark.parametrize(
    ("script", "algorithm", "scheme"),
    [
        (SHELL[0], types.WRAPPING_ALGORITHM_RSAES_OAEP_SHA_256, OAEP),
        (SHELL[1], types.WRAPPING_ALGORITHM_RSAES_PKCS1_V1_5, padding.PKCS1v15()),
    ],
    ids=["oaep", "pkcs1"],
)
def test_openssl_path_of_the_page_sends_the_material(
    broker: FakeBroker, tmp_path: Path, script: str, algorithm: int, scheme: padding.AsymmetricPadding
) -> None:
    private_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    broker.answers["GetImportParameters"].wrapping_public_key = private_key.public_key().public_bytes(  # type: ignore[union-attr]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "KBCTL_ADDRESS": broker.address,
        "KEY_ID": KEY_ID,
    }
    subprocess.run(["sh", "-e", "-c", script], cwd=tmp_path, env=environment, check=True, capture_output=True)
    parameters, imported = (call.request for call in broker.calls)
    assert parameters.wrapping_algorithm == algorithm
    material = (tmp_path / "KeyMaterial.bin").read_bytes()
    assert private_key.decrypt(imported.wrapped_key_material, scheme) == material
    assert imported.import_token == broker.answers["GetImportParameters"].import_token  # type: ignore[union-attr]


@pytest.mark.parametrize("script", PYTHON, ids=["sync", "asyncio"])
@pytest.mark.parametrize("failure", [None, "IMPORT_UNRESOLVED", "NOT_IMPORTED"])
def test_python_examples_run(
    broker: FakeBroker,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    script: str,
    failure: str | None,
) -> None:
    if failure:
        broker.answers["ImportExternalKey"] = Failure(grpc.StatusCode.ABORTED, failure)
    (tmp_path / "ca.pem").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(grpc, "ssl_channel_credentials", lambda **_: None)
    exec(compile(script.replace("127.0.0.1:50051", broker.address), "docs/client.md", "exec"), {})
    assert capsys.readouterr().out
    assert len(set(broker.rpcs)) == 1 + (failure == "IMPORT_UNRESOLVED" and script == PYTHON[0])


def test_module_runs_as_a_command(broker: FakeBroker) -> None:
    argv = [sys.executable, "-m", "kbctl", "health", "--address", broker.address]
    run = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert run.stdout == "status  SERVING\n"


def test_grpc_logs_nothing_beside_the_error_line(broker: FakeBroker) -> None:
    argv = [sys.executable, "-m", "kbctl", "health", "--tls", "--address", broker.address]
    run = subprocess.run(argv, capture_output=True, text=True, check=False)
    (line,) = run.stderr.splitlines()
    assert line.startswith("kbctl: no answer from the broker: ")
    assert run.returncode == 7

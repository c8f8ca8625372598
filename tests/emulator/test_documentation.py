"""The fidelity document is up to date; the guide's examples work."""

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from kms_emulator import Emulator, EmulatorSettings, Fault, Readings
from kms_emulator.__main__ import main
from kms_emulator.errors import ERROR_TABLE
from kms_emulator.fidelity import OPERATIONS_LEFT_OUT, render
from kms_emulator.operations import OPERATIONS
from kms_emulator.truth import Truth

ROOT = Path(__file__).resolve().parents[2]
GENERATOR = ROOT / "scripts" / "generate_emulator_fidelity.py"
GUIDE = (ROOT / "docs" / "emulator.md").read_text(encoding="utf-8")


def generator(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, GENERATOR, *arguments], capture_output=True, text=True, check=False)


def test_fidelity_document_is_up_to_date() -> None:
    result = generator("--check")
    assert result.returncode == 0, result.stderr


def test_fidelity_check_on_a_changed_document_exits_1_and_changes_nothing(tmp_path: Path) -> None:
    document = tmp_path / "fidelity.md"
    assert generator("--output", document).returncode == 0
    assert generator("--check", "--output", document).returncode == 0
    document.write_text(render() + "\n", encoding="utf-8")
    result = generator("--check", "--output", document)
    assert (result.returncode, document.read_text(encoding="utf-8")) == (1, render() + "\n")
    assert "out of date" in result.stderr


def test_fidelity_document_names_every_operation_parameter_error_and_reading() -> None:
    document = render()
    for operation in OPERATIONS.values():
        section = document.split(f"### {operation.name}\n")[1].split("\n##")[0]
        assert all(f"| `{parameter.name}` |" in section for parameter in operation.parameters)
    assert all(f"| `{rule.code}` | {rule.layer} | {rule.standing} |" in document for rule in ERROR_TABLE)
    assert all(f"| `{item.name}` |" in document for item in fields(Readings))
    assert not set(OPERATIONS_LEFT_OUT) & set(OPERATIONS)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, flags=re.DOTALL)


def test_guides_curl_requests_work() -> None:
    script = next(block for block in blocks("sh") if "curl" in block)
    with Emulator(EmulatorSettings(admin_port=0, admin_token="change-me")) as emulator:
        script = script.replace("http://127.0.0.1:8089", emulator.admin_endpoint)
        result = subprocess.run(["bash", "-euo", "pipefail", "-c", script], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout
        assert emulator.clock.offset_seconds == 86_400
        assert emulator.readings.newest_token_only
        assert (emulator.quotas.mode, emulator.quotas.limits["write"]) == ("fixed", 5)
        assert emulator.faults.armed() == []


def test_guides_python_examples_work(capsys: pytest.CaptureFixture[str]) -> None:
    sdk_example, embedding_example = blocks("python")
    exec(compile(embedding_example, "docs/emulator.md", "exec"), {})
    assert "PendingImport" in capsys.readouterr().out
    with Emulator() as emulator:
        code = sdk_example.replace("127.0.0.1:8088", emulator.endpoint.removeprefix("http://"))
        exec(compile(code, "docs/emulator.md", "exec"), {})
    assert capsys.readouterr().out == "PendingImport\n"


def test_guides_view_of_the_truth_is_complete() -> None:
    rows = re.findall(r"^\| `.*", GUIDE, flags=re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)", row.split("|")[1])}
    assert named == {name for name in vars(Truth) if not name.startswith("_")}


def test_guides_options_are_understood() -> None:
    """Faults and readings of the guide parse, and each option it names is in --help."""
    text = " ".join(blocks("sh"))
    for fault in re.findall(r"--fault (\S+)", text):
        Fault.from_text(fault)
    for reading in re.findall(r"--reading (\S+)", text):
        Readings().changed_by_text(reading)


def test_guides_options_are_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    help_text = capsys.readouterr().out
    for option in set(re.findall(r"(--[a-z][a-z-]+)", GUIDE)) - {"--help"}:
        assert option in help_text

"""`keybroker probe-kms` as a command: consent, exit status, output, signals; and that its page tells the truth."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from keybroker.__main__ import main
from keybroker.probe import command
from keybroker.probe.findings import QUESTIONS
from kms_emulator import Emulator, Fault
from tests.integration.conftest import ACCESS_KEY_ID, ACCESS_KEY_SECRET, broker_settings
from tests.integration.probing import throwaways, unscheduled

CONSENT = "--i-accept-throwaway-cmks"
PAGE = (Path(__file__).parents[2] / "docs" / "probe-kms.md").read_text()


@pytest.fixture
def emulator(make_emulator: Callable[..., Emulator]) -> Emulator:
    return make_emulator(rsa_key_pool=2)


@pytest.fixture
def config(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", ACCESS_KEY_ID)
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", ACCESS_KEY_SECRET)
    path = tmp_path / "keybroker.yaml"
    path.write_text(yaml.safe_dump(broker_settings(emulator).model_dump(mode="json", exclude_none=True)))
    return str(path)


@pytest.fixture(autouse=True)
def protections(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """It would be the test process that is protected; here what it would be, and what was read before."""
    done: list[str] = []
    source = command.credentials_source
    monkeypatch.setattr(command, "protect_from_dumps", lambda: done.append("protected"))
    monkeypatch.setattr(command, "credentials_source", lambda *them: done.append("credentials") or source(*them))
    return done


@pytest.mark.parametrize("protection", [True, False])
def test_process_is_protected_from_dumps_before_credentials_are_read(
    config: str, protections: list[str], monkeypatch: pytest.MonkeyPatch, *, protection: bool
) -> None:
    monkeypatch.setenv("KEYBROKER__HARDENING__DUMP_PROTECTION", str(protection).lower())
    assert main(["probe-kms", "--config", config]) == 2  # no consent
    assert protections == ["protected"] * protection + ["credentials"]


def test_without_consent_it_says_what_it_would_make_and_sends_nothing(
    emulator: Emulator, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["probe-kms", "--config", config]) == 2
    said = capsys.readouterr()
    assert "up to 3 external AES-256 CMKs on kst-example" in said.err
    assert CONSENT in said.err
    assert said.out == ""
    assert not emulator.calls


@pytest.mark.parametrize("arguments", [["--instance", "nobody"], ["--seconds-budget", "0"], ["--output", "xml"]])
def test_wrong_arguments_send_nothing_and_exit_2(emulator: Emulator, config: str, arguments: list[str]) -> None:
    try:
        status: Any = main(["probe-kms", "--config", config, CONSENT, *arguments])
    except SystemExit as end:
        status = end.code
    assert status == 2
    assert not emulator.calls


def test_an_instance_that_can_not_be_used_is_a_wrong_configuration(
    emulator: Emulator, config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KEYBROKER__KMS__INSTANCES__MAIN__CA_BUNDLE_FILE", str(tmp_path / "missing.pem"))
    assert main(["probe-kms", "--config", config, CONSENT]) == 2
    assert "kms.instances.main: the CA bundle" in capsys.readouterr().err
    assert not emulator.calls


def test_json_has_the_documented_fields_and_every_question(
    emulator: Emulator, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    started = time.monotonic()
    assert main(["probe-kms", "--config", config, CONSENT, "--output", "json"]) == 0
    assert emulator.calls.total() / (time.monotonic() - started) < 5.5
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert {answer["question"] for answer in report["answers"]} == set(QUESTIONS)
    documented = set(re.findall(r"^\| `([a-z_]+)` \|", _section("The JSON report"), re.MULTILINE))
    answer = report["answers"][0]
    assert set(report) | set(answer) | set(answer["evidence"][0]) | set(report["cmks"][0]) == documented
    assert report["schema"] == "keybroker.probe-kms/1"
    assert report["readings"]["newest_token_only"] is False
    assert {cmk["state"] for cmk in report["cmks"]} == {"PendingDeletion"}
    assert all(cmk["key_id"] in said.err for cmk in report["cmks"])
    assert unscheduled(emulator) == set()


def test_sigint_in_the_middle_of_create_key_waits_for_its_id_and_cleans_up(emulator: Emulator, config: str) -> None:
    emulator.faults.add(Fault(operation="CreateKey", when="after", action="delay", delay_seconds=1.0))
    process = subprocess.Popen(
        [sys.executable, "-m", "keybroker", "probe-kms", "--config", config, CONSENT, "--output", "json"],
        env=os.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    ends_at = time.monotonic() + 20
    while not throwaways(emulator):
        assert time.monotonic() < ends_at
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)  # an impatient second one changes nothing
    out, err = process.communicate(timeout=30)
    report = json.loads(out)
    assert (process.returncode, report["ended"]) == (1, "interrupted"), err
    assert [cmk["key_id"] for cmk in report["cmks"]] == [key.key_id for key in throwaways(emulator)]
    assert unscheduled(emulator) == set()
    assert "Traceback" not in err


def test_page_names_every_question_and_every_exit_status() -> None:
    assert set(re.findall(r"^\| `([a-z_]+)` \|", _section("The questions"), re.MULTILINE)) == set(QUESTIONS)
    assert re.findall(r"^\| ([0-9]) \|", _section("Exit status"), re.MULTILINE) == ["0", "1", "2", "3"]


def _section(title: str) -> str:
    return PAGE.split(f"## {title}\n")[1].split("\n## ")[0]

"""The audit of the lock files: what is known, and what is said of what is not. Bandit's rules."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version
from pip_audit._format.json import JsonFormat
from pip_audit._service.interface import (
    ResolvedDependency,
    SkippedDependency,
    VulnerabilityID,
    VulnerabilityResult,
)

from scripts import audit_dependencies
from scripts.audit_dependencies import Findings, main, read_report

ROOT = Path(__file__).resolve().parents[2]
SOUND = {"name": "sound", "version": "1.0", "vulns": []}
VULNERABLE = {"name": "bad", "version": "2.0", "vulns": [{"id": "PYSEC-2024-1", "fix_versions": []}]}
UNKNOWN = {"name": "unknown", "skip_reason": "Dependency not found on PyPI"}


def report(*dependencies: dict[str, Any]) -> str:
    return json.dumps({"dependencies": dependencies, "fixes": []})


def test_report_tells_vulnerable_unknown_and_sound_packages_apart() -> None:
    assert read_report(report(SOUND, VULNERABLE, UNKNOWN)) == Findings(
        packages=3, vulnerable=["bad 2.0: PYSEC-2024-1"], unknown=["unknown"]
    )


def test_report_as_pip_audit_writes_it_is_read() -> None:
    version = Version("2.0")
    results: dict[Any, Any] = {
        ResolvedDependency(name="sound", version=version): [],
        ResolvedDependency(name="bad", version=version): [
            VulnerabilityResult.create([VulnerabilityID("CVE-2024-1")], "what it is", [], None)
        ],
        SkippedDependency(name="unknown", skip_reason="not found"): [],
    }
    text = JsonFormat(output_desc=False, output_aliases=False).format(results, [])
    assert read_report(text) == Findings(packages=3, vulnerable=["bad 2.0: CVE-2024-1"], unknown=["unknown"])


@pytest.mark.parametrize("text", ["", "no JSON", "{}", report()])
def test_report_that_is_none_is_not_taken_for_a_good_one(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answering(monkeypatch, text)
    assert main([]) == 0
    assert capsys.readouterr().out.count("NOT AUDITED: pip-audit gave no report") == 2
    assert main(["--complete"]) == 1


@pytest.mark.parametrize(
    ("found", "code", "complete_code"),
    [([SOUND], 0, 0), ([SOUND, UNKNOWN], 0, 1), ([VULNERABLE], 1, 1), ([UNKNOWN, VULNERABLE], 1, 1)],
)
def test_vulnerable_package_always_fails_and_an_unknown_one_where_all_must_be_known(
    found: list[dict[str, Any]],
    code: int,
    complete_code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answering(monkeypatch, report(*found))
    assert main([]) == code
    shown = capsys.readouterr().out
    assert ("NOT AUDITED: 1 packages" in shown) == (UNKNOWN in found)
    assert ("bad 2.0: PYSEC-2024-1" in shown) == (VULNERABLE in found)
    assert main(["--complete"]) == complete_code


def answering(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """pip-audit that prints this. It exits with 1 for vulnerabilities and for failures of its own alike."""

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert command[:3] == [sys.executable, "-m", "pip_audit"]
        return subprocess.CompletedProcess(command, 1, stdout=text, stderr="")

    monkeypatch.setattr(audit_dependencies.subprocess, "run", run)


CARELESS = {
    "S105": 'password = "hunter2"\n',
    "S301": "import pickle\n\npickle.loads(b'')\n",
    "S324": "import hashlib\n\nhashlib.md5(b'')\n",
    "S501": 'import requests\n\nrequests.get("https://a", verify=False, timeout=1)\n',
    "S602": 'import subprocess\n\nsubprocess.run("ls " + input(), shell=True)\n',
}


@pytest.mark.parametrize(
    "folder", ["service/keybroker", "clients/python/keybroker_client", "clients/cli/kbctl", "scripts"]
)
def test_bandits_rules_are_on_for_what_is_shipped(folder: str) -> None:
    for rule, text in CARELESS.items():
        ended = subprocess.run(
            [
                sys.executable,
                "-m",
                "ruff",
                "check",
                "--output-format",
                "json",
                "--stdin-filename",
                f"{folder}/x.py",
                "-",
            ],
            cwd=ROOT,
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        assert rule in {finding["code"] for finding in json.loads(ended.stdout)}

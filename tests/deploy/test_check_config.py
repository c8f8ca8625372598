"""`keybroker check-config` says where the ledger is, and warns of one that would be lost."""

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from keybroker.__main__ import main

POLICY = 'rules:\n  - {name: a, callers: ["jwt:a"], rpcs: [DescribeKey]}\n'
INSTANCE = {"region": "cn-hangzhou", "endpoint": "http://127.0.0.1:8088", "dkms_instance_id": "kst-example"}


def checked(folder: Path, ledger: dict[str, str], **sections: Any) -> int:
    """The exit status of check-config for these sections of the configuration."""
    kms = {"default_instance": "main", "instances": {"main": INSTANCE}}
    file = folder / "keybroker.yaml"
    file.write_text(yaml.safe_dump({"kms": kms, "ledger": ledger, **sections}))
    return main(["check-config", "--config", str(file)])


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_bytes(base64.b64encode(bytes(range(32))))
    path.chmod(0o440)
    return path


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ID", "SECRET"):
        monkeypatch.setenv(f"ALIBABA_CLOUD_ACCESS_KEY_{name}", "not-a-secret")


def test_check_config_without_ledger_file_warns_that_nothing_survives(tmp_path: Path, capsys: Any) -> None:
    assert checked(tmp_path, {}) == 0
    said = capsys.readouterr()
    assert "Ledger: in memory\n" in said.out
    assert "ledger.file is not set: a restart forgets every request" in said.err


def test_check_config_without_mark_warns_of_restores(tmp_path: Path, capsys: Any, key_file: Path) -> None:
    ledger = tmp_path / "ledger.db"
    assert checked(tmp_path, {"file": str(ledger), "key_file": str(key_file)}) == 0
    said = capsys.readouterr()
    assert f"Ledger: {ledger}, mark none, key {key_file}\n" in said.out
    assert "ledger.mark_file is not set" in said.err


def test_check_config_with_all_of_it_warns_of_nothing_and_makes_no_file(
    tmp_path: Path, capsys: Any, key_file: Path
) -> None:
    ledger, mark = tmp_path / "ledger.db", tmp_path / "mark"
    settings = {"file": str(ledger), "mark_file": str(mark), "key_file": str(key_file)}
    assert checked(tmp_path, settings) == 0
    said = capsys.readouterr()
    assert f"Ledger: {ledger}, mark {mark}, key {key_file}\n" in said.out
    assert said.err == ""
    assert not ledger.exists()
    assert not mark.exists()


@pytest.mark.parametrize(
    ("audit", "said"),
    [
        ({}, "off"),
        ({"file": "/var/log/audit.jsonl"}, "/var/log/audit.jsonl"),
        ({"stdout": True}, "standard output"),
        ({"file": "/var/log/audit.jsonl", "stdout": True}, "/var/log/audit.jsonl and standard output"),
    ],
)
def test_check_config_says_where_the_audit_log_goes(
    tmp_path: Path, capsys: Any, audit: dict[str, Any], said: str
) -> None:
    assert checked(tmp_path, {}, audit=audit) == 0
    assert f"Audit: {said}\n" in capsys.readouterr().out


def test_check_config_with_audit_and_without_ledger_file_warns_that_outcomes_can_be_lost(
    tmp_path: Path, capsys: Any, key_file: Path
) -> None:
    warning = "there is an audit log and no ledger.file"
    assert checked(tmp_path, {}, audit={"stdout": True}) == 0
    assert warning in capsys.readouterr().err
    kept = {"file": str(tmp_path / "ledger.db"), "key_file": str(key_file)}
    assert checked(tmp_path, kept, audit={"stdout": True}) == 0
    assert warning not in capsys.readouterr().err


@pytest.mark.parametrize("stdout", [True, False])
def test_check_config_with_a_policy_and_without_audit_warns(tmp_path: Path, capsys: Any, *, stdout: bool) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    jwt = {"issuer": "https://issuer.example", "audience": "keybroker", "jwks_url": "https://issuer.example/keys"}
    sections = {"server": {"identity": {"jwt": jwt}}, "policy": {"file": str(policy)}, "audit": {"stdout": stdout}}
    assert checked(tmp_path, {}, **sections) == 0
    assert ("there is a policy and no audit log" in capsys.readouterr().err) is not stdout


def test_check_config_shows_no_key(tmp_path: Path, capsys: Any, key_file: Path) -> None:
    key = key_file.read_text()
    key_file.chmod(0o644)
    assert checked(tmp_path, {"file": str(tmp_path / "ledger.db"), "key_file": str(key_file)}) == 2
    said = capsys.readouterr()
    assert "ledger.key_file" in said.err
    assert key not in said.out + said.err

"""`keybroker check-config` says where the ledger is, and warns of one that would be lost."""

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from keybroker.__main__ import main

INSTANCE = {"region": "cn-hangzhou", "endpoint": "http://127.0.0.1:8088", "dkms_instance_id": "kst-example"}


def checked(folder: Path, ledger: dict[str, str]) -> int:
    """The exit status of check-config for this section of the configuration."""
    kms = {"default_instance": "main", "instances": {"main": INSTANCE}}
    file = folder / "keybroker.yaml"
    file.write_text(yaml.safe_dump({"kms": kms, "ledger": ledger}))
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


def test_check_config_shows_no_key(tmp_path: Path, capsys: Any, key_file: Path) -> None:
    key = key_file.read_text()
    key_file.chmod(0o644)
    assert checked(tmp_path, {"file": str(tmp_path / "ledger.db"), "key_file": str(key_file)}) == 2
    said = capsys.readouterr()
    assert "ledger.key_file" in said.err
    assert key not in said.out + said.err

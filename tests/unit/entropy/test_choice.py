"""The source that the settings name, made without asking it anything."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from keybroker import entropy_choice
from keybroker.adapters.entropy import SystemEntropy
from keybroker.domain.errors import BrokerError
from keybroker.entropy_choice import make_entropy
from keybroker.settings import ConfigurationError, EntropySettings


def pkcs11(tmp_path: Path, **changes: Any) -> EntropySettings:
    (tmp_path / "module.so").touch()
    (tmp_path / "pin").write_text("1234\n")
    section = {"module_file": tmp_path / "module.so", "token_label": "a token", "pin_file": tmp_path / "pin"}
    return EntropySettings.model_validate({"source": "pkcs11", "pkcs11": section | changes})


def test_default_is_the_operating_system() -> None:
    assert isinstance(make_entropy(EntropySettings()), SystemEntropy)


def test_hsm_is_not_asked_when_it_is_configured(tmp_path: Path) -> None:
    assert make_entropy(pkcs11(tmp_path)).name == "pkcs11"


@pytest.mark.parametrize("key", ["module_file", "pin_file"])
def test_file_that_is_not_there_is_named(key: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=rf"entropy\.pkcs11\.{key}: .*no-such"):
        make_entropy(pkcs11(tmp_path, **{key: tmp_path / "no-such"}))


def test_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        entropy_choice, "find_spec", lambda name: None if name == "pkcs11" else importlib.util.find_spec(name)
    )
    with pytest.raises(ConfigurationError, match=r"keybroker\[server,pkcs11\]"):
        make_entropy(pkcs11(tmp_path))


def test_module_that_is_none_makes_the_source_unavailable(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="does not answer"):
        make_entropy(pkcs11(tmp_path)).check()

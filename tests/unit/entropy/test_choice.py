"""The source that the settings name, made without asking it anything."""

import importlib.util
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from keybroker import entropy_choice
from keybroker.adapters.entropy import SystemEntropy
from keybroker.domain.errors import BrokerError, Reason
from keybroker.entropy_choice import look_at, make_entropy
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


class Source:
    """Does this when it is asked."""

    name = "pkcs11"

    def __init__(self, check: Callable[[], object]) -> None:
        self.check: Any = check

    def fill(self, buffer: memoryview) -> None:
        raise AssertionError("a look draws nothing that is used")


def fails(error: Exception) -> None:
    raise error


def test_first_look_at_a_source_that_hangs_ends_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    monkeypatch.setattr(entropy_choice, "FIRST_LOOK_SECONDS", 0.01)
    with capture_logs() as logged:
        look_at(Source(lambda: go.wait(10)))
    assert [(entry["event"], entry["kind"]) for entry in logged] == [("entropy_source_failed", "NoAnswer")]
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "entropy"]
    assert thread.daemon  # the process does not wait for it
    go.set()
    thread.join()


def test_first_look_never_fails_and_quotes_nothing() -> None:
    with capture_logs() as logged:
        look_at(Source(lambda: fails(BrokerError(Reason.ENTROPY_UNAVAILABLE, "told"))))
        look_at(Source(lambda: fails(ValueError("canary"))))
    assert [entry["event"] for entry in logged] == ["unforeseen"]
    assert "builtins.ValueError at fails" in str(logged)
    assert "canary" not in str(logged)


def test_module_that_is_none_makes_the_source_unavailable(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="does not answer"):
        make_entropy(pkcs11(tmp_path)).check()

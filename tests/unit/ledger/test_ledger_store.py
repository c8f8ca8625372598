"""The ledger that the settings ask for."""

import base64
import re
from pathlib import Path

import pytest
import structlog

from keybroker.adapters.ledger.sqlite import SqliteLedger
from keybroker.ledger_store import make_ledger, open_ledger
from keybroker.settings import ConfigurationError, LedgerSettings
from tests.unit.ledger.support import KEY, OTHER_KEY, StillClock, attempt, prepared


def key_file(path: Path, key: bytes = KEY, *, mode: int = 0o440) -> Path:
    path.write_bytes(base64.b64encode(key) + b"\n")
    path.chmod(mode)
    return path


def made(**settings: object) -> SqliteLedger:
    ledger = make_ledger(LedgerSettings.model_validate(settings), clock=StillClock())
    open_ledger(ledger)
    return ledger


def test_without_a_file_it_is_in_memory_under_a_random_key() -> None:
    ledgers = [made(), made()]
    assert len({ledger.tag("a", "b") for ledger in ledgers}) == 2
    ledgers[0].insert(attempt())
    assert ledgers[1].find("jwt:caller", "request-1") is None
    for ledger in ledgers:
        ledger.close()


def test_in_a_file_with_keys_and_mark(tmp_path: Path) -> None:
    paths = {"file": tmp_path / "ledger.db", "mark_file": tmp_path / "mark"}
    ledger = made(**paths, key_file=key_file(tmp_path / "key"))
    row = ledger.update(prepared(ledger.insert(attempt())))
    tag = ledger.tag("a", "b")
    ledger.close()
    new = key_file(tmp_path / "new", OTHER_KEY)
    ledger = made(**paths, key_file=new, old_key_files=[tmp_path / "key"])
    assert ledger.find("jwt:caller", "request-1") == row
    assert ledger.tag("a", "b") != tag
    assert ledger.restored() is None
    ledger.close()
    assert (tmp_path / "mark").exists()


def test_file_without_a_mark_is_warned_of(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        made(file=tmp_path / "ledger.db", key_file=key_file(tmp_path / "key")).close()
    assert [entry["event"] for entry in logs] == ["ledger_without_mark"]


def test_mark_beside_the_ledger_is_warned_of(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        made(file=tmp_path / "a", mark_file=tmp_path / "b", key_file=key_file(tmp_path / "key")).close()
    assert [entry["event"] for entry in logs] == ["ledger_mark_on_the_same_file_system"]


def test_tombstones_are_kept_as_long_as_is_set(tmp_path: Path) -> None:
    ledger = made(tombstone_days=2)
    assert ledger._tombstones_kept.days == 2
    ledger.close()


@pytest.mark.parametrize(
    "content",
    [b"", b"not base64!", base64.b64encode(KEY[:-1]), base64.b64encode(KEY + b"\0"), KEY.hex().encode()],
    ids=["empty", "words", "short", "long", "hex"],
)
@pytest.mark.parametrize("name", ["key_file", "old_key_files"])
def test_key_file_of_another_content_is_refused_and_not_quoted(tmp_path: Path, name: str, content: bytes) -> None:
    good = key_file(tmp_path / "good", OTHER_KEY)
    bad = tmp_path / "bad"
    bad.write_bytes(content)
    bad.chmod(0o400)
    settings = {"key_file": bad} if name == "key_file" else {"key_file": good, "old_key_files": [bad]}
    with pytest.raises(ConfigurationError, match=re.escape(f"ledger.{name}: {bad} must hold 32 random")) as caught:
        made(**settings)
    assert not content or content.decode() not in str(caught.value)


def test_key_file_that_everybody_can_read_is_refused(tmp_path: Path) -> None:
    open_to_all = key_file(tmp_path / "key", mode=0o444)
    with pytest.raises(ConfigurationError, match=r"ledger\.key_file: .* is open to every user of this machine"):
        made(key_file=open_to_all)


def test_key_that_is_current_and_old_is_refused(tmp_path: Path) -> None:
    path = key_file(tmp_path / "key")
    with pytest.raises(ConfigurationError, match=r"ledger\.old_key_files: a ledger key is there twice"):
        made(key_file=path, old_key_files=[path])


def test_file_that_can_not_be_used_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="ledger: can't open the ledger"):
        made(file=tmp_path / "no" / "ledger.db", key_file=key_file(tmp_path / "key"))
    with pytest.raises(ConfigurationError, match=r"ledger\.key_file: can't read"):
        made(key_file=tmp_path / "missing")


def test_making_one_opens_nothing(tmp_path: Path) -> None:
    settings = LedgerSettings(file=tmp_path / "a", mark_file=tmp_path / "b", key_file=key_file(tmp_path / "key"))
    make_ledger(settings, clock=StillClock())
    assert [path.name for path in tmp_path.iterdir()] == ["key"]

"""Files read again when they change: settled, refused, unreadable, removed."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from keybroker import watched_files
from keybroker.settings import ConfigurationError
from keybroker.watched_files import WatchedFiles


def parse(contents: Sequence[bytes]) -> str:
    text = contents[0].decode()
    if text == "bad":
        raise ConfigurationError("what: is bad")
    if text == "odd":
        raise LookupError("foreign")
    return text


class Watched:
    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(watched_files, "LOOK_EVERY_SECONDS", 0.0)
        self.path = path
        self.told: list[bool] = []
        self.write("one")
        self.files = WatchedFiles([path], parse, what="what", on_reload=lambda _, good: self.told.append(good))

    def write(self, text: str, *, age_seconds: float = 60.0) -> None:
        fresh = self.path.with_suffix(".new")
        fresh.write_text(text)
        written_at = time.time() - age_seconds
        os.utime(fresh, (written_at, written_at))
        fresh.replace(self.path)


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(tmp_path / "file", monkeypatch)


def test_change_is_seen_and_told_once(watched: Watched) -> None:
    watched.write("two")
    assert [watched.files.current() for _ in range(3)] == ["two"] * 3
    assert watched.told == [True]


@pytest.mark.parametrize("text", ["bad", "odd"])
def test_version_that_can_not_be_used_keeps_the_old_and_is_told_once(watched: Watched, text: str) -> None:
    watched.write(text)
    assert [watched.files.current() for _ in range(3)] == ["one"] * 3
    assert watched.told == [False]
    watched.write("three")
    assert watched.files.current() == "three"
    assert watched.told == [False, True]


def test_file_that_could_not_be_read_is_read_when_it_can_be(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    watched.write("two")

    def unreadable(path: Path, *, key: str) -> bytes:
        raise ConfigurationError(f"{key}: can't read {path}")

    with monkeypatch.context() as patched:
        patched.setattr(watched_files, "read_file", unreadable)
        assert [watched.files.current() for _ in range(2)] == ["one"] * 2
    assert watched.files.current() == "two"
    assert watched.told == [False, True]


def test_file_removed_twice_is_told_twice(watched: Watched) -> None:
    for _ in range(2):
        aside = watched.path.with_suffix(".aside")
        watched.path.rename(aside)
        assert watched.files.current() == "one"
        aside.rename(watched.path)
        assert watched.files.current() == "one"
    assert watched.told == [False, False]


def test_file_being_written_is_left_alone_until_it_rests(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_files, "LOOK_EVERY_SECONDS", 0.05)
    watched.write("half", age_seconds=-3600.0)  # by a clock that is ahead: never old enough
    time.sleep(0.06)
    assert watched.files.current() == "one"
    watched.write("whole", age_seconds=-3600.0)
    time.sleep(0.06)
    assert watched.files.current() == "one"
    time.sleep(0.06)
    assert watched.files.current() == "whole"

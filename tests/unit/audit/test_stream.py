"""The audit log on standard output: alone, beside the file, before a reader that has stopped, before none."""

import json
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from keybroker.adapters.audit.log import ChainedAuditLog
from keybroker.domain.errors import BrokerError, Reason
from tests.unit.audit.support import event, make_log, read, verified, verified_file


@dataclass
class Pipe:
    reader: int
    writer: int
    read_bytes: bytes = b""

    def fill(self) -> int:
        """Until nothing goes in any more; returns the bytes that did."""
        os.set_blocking(self.writer, False)
        filled = 0
        try:
            while True:
                filled += os.write(self.writer, b"#" * 4096)
        except BlockingIOError:
            return filled
        finally:
            os.set_blocking(self.writer, True)

    def lines(self, *, skip: int = 0) -> list[bytes]:
        """What is in it now, after so many bytes of filling."""
        os.set_blocking(self.reader, False)
        try:
            while chunk := os.read(self.reader, 65536):
                self.read_bytes += chunk
        except BlockingIOError:
            pass
        return self.read_bytes[skip:].splitlines(keepends=True)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    reader, writer = os.pipe()
    pipe = Pipe(reader, writer)
    yield pipe
    for descriptor in (pipe.reader, pipe.writer):
        if descriptor >= 0:
            os.close(descriptor)


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as entries:
        yield entries


def refused(log: ChainedAuditLog, *events: Any) -> None:
    with pytest.raises(BrokerError) as caught:
        log.write(events)
    assert caught.value.reason is Reason.AUDIT_UNAVAILABLE


def test_stream_alone_is_a_chain_linked_to_the_head_that_is_kept(pipe: Pipe) -> None:
    log = make_log(None, pipe.writer)
    log.open("a" * 64)
    head = log.write([event(), event()])
    lines = pipe.lines()
    assert json.loads(lines[0])["prev"] == "a" * 64
    assert len(lines) == 3
    assert verified(lines, heads=[head]).is_sound


def test_stream_has_the_same_lines_as_the_file(pipe: Pipe, tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    with closing(make_log(file, pipe.writer)) as log:
        log.open()
        log.write([event(), event()])
    assert b"".join(pipe.lines()) == file.read_bytes()


@pytest.mark.parametrize("name", ["", "audit.jsonl"])
def test_reader_that_has_stopped_refuses_the_events_which_come_once_when_it_goes_on(
    name: str, pipe: Pipe, tmp_path: Path, logged: list[Any]
) -> None:
    file = tmp_path / name if name else None
    with closing(make_log(file, pipe.writer)) as log:
        log.open()
        begun = b"".join(pipe.lines())
        skip = len(begun) + pipe.fill()
        events = [event(), event()]
        refused(log, *events)
        refused(log, *events)
        assert file is None or len(read(file)) == 1
        assert pipe.lines(skip=skip) == []
        log.write(events)
    lines = [*begun.splitlines(keepends=True), *pipe.lines(skip=skip)]
    assert [json.loads(line)["id"] for line in lines][1:] == [one.id for one in events]
    assert verified(lines).is_sound
    assert file is None or file.read_bytes() == b"".join(lines)
    assert [(entry["event"], entry.get("kind")) for entry in logged] == [
        ("audit_unavailable", "ETIMEDOUT"),
        ("audit_available", None),
    ]


def test_reader_that_has_stopped_at_the_start_keeps_nothing_from_starting(pipe: Pipe) -> None:
    skip = pipe.fill()
    log = make_log(None, pipe.writer)
    log.open()
    assert log.head == ""
    pipe.lines()
    log.write([event()])
    assert [json.loads(line)["event"] for line in pipe.lines(skip=skip)] == ["started", "before"]


def test_lines_that_left_before_it_stopped_stay_in_the_chain(pipe: Pipe, tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    with closing(make_log(file, pipe.writer)) as log:
        log.open()
        many = [event(text="a" * 500) for _ in range(200)]  # more than a pipe holds
        refused(log, *many)
        left = pipe.lines()
        assert 50 < len(left) < 200
        assert file.read_bytes() == b"".join(left)
        assert log.head == json.loads(left[-1])["hash"]
        log.write([event()])
    assert verified(pipe.lines()).is_sound
    assert verified_file(file).is_sound


def test_half_a_line_that_left_gets_its_rest_first(pipe: Pipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "audit.jsonl"
    real = os.write
    halves = iter([True, False])

    def half(descriptor: int, data: bytes) -> int:
        if descriptor != pipe.writer:
            return real(descriptor, data)
        if next(halves):
            return real(descriptor, data[:20])
        raise OSError(5, "half of it")

    with closing(make_log(file, pipe.writer)) as log:
        log.open()
        first, second = event(), event()
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", half)
            refused(log, first, second)
        assert len(read(file)) == 2  # the line that was begun, and not the one after it
        log.write([second])
    assert b"".join(pipe.lines()) == file.read_bytes()
    assert [line["id"] for line in read(file)][1:] == [first.id, second.id]
    assert verified_file(file).is_sound


@pytest.mark.parametrize("name", ["", "audit.jsonl"])
def test_reader_that_is_gone_refuses_every_event(name: str, pipe: Pipe, tmp_path: Path, logged: list[Any]) -> None:
    file = tmp_path / name if name else None
    with closing(make_log(file, pipe.writer)) as log:
        log.open()
        os.close(pipe.reader)
        pipe.reader = -1
        refused(log, event())
        refused(log, event())
    assert [entry["kind"] for entry in logged] == ["EPIPE"]
    assert file is None or len(read(file)) == 1


def test_file_that_fails_lets_nothing_onto_the_stream(
    pipe: Pipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(make_log(tmp_path / "audit.jsonl", pipe.writer)) as log:
        log.open()
        before = pipe.lines()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", lambda _: (_ for _ in ()).throw(OSError(5, "no disk")))
            refused(log, event())
    assert pipe.lines() == before


def test_stream_that_does_not_block_is_waited_for_and_not_spun_on(pipe: Pipe, tmp_path: Path) -> None:
    pipe.fill()
    os.set_blocking(pipe.writer, False)
    log = make_log(None, pipe.writer)
    log.open()
    refused(log, event())


def test_stream_into_a_file_is_written_too(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with target.open("wb") as out:
        log = make_log(None, out.fileno())
        log.open()
        log.write([event()])
    assert verified_file(target).is_sound
    assert len(read(target)) == 2

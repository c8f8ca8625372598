"""The audit log in a file: chains of several processes, what a failure leaves, what the file's owner does to it."""

import errno
import fcntl
import os
import resource
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from keybroker.adapters.audit.log import AuditFileError, ChainedAuditLog
from keybroker.domain.errors import BrokerError, Reason
from tests.unit.audit.support import event, head_of, make_log, read, verified_file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as entries:
        yield entries


@pytest.fixture
def log(file: Path) -> Iterator[ChainedAuditLog]:
    with opened(file) as log:
        yield log


@contextmanager
def opened(file: Path, last_head: str = "", stdout: int | None = None) -> Iterator[ChainedAuditLog]:
    with closing(make_log(file, stdout)) as log:
        log.open(last_head)
        yield log


def write_once(file: Path, last_head: str = "") -> str:
    """One start, one event."""
    with opened(file, last_head) as log:
        return log.write([event()])


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Writes beyond it fail with EFBIG, after those bytes that still fit: as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def refused(log: ChainedAuditLog, *events: Any) -> None:
    with pytest.raises(BrokerError) as caught:
        log.write(list(events) or [event()])
    assert caught.value.reason is Reason.AUDIT_UNAVAILABLE


def names(file: Path) -> list[str]:
    return [line["event"] for line in read(file)]


def fails(number: int) -> Callable[..., Any]:
    def call(*_: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return call


def test_write_returns_the_hash_of_the_last_line_on_the_disk(file: Path, log: ChainedAuditLog) -> None:
    assert log.head == read(file)[-1]["hash"]
    head = log.write([event(), event()])
    assert head == log.head == read(file)[-1]["hash"]
    assert [(line["seq"], line["event"]) for line in read(file)] == [(1, "started"), (2, "before"), (3, "before")]
    assert read(file)[0]["version"] == "1.0"
    assert verified_file(file, heads=[head]).is_sound


def test_write_of_nothing_sees_whether_it_can_write(file: Path, log: ChainedAuditLog) -> None:
    with file_size_limit(file.stat().st_size), pytest.raises(BrokerError):
        log.write([])
    assert log.write([]) == log.head
    assert [line["event"] for line in read(file)] == ["started", "resumed"]
    assert verified_file(file, heads=[log.head]).is_sound


@pytest.mark.usefixtures("logged")
def test_write_of_nothing_begins_a_chain_that_could_not_be_begun(file: Path) -> None:
    with closing(make_log(file, None)) as log:
        with file_size_limit(0):
            log.open()
        assert log.head == ""
        log.write([])
    assert [line["event"] for line in read(file)] == ["started"]


def test_unsound_last_line_is_logged_once_however_often_the_chain_can_not_be_begun(
    file: Path, logged: list[Any]
) -> None:
    file.write_bytes(b"junk\n")
    file.chmod(0o600)
    with closing(make_log(file, None)) as log, file_size_limit(file.stat().st_size):
        log.open()
        for _ in range(2):
            with pytest.raises(BrokerError):
                log.write([])
    assert [entry["event"] for entry in logged].count("audit_last_line_unsound") == 1


def test_each_start_is_a_chain_linked_to_the_last_line(file: Path) -> None:
    heads = [write_once(file) for _ in range(3)]
    lines = read(file)
    assert len({line["chain"] for line in lines}) == 3
    assert [line["prev"] for line in lines if line["seq"] == 1] == ["", *heads[:2]]
    assert verified_file(file, heads=heads).is_sound


def test_file_without_lines_is_linked_to_the_head_that_is_kept_elsewhere(file: Path) -> None:
    old = file.with_name("audit.jsonl.1")
    head = write_once(old)
    write_once(file, last_head=head)
    assert read(file)[0]["prev"] == head
    assert verified_file(old, file).notes == []


def test_file_with_lines_is_linked_to_its_own_last_one(file: Path) -> None:
    head = write_once(file)
    write_once(file, last_head="0" * 64)
    assert read(file)[2]["prev"] == head


@pytest.mark.parametrize("kept", [1, 50, -1])
def test_torn_last_line_is_cut_off_and_counted(kept: int, file: Path) -> None:
    write_once(file)
    whole = file.read_bytes()
    torn = whole.splitlines(keepends=True)[1][:kept]
    file.write_bytes(whole + torn)
    write_once(file)
    assert read(file)[2]["cut_bytes"] == len(torn)
    assert verified_file(file).is_sound


def test_torn_first_line_is_cut_off_and_the_kept_head_is_linked_to(file: Path) -> None:
    file.write_bytes(b'{"seq":')
    file.chmod(0o600)
    write_once(file, last_head="a" * 64)
    assert (read(file)[0]["cut_bytes"], read(file)[0]["prev"]) == (7, "a" * 64)


def test_zeros_that_a_power_cut_left_are_cut_off(file: Path) -> None:
    write_once(file)
    with file.open("ab") as end:
        end.write(bytes(700))
    write_once(file)
    assert read(file)[2]["cut_bytes"] == 700
    assert verified_file(file).is_sound


@pytest.mark.parametrize(
    "last",
    [b"junk\n", b"\n", b"junk", b"junk" + bytes(9), b"j" * 9000, b"j" * 9000 + b"\n"],
    ids=["junk", "blank", "junk without an end", "and zeros", "long", "long with an end"],
)
def test_last_line_that_is_none_is_left_for_verify_to_find(last: bytes, file: Path, logged: list[Any]) -> None:
    write_once(file)
    with file.open("ab") as end:
        end.write(last)
    write_once(file)
    report = verified_file(file)
    assert [(one.kind, str(one.place)) for one in report.defects] == [("changed", "audit.jsonl:3")]
    assert report.lines == 5
    assert last in file.read_bytes()
    assert [entry["event"] for entry in logged] == ["audit_last_line_unsound"]


def test_last_line_that_was_changed_is_not_linked_to(file: Path) -> None:
    head = write_once(file)
    file.write_bytes(file.read_bytes().replace(b"a.example", b"b.example"))
    write_once(file, last_head=head)
    assert read(file)[2]["prev"] == head
    assert [str(one.place) for one in verified_file(file).defects] == ["audit.jsonl:2"]


def test_last_line_is_found_in_a_file_of_any_size(file: Path) -> None:
    with opened(file) as log:
        for _ in range(20):
            log.write([event(text="a" * 500) for _ in range(100)])
    head = head_of(file.read_bytes().splitlines())
    write_once(file)
    assert read(file)[2001]["prev"] == head


def test_file_is_for_its_owner_alone_whatever_the_umask(file: Path) -> None:
    before = os.umask(0)
    try:
        write_once(file)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_file_of_a_group_is_taken_as_kubernetes_makes_it(file: Path) -> None:
    file.touch()
    file.chmod(0o660)
    write_once(file)
    assert verified_file(file).is_sound


def open_to_all(file: Path) -> None:
    file.touch()
    file.chmod(0o602)


def elsewhere(file: Path) -> None:
    file.symlink_to(file.with_name("other"))


def a_pipe(file: Path) -> None:
    os.mkfifo(file, 0o600)


def held(file: Path) -> None:
    file.touch(0o600)
    descriptor = os.open(file, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    held_descriptors.append(descriptor)


held_descriptors: list[int] = []
UNUSABLE = {
    "open to every user": open_to_all,
    "is a symbolic link": elsewhere,
    "is no regular file": a_pipe,
    "Is a directory": Path.mkdir,
    "No such file or directory": lambda file: file.parent.rmdir(),
    "in use by another process": held,
}


@pytest.mark.parametrize("why", UNUSABLE)
def test_file_that_can_not_be_used_is_named_at_the_start(why: str, tmp_path: Path) -> None:
    file = tmp_path / "logs" / "audit.jsonl"
    file.parent.mkdir()
    UNUSABLE[why](file)
    try:
        with closing(make_log(file)) as log, pytest.raises(AuditFileError, match=why) as caught:
            log.open()
    finally:
        while held_descriptors:
            os.close(held_descriptors.pop())
    assert str(file) in str(caught.value)


def test_second_log_on_the_file_is_refused_until_the_first_is_closed(file: Path) -> None:
    second = make_log(file)
    with opened(file), pytest.raises(AuditFileError, match="in use"):
        second.open()
    with closing(second):
        second.open()
    assert names(file) == ["started", "started"]


def test_log_of_another_process_keeps_this_one_out(file: Path) -> None:
    text = (
        "import sys; from pathlib import Path; from tests.unit.audit.support import make_log\n"
        "log = make_log(Path(sys.argv[1])); log.open(); print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", text, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with closing(make_log(file)) as log, pytest.raises(AuditFileError, match="in use"):
            log.open()
        other.communicate()
    write_once(file)
    assert verified_file(file).is_sound


def test_partial_write_is_taken_back_and_the_events_come_once(file: Path, log: ChainedAuditLog) -> None:
    log.write([event()])
    before, again = file.read_bytes(), [event(), event()]
    with file_size_limit(len(before) + 300):  # one line and a part of the second
        refused(log, *again)
        assert file.read_bytes() == before
        refused(log, *again)
    log.write(again)
    assert [line["id"] for line in read(file)[2:]] == [one.id for one in again]
    assert verified_file(file).is_sound


def test_partial_write_that_can_not_be_taken_back_at_once_is_so_before_the_next(
    file: Path, log: ChainedAuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = file.stat().st_size
    with file_size_limit(size + 100), monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", fails(errno.EIO))
        refused(log)
        refused(log)
    assert file.stat().st_size == size + 100
    log.write([event()])
    assert len(read(file)) == 2
    assert verified_file(file).is_sound


def test_what_somebody_else_wrote_meanwhile_is_not_taken_back(
    file: Path, log: ChainedAuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    with file_size_limit(file.stat().st_size + 100), monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", fails(errno.EIO))
        refused(log)
    with file.open("ab") as end:
        end.write(b"evidence\n")
    log.write([event()])
    assert b"evidence\n" in file.read_bytes()
    assert [one.kind for one in verified_file(file).defects] == ["changed"]


def test_file_that_was_cut_while_a_write_failed_is_not_made_longer(
    file: Path, log: ChainedAuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fails(errno.EIO))
        patch.setattr(os, "ftruncate", fails(errno.EIO))
        refused(log)
    os.truncate(file, 0)
    log.write([event()])
    assert b"\0" not in file.read_bytes()
    assert [line["seq"] for line in read(file)] == [2]


def test_failed_fsync_takes_the_lines_back(file: Path, log: ChainedAuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    before, again = file.read_bytes(), event()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fails(errno.EIO))
        refused(log, again)
    assert file.read_bytes() == before
    log.write([again])
    assert [line["id"] for line in read(file)][1:] == [again.id]
    assert verified_file(file).is_sound


def test_write_has_reached_the_disk_when_it_returns(
    file: Path, log: ChainedAuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda number: (real(number), sizes.append(os.fstat(number).st_size)))
    log.write([event()])
    assert sizes == [file.stat().st_size]


def test_name_of_a_new_file_has_reached_the_disk_when_it_is_written(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda number: (real(number), synced.append(str(Path(f"/proc/self/fd/{number}").readlink())))
    )
    with opened(file) as log:
        assert synced == [str(file.parent)]
        log.write([event()])
        file.rename(file.with_name("audit.jsonl.1"))
        log.write([event()])
    assert synced == [str(file.parent)] * 2


def test_failure_is_logged_once_for_a_kind_and_its_end_too(
    log: ChainedAuditLog, logged: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (errno.ENOSPC, errno.ENOSPC, errno.EIO):
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", fails(number))
            refused(log)
    log.write([event()])
    log.write([event()])
    assert [(entry["event"], entry.get("kind")) for entry in logged] == [
        ("audit_unavailable", "ENOSPC"),
        ("audit_unavailable", "EIO"),
        ("audit_available", None),
    ]


@pytest.mark.parametrize("call", ["write", "open", "fdatasync", "pread"])
def test_disk_that_fails_at_the_start_keeps_nothing_from_starting(
    call: str, file: Path, monkeypatch: pytest.MonkeyPatch, logged: list[Any]
) -> None:
    last = write_once(file)
    with closing(make_log(file)) as log:
        with monkeypatch.context() as patch:
            patch.setattr(os, call, fails(errno.ENOSPC))
            assert log.open() == ""  # although there is a line, of an earlier process
            refused(log)
        log.write([event()])
    assert [(line["seq"], line["event"]) for line in read(file)[2:]] == [(1, "started"), (2, "before")]
    assert read(file)[2]["prev"] == last
    assert verified_file(file).is_sound
    assert [entry["event"] for entry in logged] == ["audit_unavailable", "audit_available"]


def test_torn_line_is_counted_also_if_the_first_write_fails(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_once(file)
    with file.open("ab") as end:
        end.write(b'{"seq')
    with closing(make_log(file)) as log:
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", fails(errno.ENOSPC))
            log.open()
        log.write([event()])
    assert read(file)[2]["cut_bytes"] == 5


def test_rotated_file_is_followed_by_a_new_one_in_the_same_chain(file: Path, log: ChainedAuditLog) -> None:
    log.write([event()])
    old = file.rename(file.with_name("audit.jsonl.1"))
    log.write([event()])
    assert len(read(old)) == 2
    assert [line["seq"] for line in read(file)] == [3]
    report = verified_file(old, file)
    assert report.is_sound
    assert not report.notes


def test_new_file_that_logrotate_created_is_used(file: Path, log: ChainedAuditLog) -> None:
    old = file.rename(file.with_name("audit.jsonl.1"))
    file.touch(0o600)
    log.write([event()])
    assert verified_file(old, file).is_sound
    assert len(read(file)) == 1


def test_new_file_that_can_not_be_used_stops_writes_until_it_can(
    file: Path, log: ChainedAuditLog, logged: list[Any]
) -> None:
    old = file.rename(file.with_name("audit.jsonl.1"))
    file.touch()
    file.chmod(0o666)
    refused(log)
    assert "open to every user" in logged[0]["why"]
    file.chmod(0o600)
    log.write([event()])
    assert verified_file(old, file).is_sound


def test_file_that_was_removed_begins_again_and_verify_says_where(file: Path, log: ChainedAuditLog) -> None:
    head = log.write([event()])
    file.unlink()
    log.write([event()])
    assert verified_file(file).notes[0].startswith("the log begins at audit.jsonl:1 (number 3 of chain")
    assert not verified_file(file, heads=[head]).is_sound


@pytest.mark.parametrize("kept", [0, 1, 2, 2.5])
def test_file_that_was_cut_shorter_is_said_and_shows(
    kept: float, file: Path, log: ChainedAuditLog, logged: list[Any]
) -> None:
    log.write([event(), event(), event()])
    lines = file.read_bytes().splitlines(keepends=True)
    os.truncate(file, sum(map(len, lines[: int(kept)])) + (30 if kept % 1 else 0))
    head = log.write([event()])
    assert [entry["event"] for entry in logged] == ["audit_file_cut"]
    report = verified_file(file, heads=[head])
    assert report.notes if kept == 0 else report.defects
    assert file.read_bytes().endswith(b"\n")
    assert read_last(file)["hash"] == head


def read_last(file: Path) -> dict[str, Any]:
    return read_lines(file)[-1]


def read_lines(file: Path) -> list[dict[str, Any]]:
    whole = file.with_name("whole")
    whole.write_bytes(b"".join(line for line in file.read_bytes().splitlines(keepends=True) if line[-2:] == b"}\n"))
    return read(whole)


def test_lines_that_somebody_appended_are_said_and_show(file: Path, log: ChainedAuditLog, logged: list[Any]) -> None:
    with file.open("ab") as end:
        end.write(b"half a line")
    log.write([event()])
    assert [entry["event"] for entry in logged] == ["audit_file_grew"]
    assert [(one.kind, str(one.place)) for one in verified_file(file).defects] == [("changed", "audit.jsonl:2")]
    assert read_last(file)["seq"] == 2


def test_events_of_many_threads_are_one_chain(file: Path, log: ChainedAuditLog) -> None:
    def work() -> None:
        for _ in range(20):
            log.write([event()])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [line["seq"] for line in read(file)] == list(range(1, 162))
    assert verified_file(file).is_sound


def test_event_that_can_not_be_a_line_is_a_mistake_and_leaves_nothing(file: Path, log: ChainedAuditLog) -> None:
    before = file.read_bytes()
    with pytest.raises(ValueError, match="seq"):
        log.write([event(), event(seq=3)])
    assert file.read_bytes() == before
    log.write([event()])
    assert verified_file(file).is_sound

import errno
import io
import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
import structlog

from keybroker.telemetry.logs import configure_logs, exception_chain

CANARY = "canary-6c19e8"
LEVELS = ["DEBUG", "INFO", "WARNING", "ERROR"]


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    before, level = structlog.get_config(), logging.getLogger("urllib3").level
    yield
    structlog.configure(**before)
    logging.getLogger("urllib3").setLevel(level)


def test_line_is_one_json_object_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("INFO")
    structlog.get_logger().info("call", method="/a/b", text="two\nlines \u00e9 \u2028")
    printed = capsys.readouterr()
    assert printed.out == ""
    [line] = printed.err.splitlines()
    entry = json.loads(line)
    assert datetime.now(UTC) - datetime.fromisoformat(entry.pop("time")) < timedelta(minutes=1)
    assert entry == {"event": "call", "level": "info", "method": "/a/b", "text": "two\nlines \u00e9 \u2028"}


@pytest.mark.parametrize("level", LEVELS)
def test_level_is_the_least_that_is_printed(level: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(level)
    logger = structlog.get_logger()
    for each in LEVELS:
        getattr(logger, each.lower())(each)
    printed = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert printed == LEVELS[LEVELS.index(level) :]


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "full"), BrokenPipeError(), ValueError("closed file")])
def test_line_that_standard_error_does_not_take_is_lost_and_fails_nobody(
    failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(io.StringIO):
        def flush(self) -> None:
            raise failure

    monkeypatch.setattr("sys.stderr", Failing())
    configure_logs("INFO")
    for level in LEVELS:
        getattr(structlog.get_logger(), level.lower())("a call")


def test_level_that_does_not_exist_is_refused() -> None:
    with pytest.raises(KeyError):
        configure_logs("LOUD")


@pytest.mark.parametrize("name", ["urllib3", "urllib3.connectionpool", "urllib3.util.retry"])
@pytest.mark.parametrize("level", ["DEBUG", "INFO"])
def test_http_client_is_silent_whatever_the_level(
    name: str, level: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    configure_logs(level)
    caplog.set_level(logging.DEBUG)  # of the root: what a library or an operator may switch on
    for number in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        logging.getLogger(name).log(number, 'http://127.0.0.1:8088 "POST /?ImportToken=%s HTTP/1.1" 200', CANARY)
    printed = capfd.readouterr()
    assert CANARY not in f"{caplog.text}{printed.out}{printed.err}"


# exception_chain


def caught(work: Callable[[], object]) -> BaseException:
    try:
        work()
    except BaseException as error:  # noqa: BLE001  # any is looked at
        return error
    raise AssertionError("nothing was raised")


def fails() -> None:
    raise ValueError(CANARY)


def fails_from() -> None:
    try:
        fails()
    except ValueError as error:
        raise OSError(5, CANARY, CANARY) from error


def fails_while_failing() -> None:
    try:
        fails_from()
    finally:
        raise KeyError(CANARY)


def fails_in_a_ring() -> None:
    first, second = ValueError(CANARY), KeyError(CANARY)
    first.__cause__, second.__cause__ = second, first
    raise first


@pytest.mark.parametrize(
    ("work", "names"),
    [
        (fails, ["builtins.ValueError at fails"]),
        (fails_from, ["builtins.OSError at fails_from", "builtins.ValueError at fails"]),
        (
            fails_while_failing,
            [
                "builtins.KeyError at fails_while_failing",
                "builtins.OSError at fails_from",
                "builtins.ValueError at fails",
            ],
        ),
        (fails_in_a_ring, ["builtins.ValueError at fails_in_a_ring", "builtins.KeyError"]),
    ],
)
def test_chain_has_types_and_places_outermost_first_and_no_texts(work: Callable[[], object], names: list[str]) -> None:
    error = caught(work)
    error.add_note(CANARY)
    chain = exception_chain(error)
    assert [place.rpartition(":")[0] or place for place in chain] == names
    assert CANARY not in str(chain)


def test_chain_of_an_error_that_was_never_raised_has_no_place() -> None:
    assert exception_chain(ValueError(CANARY)) == ["builtins.ValueError"]


def test_chain_names_a_type_by_its_module() -> None:
    assert exception_chain(json.JSONDecodeError(CANARY, CANARY, 0)) == ["json.decoder.JSONDecodeError"]

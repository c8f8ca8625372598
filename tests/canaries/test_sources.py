"""Nothing in the broker's code prints exceptions with their texts, or objects with all their fields."""

import ast
import io
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import structlog

import keybroker
from keybroker.telemetry.logs import configure_logs

ROOT = Path(keybroker.__file__).parent
PRINTING = {
    "asdict",
    "astuple",
    "breakpoint",
    "exc_info",
    "exception",
    "format_exc",
    "format_exception",
    "model_dump",
    "model_dump_json",
    "pformat",
    "pprint",
    "print_exc",
    "print_exception",
    "print_stack",
    "stack_info",
    "TracebackException",
    "vars",
}
"""Names that print an exception's text or a whole object, or make what prints it."""

ALLOWED: Mapping[str, set[str]] = {
    "audit_command.py": {"asdict"},  # of a report about an audit log
    "rpc/call.py": {"asdict"},  # of Noted, whose fields are the allow-list of the log
    "telemetry/http.py": {"exception"},  # sys.exception(), for exception_chain
    "rpc/servicer.py": {"exception"},
    "rpc/workers.py": {"exception"},  # of a future: handed on
    "telemetry/logs.py": {"exc_info", "exception"},  # of a library's record, for exception_chain; a level of a logger
}


def names_in(source: str) -> Iterator[str]:
    """What is called, and the arguments' names."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(attr=name) | ast.Name(id=name) | ast.keyword(arg=str(name)):
                yield name


def test_code_that_prints_exceptions_or_whole_objects_is_listed() -> None:
    found = {
        str(path.relative_to(ROOT)): names
        for path in ROOT.rglob("*.py")
        if (names := PRINTING & set(names_in(path.read_text())))
    }
    assert found == {path: names for path, names in ALLOWED.items() if path in found}


def test_each_way_to_print_is_recognised() -> None:
    source = "log.error('x', exc_info=True); log.exception('x'); print(asdict(a), traceback.format_exc())"
    assert set(names_in(source)) >= {"exc_info", "exception", "asdict", "format_exc"}


def test_text_of_a_library_is_not_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """grpc and asyncio log exceptions that nobody has caught, with their texts."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(logging, "lastResort", logging.lastResort)
    configure_logs("INFO")
    error = ValueError("a-secret-text")
    error.__cause__ = KeyError("a-secret-text")
    logging.getLogger("asyncio").warning("Task failed: %r", error, exc_info=error)
    structlog.reset_defaults()
    entry = json.loads(stream.getvalue())
    assert (entry["event"], entry["library"], entry["level"]) == ("library", "asyncio", "warning")
    assert entry["exceptions"] == ["builtins.ValueError", "builtins.KeyError"]
    assert "a-secret-text" not in stream.getvalue()

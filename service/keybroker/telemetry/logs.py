"""Structured logs: one JSON object a line, on standard error.

What may be logged is decided where it is logged (rpc/call.py lists the fields). Exceptions are logged by their types
and places, never by their texts: a text may quote what it failed on. What libraries warn of is logged in the same way.
The HTTP client's own logger is silenced: it prints URLs, and the KMS's URLs carry tokens and wrapped material.
"""

import logging
import sys
import traceback
from contextlib import suppress

import structlog


def configure_logs(level: str) -> None:
    """Sends this process's logs to standard error from `level` (DEBUG, INFO, WARNING, ERROR) on."""
    number = logging.getLevelNamesMapping()[level]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=_LossyLogger,
    )
    logging.getLogger("urllib3").setLevel(logging.CRITICAL + 1)
    logging.lastResort = _OfLibraries(logging.WARNING)  # what nobody handles; the usual one prints texts


class _OfLibraries(logging.Handler):
    """Says which library had something to say, where, and by which exceptions."""

    def emit(self, record: logging.LogRecord) -> None:
        """As logging.Handler."""
        error = record.exc_info[1] if record.exc_info else None
        structlog.get_logger().warning(
            "library",
            library=record.name,
            place=f"{record.funcName}:{record.lineno}",
            exceptions=exception_chain(error) if error else [],
        )


class _LossyLogger(structlog.WriteLogger):
    """A line that standard error does not take (a full disk, a reader that has gone) is lost, and the call goes on."""

    def __init__(self, *_: object) -> None:
        super().__init__(sys.stderr)

    def msg(self, message: str) -> None:
        """Writes the line, if that is possible."""
        with suppress(OSError, ValueError):  # ValueError: closed
            super().msg(message)

    log = debug = info = warn = warning = error = critical = exception = msg


def exception_chain(error: BaseException) -> list[str]:
    """An exception and its causes, outermost first, each as its type and where it was raised; no texts."""
    chain: list[str] = []
    current: BaseException | None = error
    seen: set[int] = set()
    while current is not None and id(current) not in seen:  # `raise … from` can close a ring
        seen.add(id(current))
        frames = traceback.extract_tb(current.__traceback__)
        place = f" at {frames[-1].name}:{frames[-1].lineno}" if frames else ""
        chain.append(f"{type(current).__module__}.{type(current).__qualname__}{place}")
        current = current.__cause__ or current.__context__
    return chain

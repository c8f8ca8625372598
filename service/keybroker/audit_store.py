"""Makes the audit log that the settings ask for. Part of the composition root."""

import sys

import structlog

from keybroker import __version__
from keybroker.adapters.audit.log import AuditFileError, ChainedAuditLog
from keybroker.ports import Clock
from keybroker.settings import AuditSettings, ConfigurationError

_STDOUT = 1


def make_audit_log(settings: AuditSettings, *, clock: Clock) -> ChainedAuditLog | None:
    """The log, to be opened by open_audit_log(); None where nothing is to be audited. Raises ConfigurationError."""
    if not settings.is_on:
        return None
    if settings.stdout and sys.__stdout__ is None:  # its descriptor may be another file's
        raise ConfigurationError("audit.stdout: this process was started without standard output")
    return ChainedAuditLog(
        file=settings.file, stdout=_STDOUT if settings.stdout else None, clock=clock, version=__version__
    )


def open_audit_log(log: ChainedAuditLog, *, last_head: str) -> str:
    """Opens it; `last_head` is what a chain on standard output alone is linked to. Returns the hash of its last line.

    Raises ConfigurationError. A log that can't be written now, as on a full disk, is no error: "" is returned, and
    changes wait until it can.
    """
    try:
        head = log.open(last_head)
    except AuditFileError as error:
        raise ConfigurationError(f"audit.file: {error}") from None
    structlog.get_logger().info("audit_head", head=log.head)
    return head


def close_audit_log(log: ChainedAuditLog) -> None:
    """Closes it, and tells the ordinary log its head: a place elsewhere to verify it against."""
    structlog.get_logger().info("audit_head", head=log.head)
    log.close()

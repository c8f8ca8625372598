"""What kbctl says when something fails, and its exit codes.

An error is one line on stderr (what happened, what to do, reason), or with --output json one object.
"""

from __future__ import annotations

import json
import sys
from enum import IntEnum
from typing import Any

import keybroker_client as kc
from kbctl.output import printable


class UsageError(Exception):
    """An argument or a local file is wrong; nothing was sent."""


class Exit(IntEnum):
    """How kbctl ended, for scripts."""

    OK = 0
    FAILED = 1
    USAGE = 2
    INVALID_ARGUMENT = 3
    NOT_FOUND = 4
    PRECONDITION_FAILED = 5
    UNRESOLVED = 6
    TRY_LATER = 7
    NOT_SERVING = 8
    NOT_ALLOWED = 9
    NOT_IMPORTED = 10
    NOT_VERIFIED = 11
    NOT_SAVED = 12
    INTERRUPTED = 130


MEANINGS = {
    Exit.OK: "done",
    Exit.FAILED: "another error, or a refusal by something in front of the broker",
    Exit.USAGE: "wrong arguments or local files; nothing was changed",
    Exit.INVALID_ARGUMENT: "the broker or the KMS refused an argument",
    Exit.NOT_FOUND: "no such CMK, or no such request of this caller",
    Exit.PRECONDITION_FAILED: "the CMK, the account or the operator's settings do not allow it",
    Exit.UNRESOLVED: "the change may have happened: do as the error says before anything else",
    Exit.TRY_LATER: "unavailable, throttled, overloaded, or another import is under way: repeat later",
    Exit.NOT_SERVING: "the broker answers that it is not serving (health)",
    Exit.NOT_ALLOWED: "the broker does not know the caller, or its policy does not allow it",
    Exit.NOT_IMPORTED: "nothing was imported, and that is final: ask anew with a new request id",
    Exit.NOT_VERIFIED: "the receipt is not good: changed, signed with another key, or no receipt (receipt verify)",
    Exit.NOT_SAVED: "the answer is good, an import done; its receipt was not saved: see 'kbctl import-status'",
    Exit.INTERRUPTED: "interrupted; the outcome of a change is unknown",
}

# By class, the first that fits: exit code, and what to do if the broker does not say. Its own messages do.
BY_CLASS: tuple[tuple[type[kc.KeyBrokerError], Exit, str], ...] = (
    (kc.InvalidArgumentError, Exit.INVALID_ARGUMENT, "Correct the argument."),
    (kc.NotFoundError, Exit.NOT_FOUND, "Check the name, and --instance."),
    (kc.ImportInProgressError, Exit.TRY_LATER, "Try again later."),
    (kc.PreconditionFailedError, Exit.PRECONDITION_FAILED, "Look at the CMK with 'kbctl describe'."),
    (kc.NotAllowedError, Exit.NOT_ALLOWED, "Ask the broker's operator."),
    (kc.UnresolvedError, Exit.UNRESOLVED, "Don't repeat the command: look with 'kbctl describe' first."),
    (kc.NotImportedError, Exit.NOT_IMPORTED, "Ask anew with a new request id."),
    (kc.ThrottledError, Exit.TRY_LATER, "Try again later."),
    (kc.UnavailableError, Exit.TRY_LATER, "Try again later."),
    (kc.KeyBrokerError, Exit.FAILED, "Have the broker's operator look at it."),
)


REPEATABLE = (kc.UnresolvedError, kc.ThrottledError, kc.UnavailableError, kc.ImportInProgressError)


def report(error: kc.KeyBrokerError, output: str, *, once: bool) -> Exit:
    """Prints the error of a call to stderr. once: a repeat with the same request id does nothing twice."""
    exit_code, advice = next((code, advice) for cls, code, advice in BY_CLASS if isinstance(error, cls))
    repeatable = once and bool(error.request_id) and isinstance(error, REPEATABLE)
    if repeatable:
        advice = _how_to_repeat(error)
    if output == "json":
        told = f"{error.advice} {advice}".strip() if repeatable else error.advice or advice
        _print_json(_as_json(error, told, exit_code) | {"repeatable": repeatable})
    else:
        _print_line(_as_line(error, error.advice if error.reason and not repeatable else advice))
    return exit_code


def _how_to_repeat(error: kc.KeyBrokerError) -> str:
    repeat = f"Repeat the command with --request-id {error.request_id}"
    if error.reason == "CREATE_OUTCOME_UNKNOWN":
        repeat += "; --allow-second-key too makes another CMK if the first is not found"
    elif error.outcome_unknown:
        repeat += ", or look with 'kbctl import-status'"
    return f"{repeat}."


def report_local(message: str, output: str, exit_code: Exit) -> Exit:
    """Prints an error that is not the broker's to stderr."""
    if output == "json":
        _print_json({"reason": exit_code.name, "message": message, "exit_code": int(exit_code)})
    else:
        _print_line(message)
    return exit_code


def _as_line(error: kc.KeyBrokerError, advice: str) -> str:
    """MESSAGE ADVICE [REASON] (what else to know)."""
    message = error.message if error.message.endswith(".") else f"{error.message}."
    told = message if advice in message else f"{message} {advice}"  # an empty advice is in every message
    facts = {
        "created CMK": error.created_key_id,
        "field": error.field,
        "retry after seconds": error.retry_after_seconds and f"{error.retry_after_seconds:g}",
        "request id": error.request_id,
        "KMS request id": error.metadata.get("kms_request_id"),
        "correlation id": error.metadata.get("correlation_id"),
    }
    known = "; ".join(f"{name} {value}" for name, value in facts.items() if value)
    return f"{told} [{error.reason or error.code.name}]" + (f" ({known})" if known else "")


def _as_json(error: kc.KeyBrokerError, advice: str, exit_code: Exit) -> dict[str, Any]:
    return {
        "reason": error.reason,
        "code": error.code.name,
        "message": error.message,
        "advice": advice,
        "field": error.field,
        "metadata": error.metadata,
        "created_key_id": error.created_key_id,
        "retry_after_seconds": error.retry_after_seconds,
        "request_id": error.request_id,
        "outcome_unknown": error.outcome_unknown,
        "exit_code": int(exit_code),
    }


def _print_line(text: str) -> None:
    print(f"kbctl: {printable(text)}", file=sys.stderr)


def _print_json(error: dict[str, Any]) -> None:
    print(json.dumps({"error": error}, indent=2), file=sys.stderr)

"""`keybroker audit verify`: whether an audit log is as it was written, and up to where that is certain."""

import argparse
import errno
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from keybroker.adapters.audit.lines import HASH
from keybroker.adapters.audit.reading import Report, verify

EXIT_SOUND = 0
EXIT_DEFECTS = 1
EXIT_NOT_TOLD = 2  # as for a bad argument: a file can't be read, or the report not be written


def add_audit_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `audit verify` to the command line."""
    audit = commands.add_parser("audit", help="verify an audit log").add_subparsers(required=True, metavar="COMMAND")
    parser = audit.add_parser(
        "verify",
        help="find what was changed, removed, added or moved",
        description="Ends in 0 if the log is sound, in 1 if it has defects, in 2 if that can't be told.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="the log's files, oldest first; - is standard input")
    parser.add_argument(
        "--expect-head",
        action="append",
        default=[],
        type=_hash,
        metavar="HASH",
        help="hash of a line, kept elsewhere, that the log must have; can be given again",
    )
    parser.add_argument("--output", choices=("text", "json"), default="text", help="form of the report")
    parser.set_defaults(run=audit_verify)


def audit_verify(options: argparse.Namespace) -> int:
    """Verifies, and prints the report."""
    try:
        report = verify(_opened(options.files), heads=options.expect_head)
    except OSError as error:
        print(f"keybroker: {error.filename or 'a file'} can't be read: {error.strerror}", file=sys.stderr)
        return EXIT_NOT_TOLD
    if not _shown(_as_json(report) if options.output == "json" else _as_text(report)):
        return EXIT_NOT_TOLD
    return EXIT_SOUND if report.is_sound else EXIT_DEFECTS


def _shown(text: str) -> bool:
    """Whether all of it was written: a full disk, or a reader that has gone, is no defect of the log."""
    if sys.stdout is None:
        print("keybroker: the report can't be written: standard output is closed", file=sys.stderr)
        return False
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        print(f"keybroker: the report can't be written: {error.strerror}", file=sys.stderr)
        sys.stdout = None  # Python would flush it once more at the end, and end otherwise
        return False
    return True


def _opened(names: Sequence[str]) -> Iterator[tuple[str, BinaryIO]]:
    for name in names:
        if name == "-":
            if sys.stdin is None:
                raise OSError(errno.EBADF, "it is closed", "standard input")
            yield "standard input", sys.stdin.buffer
            continue
        with Path(name).open("rb") as file:
            yield name, file


def _hash(text: str) -> str:
    if not HASH.fullmatch(text):
        raise argparse.ArgumentTypeError("must be the hash of a line: 64 digits, 0-9 and a-f")
    return text


def _as_text(report: Report) -> str:
    parts = [f"{report.lines} lines, {len(report.chains)} chains"]
    for chain in report.chains:
        version = f", keybroker {chain.version}" if chain.version else ""
        parts += [
            f"chain {chain.id}: {chain.first_seq} to {chain.last_seq}{version}",
            f"  from {chain.first_place}, {chain.first_time}, to {chain.last_place}, {chain.last_time}",
        ]
    parts += [f"note: {note}" for note in report.notes]
    parts += [f"DEFECT {defect.kind}: {defect}" for defect in report.defects]
    if report.defect_count > len(report.defects):
        parts.append(f"and {report.defect_count - len(report.defects)} more")
    result = "sound" if report.is_sound else f"NOT SOUND, defects: {report.defect_count}"
    return "\n".join([*parts, report.anchor, result, ""])


def _as_json(report: Report) -> str:
    return json.dumps({"sound": report.is_sound, **asdict(report)}, indent=2) + "\n"

"""The command kbctl: reads the command line, runs one command, reports errors."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from kbctl import health, importing, keys, orphans, receipt, status, wrapping
from kbctl.arguments import Commands, Effect
from kbctl.connection import connect, require_broker
from kbctl.failures import Exit, UsageError, report, report_local
from keybroker_client import KeyBrokerError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

GROUPS = (importing, status, keys, orphans, wrapping, receipt, health)


def build_parser() -> argparse.ArgumentParser:
    """The parser with every command."""
    commands = Commands()
    for group in GROUPS:
        group.add_commands(commands)
    return commands.parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code. Wrong options end in SystemExit(2), as argparse does it."""
    args = build_parser().parse_args(argv)
    try:
        return _run(args)
    except UsageError as error:
        return report_local(str(error), args.output, Exit.USAGE)
    except UnicodeError:
        return report_local("an argument is not UTF-8 text", args.output, Exit.USAGE)
    except KeyBrokerError as error:
        return report(error, args.output, once=args.effect is Effect.CHANGES_ONCE)
    except KeyboardInterrupt:
        return report_local(_what_an_interrupt_leaves(args), args.output, Exit.INTERRUPTED)


def _what_an_interrupt_leaves(args: argparse.Namespace) -> str:
    if args.effect in {Effect.NONE, Effect.READS}:
        return "interrupted"
    if args.effect is Effect.CHANGES_ONCE and args.request_id:
        return f"interrupted: the change may have happened, repeat the command with --request-id {args.request_id}"
    return "interrupted: the change may have happened, look with 'kbctl describe'"


def _run(args: argparse.Namespace) -> int:
    if args.effect is Effect.NONE:
        return int(args.run(args))
    with connect(args) as client:
        if args.effect is not Effect.READS:
            require_broker(client)
        exit_code: int = args.run(client, args)
        return exit_code


if __name__ == "__main__":
    sys.exit(main())

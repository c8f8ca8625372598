"""kbctl create, describe, schedule-deletion, cancel-deletion: the life of a CMK around an import."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from kbctl.arguments import add_new_key_options, new_key
from kbctl.failures import Exit
from kbctl.output import as_json, key_rows, show

if TYPE_CHECKING:
    from kbctl.arguments import Commands
    from keybroker_client import KeyBrokerClient

MIN_DAYS, MAX_DAYS = 7, 30


def add_commands(commands: Commands) -> None:
    """Adds create, describe, schedule-deletion and cancel-deletion."""
    parser = commands.add("create", create, about="Create a CMK without key material", changes=True)
    add_new_key_options(parser, spec_required=True)

    parser = commands.add("describe", describe, about="Show a CMK", changes=False)
    parser.add_argument("--key-id", required=True, metavar="ID", help="key id, ARN or alias")

    parser = commands.add(
        "schedule-deletion",
        schedule_deletion,
        about="Schedule the deletion of a CMK and its key material",
        changes=True,
    )
    parser.add_argument("--key-id", required=True, metavar="ID", help="key id or ARN")
    parser.add_argument("--days", required=True, type=_days, metavar="N", help="days until then, 7 to 30")

    parser = commands.add("cancel-deletion", cancel_deletion, about="Cancel a scheduled deletion", changes=True)
    parser.add_argument("--key-id", required=True, metavar="ID", help="key id or ARN")


def create(client: KeyBrokerClient, args: argparse.Namespace) -> int:
    """Creates a CMK."""
    answer = client.create_external_key(new_key=new_key(args), instance=args.instance, request_id=args.request_id)
    return _show_change(args, answer)


def describe(client: KeyBrokerClient, args: argparse.Namespace) -> int:
    """Shows a CMK."""
    answer = client.describe_key(key_id=args.key_id, instance=args.instance)
    show(args, key_rows(answer.key), as_json(answer))
    return Exit.OK


def schedule_deletion(client: KeyBrokerClient, args: argparse.Namespace) -> int:
    """Schedules a deletion, and shows when."""
    answer = client.schedule_key_deletion(
        key_id=args.key_id, pending_window_days=args.days, instance=args.instance, request_id=args.request_id
    )
    return _show_change(args, answer)


def cancel_deletion(client: KeyBrokerClient, args: argparse.Namespace) -> int:
    """Cancels a deletion, and shows the state that the CMK is left in."""
    answer = client.cancel_key_deletion(key_id=args.key_id, instance=args.instance, request_id=args.request_id)
    return _show_change(args, answer)


def _show_change(args: argparse.Namespace, answer: Any) -> int:  # noqa: ANN401 - three messages with the same fields
    show(args, [*key_rows(answer.key), ("KMS request id", answer.kms_request_id)], as_json(answer))
    return Exit.OK


def _days(text: str) -> int:
    if not (text.isdecimal() and MIN_DAYS <= int(text) <= MAX_DAYS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days from {MIN_DAYS} to {MAX_DAYS}")
    return int(text)

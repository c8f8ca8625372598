"""kbctl create, describe, schedule-deletion, cancel-deletion: the life of a CMK around an import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kbctl.arguments import Effect, add_consent_option, add_new_key_options, deletion_days, new_key
from kbctl.failures import Exit
from kbctl.output import as_json, key_rows, show
from kbctl.status import name_request

if TYPE_CHECKING:
    import argparse

    from kbctl.arguments import Commands
    from keybroker_client import KeyBrokerClient


def add_commands(commands: Commands) -> None:
    """Adds create, describe, schedule-deletion and cancel-deletion."""
    parser = commands.add("create", create, about="Create a CMK without key material", effect=Effect.CHANGES_ONCE)
    add_new_key_options(parser, spec_required=True)
    add_consent_option(parser)

    parser = commands.add("describe", describe, about="Show a CMK", effect=Effect.READS)
    parser.add_argument("--key-id", required=True, metavar="ID", help="key id, ARN or alias")

    parser = commands.add(
        "schedule-deletion",
        schedule_deletion,
        about="Schedule the deletion of a CMK and its key material",
        effect=Effect.CHANGES,
    )
    parser.add_argument("--key-id", required=True, metavar="ID", help="key id or ARN")
    parser.add_argument("--days", required=True, type=deletion_days, metavar="N", help="days until then, 7 to 30")

    parser = commands.add(
        "cancel-deletion", cancel_deletion, about="Cancel a scheduled deletion", effect=Effect.CHANGES
    )
    parser.add_argument("--key-id", required=True, metavar="ID", help="key id or ARN")


def create(client: KeyBrokerClient, args: argparse.Namespace) -> int:
    """Creates a CMK."""
    answer = client.create_external_key(
        new_key=new_key(args),
        allow_second_key=args.allow_second_key,
        instance=args.instance,
        request_id=name_request(args),
    )
    return show_change(args, answer, result="created (repeated answer)" if answer.replayed else "")


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
    return show_change(args, answer)


def cancel_deletion(client: KeyBrokerClient, args: argparse.Namespace) -> int:
    """Cancels a deletion, and shows the state that the CMK is left in."""
    answer = client.cancel_key_deletion(key_id=args.key_id, instance=args.instance, request_id=args.request_id)
    return show_change(args, answer)


def show_change(
    args: argparse.Namespace,
    answer: Any,  # noqa: ANN401 - four messages with the same fields
    *,
    result: str = "",
) -> int:
    """Shows the CMK after a change."""
    rows = [("result", result), *key_rows(answer.key), ("KMS request id", answer.kms_request_id)]
    show(args, rows, as_json(answer))
    return Exit.OK

"""kbctl orphans: CMKs that the broker created and that nobody imported into, and their deletion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keybroker_client as kc
from kbctl.arguments import Effect, deletion_days
from kbctl.failures import Exit
from kbctl.keys import show_change
from kbctl.output import as_json, label, show_table
from keymaterial.v1.key_broker_service_pb2 import ListOrphanedKeysResponse

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from google.protobuf.duration_pb2 import Duration

    from kbctl.arguments import Commands
    from keymaterial.v1.key_broker_service_pb2 import OrphanedKey

HEADER = ("key id", "age", "state", "deletable", "request state", "request id", "caller")
UNITS = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))


def add_commands(commands: Commands) -> None:
    """Adds orphans, and list and delete under it."""
    about = "List CMKs that were created and never imported into"
    parser = commands.add("orphans", list_orphans, about=about, effect=Effect.READS)
    _, parser = commands.add_under(
        parser,
        {
            "list": (list_orphans, Effect.READS, about),
            "delete": (delete_orphan, Effect.CHANGES, "Schedule the deletion of such a CMK"),
        },
    )
    parser.add_argument("key_id", metavar="KEY_ID", help="key id or ARN")
    parser.add_argument("--days", required=True, type=deletion_days, metavar="N", help="days until then, 7 to 30")


def list_orphans(client: kc.KeyBrokerClient, args: argparse.Namespace) -> int:
    """Lists them, all pages."""
    keys = list(_all_pages(client, args.instance))
    lines = [_line(orphan) for orphan in keys]
    show_table(args, HEADER, lines, as_json(ListOrphanedKeysResponse(keys=keys)))
    return Exit.OK


def delete_orphan(client: kc.KeyBrokerClient, args: argparse.Namespace) -> int:
    """Schedules a deletion, and shows when."""
    answer = client.delete_orphaned_key(
        key_id=args.key_id, pending_window_days=args.days, instance=args.instance, request_id=args.request_id
    )
    return show_change(args, answer)


def _all_pages(client: kc.KeyBrokerClient, instance: str) -> Iterator[OrphanedKey]:
    page = client.list_orphaned_keys(instance=instance)
    yield from page.keys
    while page.next_page_token:
        page = client.list_orphaned_keys(instance=instance, page_token=page.next_page_token)
        yield from page.keys


def _line(orphan: OrphanedKey) -> tuple[str, ...]:
    return (
        orphan.key.key_id,
        age_text(orphan.age),
        label(kc.KeyState, orphan.key.state),
        "yes" if orphan.deletable else "no",
        label(kc.RequestState, orphan.state) if orphan.state else "",
        orphan.request_id,
        orphan.caller,
    )


def age_text(age: Duration) -> str:
    """A duration in its two largest units: "3d 4h"."""
    left, parts = age.seconds, []
    for unit, seconds in UNITS:
        if left >= seconds:
            parts.append(f"{left // seconds}{unit}")
            left %= seconds
    return " ".join(parts[:2]) or "0s"

"""kbctl health: whether the broker serves (grpc.health.v1). Says nothing about the KMS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbctl.arguments import Effect
from kbctl.failures import Exit
from kbctl.output import show

if TYPE_CHECKING:
    import argparse

    from kbctl.arguments import Commands
    from keybroker_client import KeyBrokerClient


def add_commands(commands: Commands) -> None:
    """Adds health."""
    parser = commands.add("health", health, about="Ask whether the broker serves", effect=Effect.READS, instance=False)
    parser.add_argument("--service", default="", metavar="NAME", help="a gRPC service (default: the whole broker)")


def health(client: KeyBrokerClient, args: argparse.Namespace) -> int:
    """Shows the status; exits with 8 for every other than SERVING."""
    status = client.check_health(args.service)
    show(args, [("status", status), ("service", args.service)], {"status": status, "service": args.service})
    return Exit.OK if status == "SERVING" else Exit.NOT_SERVING

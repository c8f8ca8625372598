"""The parts of the command line that several commands share: common options, specs, algorithms, tags."""

from __future__ import annotations

import argparse
import os
from enum import Enum, auto
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import keybroker_client as kc
from kbctl.failures import MEANINGS, UsageError
from keybroker_client.retries import DEFAULT_RETRIES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Run = Callable[[kc.KeyBrokerClient, argparse.Namespace], int]
    LocalRun = Callable[[argparse.Namespace], int]

DEFAULT_ADDRESS = "127.0.0.1:50051"
MIN_DAYS, MAX_DAYS = 7, 30
SPECS: Mapping[str, kc.KeySpec] = {
    "aes-128": kc.KeySpec.KEY_SPEC_AES_128,
    "aes-192": kc.KeySpec.KEY_SPEC_AES_192,
    "aes-256": kc.KeySpec.KEY_SPEC_AES_256,
}
ALGORITHMS: Mapping[str, kc.WrappingAlgorithm] = {
    "oaep-sha256": kc.WrappingAlgorithm.WRAPPING_ALGORITHM_RSAES_OAEP_SHA_256,
    "pkcs1-v1.5": kc.WrappingAlgorithm.WRAPPING_ALGORITHM_RSAES_PKCS1_V1_5,
}
# What else people call them: short, as the KMS does, as the .proto does.
ALGORITHM_ALIASES = {
    "oaep": "oaep-sha256",
    "rsaes_oaep_sha_256": "oaep-sha256",
    "wrapping_algorithm_rsaes_oaep_sha_256": "oaep-sha256",
    "pkcs1": "pkcs1-v1.5",
    "rsaes_pkcs1_v1_5": "pkcs1-v1.5",
    "wrapping_algorithm_rsaes_pkcs1_v1_5": "pkcs1-v1.5",
}


class Effect(Enum):
    """What a command does to the KMS, and what becomes of it when it is repeated."""

    NONE = auto()  # needs no broker
    READS = auto()
    CHANGES = auto()
    CHANGES_ONCE = auto()  # the broker knows a repeat by its request id


class Commands:
    """The parser of kbctl, to which each command group adds its commands."""

    def __init__(self) -> None:
        exits = "\n".join(f"  {code:>3}  {meaning}" for code, meaning in MEANINGS.items())
        self.parser = argparse.ArgumentParser(
            prog="kbctl",
            description="Imports external key material into Dedicated KMS through a keybroker.",
            epilog=f"exit codes:\n{exits}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.parser.add_argument("--version", action="version", version=f"kbctl {version('keybroker')}")
        _add_common_options(self.parser, defaults=True)
        self.parser.set_defaults(instance="", request_id="")
        self._commands = self.parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(self, name: str, run: Run, *, about: str, effect: Effect, instance: bool = True) -> argparse.ArgumentParser:
        """Adds a command. One that changes state takes --request-id; one about a CMK takes --instance."""
        return _add_command(self._commands, name, run, about=about, effect=effect, instance=instance)

    def add_local(self, group: str, about_group: str, name: str, run: LocalRun, about: str) -> argparse.ArgumentParser:
        """Adds a command under a group, which needs no broker and so no connection."""
        above = self._commands.add_parser(group, help=about_group, description=f"{about_group}.", allow_abbrev=False)
        below = above.add_subparsers(metavar="COMMAND", required=True)
        parser = below.add_parser(name, help=about, description=f"{about}.", allow_abbrev=False)
        parser.set_defaults(run=run, effect=Effect.NONE)
        _add_output_option(parser, argparse.SUPPRESS)
        return parser

    def add_under(
        self, parser: argparse.ArgumentParser, commands: Mapping[str, tuple[Run, Effect, str]]
    ) -> list[argparse.ArgumentParser]:
        """Adds commands under another one, which itself does what its own `run` says."""
        below = parser.add_subparsers(metavar="COMMAND", required=False)
        return [
            _add_command(below, name, run, about=about, effect=effect, instance=True)
            for name, (run, effect, about) in commands.items()
        ]


def add_new_key_options(parser: argparse.ArgumentParser, *, spec_required: bool) -> None:
    """Adds the options that describe a CMK to create."""
    parser.add_argument("--spec", choices=SPECS, required=spec_required, help="type and size of the new CMK")
    parser.add_argument("--alias", metavar="ALIAS", help='alias of the new CMK, "alias/..."')
    parser.add_argument("--description", metavar="TEXT", help="free text, no secrets")
    parser.add_argument("--tag", action="append", type=_tag, default=[], metavar="KEY=VALUE", help="tag; repeatable")


def new_key(args: argparse.Namespace) -> kc.NewKey:
    """The CMK to create that the options describe."""
    tags = dict(args.tag)
    if len(tags) < len(args.tag):
        raise UsageError("--tag: the same key is given twice")
    return kc.NewKey(key_spec=SPECS[args.spec], alias=args.alias, description=args.description, tags=tags)


def add_consent_option(parser: argparse.ArgumentParser) -> None:
    """Adds --allow-second-key."""
    parser.add_argument(
        "--allow-second-key",
        action="store_true",
        help="after CREATE_OUTCOME_UNKNOWN: create another CMK if the first is not found",
    )


def add_algorithm_option(parser: argparse.ArgumentParser) -> None:
    """Adds --algorithm."""
    known = " or ".join(ALGORITHMS)
    parser.add_argument(
        "--algorithm", type=_algorithm, metavar="NAME", help=f"wrapping algorithm, {known} (default: oaep-sha256)"
    )


def deletion_days(text: str) -> int:
    """The waiting period that --days gives."""
    if not (text.isdecimal() and MIN_DAYS <= int(text) <= MAX_DAYS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days from {MIN_DAYS} to {MAX_DAYS}")
    return int(text)


def _add_command(  # noqa: PLR0913 - private, of add and add_under
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Run,
    *,
    about: str,
    effect: Effect,
    instance: bool,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=about, description=f"{about}.", allow_abbrev=False)
    parser.set_defaults(run=run, effect=effect)
    _add_common_options(parser, defaults=False)
    if instance:
        parser.add_argument(
            "--instance",
            default=argparse.SUPPRESS,
            metavar="NAME",
            help="KMS instance by its name at the broker (default: its own)",
        )
    if effect is not Effect.READS:
        parser.add_argument(
            "--request-id", default=argparse.SUPPRESS, metavar="UUID", help="id of the request (default: a new one)"
        )
    return parser


def _add_common_options(parser: argparse.ArgumentParser, *, defaults: bool) -> None:
    """Adds the options that go before or after the command; given in both places, the later counts."""
    group = parser.add_argument_group("connection and output")

    def add(name: str, default: object, **settings: Any) -> None:  # noqa: ANN401 - as add_argument
        group.add_argument(name, default=default if defaults else argparse.SUPPRESS, **settings)

    address = os.environ.get("KBCTL_ADDRESS", DEFAULT_ADDRESS)
    add("--address", address, metavar="HOST:PORT", help=f"the broker (KBCTL_ADDRESS; default: {DEFAULT_ADDRESS})")
    add("--tls", default=False, action="store_true", help="use TLS; without --tls-ca with gRPC's own root certificates")
    add("--tls-ca", default=None, metavar="FILE", help="PEM certificates that vouch for the broker; implies --tls")
    add("--tls-cert", default=None, metavar="FILE", help="PEM certificate of this client; needs --tls-key")
    add("--tls-key", default=None, metavar="FILE", help="PEM private key of --tls-cert")
    add("--token-file", default=None, metavar="FILE", help="bearer token (JWT) of this client; needs TLS")
    add("--allow-insecure", default=False, action="store_true", help="allow another host without TLS")
    add("--timeout", default=None, type=_seconds, metavar="SECONDS", help="for a call (default: 15, reads 10)")
    add("--retries", DEFAULT_RETRIES, type=_count, metavar="N", help="repeats of a call (default: 5; 0: none)")
    _add_output_option(group, "table" if defaults else argparse.SUPPRESS)


def _add_output_option(group: argparse._ActionsContainer, default: str) -> None:
    about = "for people or for programs (default: table)"
    group.add_argument("--output", default=default, choices=("table", "json"), help=about)


def _algorithm(text: str) -> str:
    name = text.lower()
    name = ALGORITHM_ALIASES.get(name, name)
    if name not in ALGORITHMS:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(ALGORITHMS)}")
    return name


def _tag(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text) <= 100):  # noqa: PLR2004 - more than any timeout has room for
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 100")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:  # noqa: PLR2004 - an hour: not a number and infinity are no timeouts
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds between 0 and 3600")
    return seconds

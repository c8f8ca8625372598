"""`keybroker receipt jwks`: the public keys that receipts are verified with, to hand out."""

import argparse
import json
from pathlib import Path

from keybroker.adapters.receipts import ReceiptKey
from keybroker.receipt_keys import read_receipt_key, receipt_key
from keybroker.settings import ConfigurationError, load_settings


def add_receipt_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `receipt jwks` to the command line."""
    receipt = commands.add_parser("receipt", help="the keys of receipts").add_subparsers(
        required=True, metavar="COMMAND"
    )
    jwks = receipt.add_parser("jwks", help="print the public keys that receipts are verified with, as a JWKS")
    source = jwks.add_mutually_exclusive_group(required=True)
    source.add_argument("--config", type=Path, metavar="FILE", help="configuration whose key it is")
    source.add_argument("--key", type=Path, nargs="+", metavar="FILE", help="private keys, of now and of before")
    jwks.set_defaults(run=_jwks)


def _jwks(options: argparse.Namespace) -> int:
    keys = {key.kid: key.jwk for key in _keys(options)}  # each once: a JWKS with a kid twice is refused
    print(json.dumps({"keys": list(keys.values())}, indent=2))  # noqa: T201  # a command's answer
    return 0


def _keys(options: argparse.Namespace) -> list[ReceiptKey]:
    if options.key:
        return [read_receipt_key(path, "--key") for path in options.key]
    key = receipt_key(load_settings(options.config).receipts)
    if key is None:
        raise ConfigurationError("receipts.key_file: the configuration has none")
    return [key]

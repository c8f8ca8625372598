"""kbctl import: the broker generates the key material."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keybroker_client as kc
from kbctl.arguments import (
    ALGORITHMS,
    Effect,
    add_algorithm_option,
    add_consent_option,
    add_new_key_options,
    new_key,
)
from kbctl.failures import UsageError
from kbctl.output import as_json, check_value_text, instant, key_rows, label, show
from kbctl.receipt import add_receipt_option, check_receipt_option, receipt_row, save_receipt
from kbctl.status import name_request

if TYPE_CHECKING:
    import argparse

    from kbctl.arguments import Commands
    from kbctl.output import Row
    from keymaterial.v1.key_broker_service_pb2 import ImportExternalKeyResponse


def add_commands(commands: Commands) -> None:
    """Adds import."""
    parser = commands.add(
        "import", import_key, about="Generate key material and import it into a CMK", effect=Effect.CHANGES_ONCE
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--key-id", metavar="ID", help="an existing CMK in PENDING_IMPORT: key id or ARN")
    target.add_argument("--new-key", action="store_true", help="create the CMK first; needs --spec")
    add_new_key_options(parser, spec_required=False)
    add_consent_option(parser)
    add_algorithm_option(parser)
    parser.add_argument("--validate-only", action="store_true", help="check everything, change nothing")
    add_receipt_option(parser)


def import_key(client: kc.KeyBrokerClient, args: argparse.Namespace) -> int:
    """Imports, and shows the CMK with the evidence."""
    _check_new_key_options(args)
    check_receipt_option(args)
    answer = client.import_external_key(
        key_id=args.key_id,
        new_key=new_key(args) if args.new_key else None,
        wrapping_algorithm=ALGORITHMS[args.algorithm] if args.algorithm else None,
        validate_only=args.validate_only,
        allow_second_key=args.allow_second_key,
        instance=args.instance,
        request_id=name_request(args),
    )
    check_value = check_value_text(answer.key_check_value)
    saved = save_receipt(args, answer.receipt)
    rows = [*_rows(answer, check_value), receipt_row(args, answer.receipt, saved)]
    show(args, rows, as_json(answer) | {"check_value": check_value})
    return saved


def _check_new_key_options(args: argparse.Namespace) -> None:
    if args.new_key and not args.spec:
        raise UsageError("--new-key needs --spec")
    if not args.new_key and (args.spec or args.alias or args.description or args.tag or args.allow_second_key):
        raise UsageError("--spec, --alias, --description, --tag and --allow-second-key are for --new-key")


def _rows(answer: ImportExternalKeyResponse, check_value: str) -> list[Row]:
    algorithm = label(kc.WrappingAlgorithm, answer.wrapping_algorithm)
    if not answer.evidence:
        return [("result", "checks passed, nothing was changed"), *key_rows(answer.key), ("algorithm", algorithm)]
    return [
        ("result", "imported (repeated answer)" if answer.replayed else "imported"),
        *key_rows(answer.key),
        ("check value", check_value),
        ("evidence", label(kc.ImportEvidence, answer.evidence)),
        ("algorithm", algorithm),
        ("parameters", label(kc.ParametersSource, answer.parameters_source)),
        ("imported", instant(answer, "import_time")),
        ("KMS request id", answer.kms_request_id),
    ]

"""kbctl parameters, kbctl import-wrapped: the caller generates and wraps the key material, as with OpenSSL."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import TYPE_CHECKING

import keybroker_client as kc
from kbctl.arguments import ALGORITHMS, Effect, add_algorithm_option
from kbctl.failures import Exit, UsageError
from kbctl.files import STDIN, check_outputs, read_input, write_private
from kbctl.output import as_json, instant, key_rows, label, show
from kbctl.receipt import add_receipt_option, check_receipt_option, receipt_row, save_receipt
from kbctl.status import name_request

if TYPE_CHECKING:
    import argparse

    from kbctl.arguments import Commands
    from kbctl.output import Row

WRAPPED_KEY_MATERIAL_BYTES = 256


def add_commands(commands: Commands) -> None:
    """Adds parameters and import-wrapped."""
    parser = commands.add(
        "parameters", parameters, about="Get a wrapping public key and its import token", effect=Effect.READS
    )
    parser.add_argument("--key-id", required=True, metavar="ID", help="a CMK in PENDING_IMPORT: key id or ARN")
    add_algorithm_option(parser)
    parser.add_argument(
        "--public-key-out", type=Path, metavar="FILE", help="write the wrapping public key here, in DER"
    )
    parser.add_argument("--token-out", type=Path, metavar="FILE", help="write the import token here")
    parser.add_argument("--force", action="store_true", help="replace these files")

    parser = commands.add(
        "import-wrapped", import_wrapped, about="Import key material that you wrapped", effect=Effect.CHANGES_ONCE
    )
    parser.add_argument("--key-id", required=True, metavar="ID", help="the CMK of the parameters: key id or ARN")
    wrapped = parser.add_mutually_exclusive_group(required=True)
    wrapped.add_argument("--wrapped", metavar="FILE", help="wrapped key material, 256 bytes; - for stdin")
    wrapped.add_argument("--wrapped-b64", metavar="FILE", help="the same in base64; - for stdin")
    parser.add_argument(
        "--token", required=True, metavar="FILE", help="import token of the same parameters; - for stdin"
    )
    parser.add_argument("--validate-only", action="store_true", help="check what can be checked, change nothing")
    add_receipt_option(parser)


def parameters(client: kc.KeyBrokerClient, args: argparse.Namespace) -> int:
    """Gets import parameters; into files, or shown."""
    outputs = {"wrapping_public_key": args.public_key_out, "import_token": args.token_out}
    files = {field: path for field, path in outputs.items() if path}
    check_outputs(files.values(), force=args.force)
    answer = client.get_import_parameters(
        key_id=args.key_id,
        wrapping_algorithm=ALGORITHMS[args.algorithm] if args.algorithm else None,
        instance=args.instance,
    )
    contents = {"wrapping_public_key": answer.wrapping_public_key, "import_token": answer.import_token.encode()}
    write_private({path: contents[field] for field, path in files.items()})
    fields = {name: value for name, value in as_json(answer).items() if name not in files}
    rows: list[Row] = [
        ("key id", answer.key_id),
        ("algorithm", label(kc.WrappingAlgorithm, answer.wrapping_algorithm)),
        ("token ends", instant(answer, "expire_time")),
        ("public key", str(args.public_key_out or fields["wrapping_public_key"])),
        ("import token", str(args.token_out or answer.import_token)),
    ]
    show(args, rows, fields | {f"{field}_file": str(path) for field, path in files.items()})
    return Exit.OK


def import_wrapped(client: kc.KeyBrokerClient, args: argparse.Namespace) -> int:
    """Imports wrapped key material, and shows the CMK."""
    if args.token == STDIN and STDIN in {args.wrapped, args.wrapped_b64}:
        raise UsageError("only one file can come from stdin")
    check_receipt_option(args)
    answer = client.import_wrapped_key_material(
        key_id=args.key_id,
        wrapped_key_material=_wrapped_key_material(args),
        import_token=_import_token(args.token),
        validate_only=args.validate_only,
        instance=args.instance,
        request_id=name_request(args),
    )
    saved = save_receipt(args, answer.receipt)
    result = "checks passed, nothing was changed" if args.validate_only else "imported"
    rows: list[Row] = [
        ("result", f"{result} (repeated answer)" if answer.replayed else result),
        *key_rows(answer.key),
        ("imported", instant(answer, "import_time")),
        ("KMS request id", answer.kms_request_id),
        receipt_row(args, answer.receipt, saved),
    ]
    show(args, rows, as_json(answer))
    return saved


def _wrapped_key_material(args: argparse.Namespace) -> bytes:
    """The wrapped key material, of the only length that it can have.

    Checked here and not by the broker alone: whoever gives the file with the key material in the clear by mistake
    does not send it anywhere.
    """
    path = args.wrapped or args.wrapped_b64
    data = read_input(path)
    if args.wrapped_b64:
        try:
            data = base64.b64decode(b"".join(data.split()), validate=True)
        except binascii.Error as error:
            raise UsageError(f"{path}: not base64") from error
    if len(data) != WRAPPED_KEY_MATERIAL_BYTES:
        raise UsageError(
            f"{path}: wrapped key material has {WRAPPED_KEY_MATERIAL_BYTES} bytes, this has {len(data)} "
            "(give base64 with --wrapped-b64; never key material that is not wrapped)"
        )
    return data


def _import_token(path: str) -> str:
    """The token without the white space that editors and shells add."""
    try:
        return read_input(path).decode("ascii").strip()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: an import token is ASCII text") from error

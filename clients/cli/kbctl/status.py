"""kbctl import-status: where an earlier request stands. And the ids of requests that are about to be made."""

from __future__ import annotations

import json
import sys
import uuid
from typing import TYPE_CHECKING

import keybroker_client as kc
from kbctl.arguments import Effect
from kbctl.output import as_json, check_value_text, instant, label, show
from kbctl.receipt import add_receipt_option, check_receipt_option, receipt_row, save_receipt

if TYPE_CHECKING:
    import argparse

    from kbctl.arguments import Commands
    from kbctl.output import Row
    from keymaterial.v1.key_broker_service_pb2 import GetImportResponse

MEANINGS = {
    "CREATING": "whether a CMK was created is not known yet",
    "RELEASED": "nothing was imported; a repeat starts over",
    "CLAIMED": "under way; no key material was sent",
    "PREPARED": "whether the key material is bound is not known yet",
    "ACCEPTED": "the KMS accepted the key material; not seen Enabled yet",
    "IMPORTED": "final: imported",
    "ENABLED_UNATTRIBUTED": "final: the CMK is Enabled, with whose key material can't be found out",
    "NOT_IMPORTED": "final: nothing was imported",
    "ALREADY_BOUND": "final: the CMK had key material before",
    "CREATED": "final: the CMK was created",
}


def add_commands(commands: Commands) -> None:
    """Adds import-status."""
    parser = commands.add(
        "import-status",
        import_status,
        about="Show where an import or creation stands",
        effect=Effect.READS,
        instance=False,
    )
    parser.add_argument("asked_for", metavar="REQUEST_ID", help="its request id, as import and create tell it")
    add_receipt_option(parser)


def import_status(client: kc.KeyBrokerClient, args: argparse.Namespace) -> int:
    """Shows the broker's record of a request."""
    check_receipt_option(args)
    answer = client.get_import(request_id=args.asked_for)
    check_value = check_value_text(answer.key_check_value)
    saved = save_receipt(args, answer.receipt)
    rows = [*_rows(answer, check_value), receipt_row(args, answer.receipt, saved)]
    show(args, rows, as_json(answer) | {"check_value": check_value})
    return saved


def name_request(args: argparse.Namespace) -> str:
    """The id of the request that is about to be made: the one given, or a new one, told on stderr first.

    Told before anything is sent: whatever happens to kbctl, the command can be repeated with it.
    """
    if not args.request_id:
        args.request_id = str(uuid.uuid4())
        if not getattr(args, "validate_only", False):
            _tell(args.request_id, args.output)
    return str(args.request_id)


def _tell(request_id: str, output: str) -> None:
    told = json.dumps({"request_id": request_id}) if output == "json" else f"kbctl: request id {request_id}"
    print(told, file=sys.stderr, flush=True)


def _rows(answer: GetImportResponse, check_value: str) -> list[Row]:
    state = label(kc.RequestState, answer.state)
    return [
        ("request id", answer.request_id),
        ("state", state),
        ("meaning", MEANINGS.get(state, "")),
        ("reason", answer.reason),
        ("key id", answer.key_id),
        ("created CMK", answer.created_key_id),
        ("check value", check_value),
        ("evidence", label(kc.ImportEvidence, answer.evidence) if answer.evidence else ""),
        ("algorithm", label(kc.WrappingAlgorithm, answer.wrapping_algorithm) if answer.wrapping_algorithm else ""),
        ("entropy source", label(kc.EntropySource, answer.entropy_source) if answer.entropy_source else ""),
        ("sends", f"{answer.sends} recorded" if answer.sends else ""),
        ("imported", instant(answer, "import_time")),
        ("KMS request id", answer.kms_request_id),
        ("recorded", instant(answer, "create_time")),
        ("changed", instant(answer, "update_time")),
    ]

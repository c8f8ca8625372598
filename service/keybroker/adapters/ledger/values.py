"""The two sealed values of a row: its import token and its wrapped key material.

Kept while they may have to be sent again and no longer, and only for an algorithm whose ciphertext may be stored: not
RSAES_PKCS1_V1_5 (its padding is weak, so a copy is worth something), nor one that is not known.
"""

from dataclasses import replace

from keybroker.adapters.ledger.database import Row
from keybroker.adapters.ledger.records import Unreadable
from keybroker.adapters.ledger.sealing import CannotOpen, Keyring, Place
from keybroker.domain.attempt import ENDS, Attempt
from keybroker.domain.wrapping import RSAES_OAEP_SHA_256

_STORABLE = frozenset({RSAES_OAEP_SHA_256.kms_name})


def sealed_values(attempt: Attempt, keyring: Keyring) -> dict[str, str | bytes | None]:
    """The columns for a row: NULL for what is not to be stored."""
    storable = attempt.state not in ENDS and attempt.algorithm in _STORABLE
    token = attempt.import_token.encode() if storable else b""
    blob = attempt.wrapped_key_material if storable else b""
    return {
        "sealed_by": keyring.current_id if token or blob else None,
        "sealed_token": keyring.seal(token, _place(attempt, "token")) if token else None,
        "sealed_blob": keyring.seal(blob, _place(attempt, "blob")) if blob else None,
    }


def restore_values(attempt: Attempt, row: Row, keyring: Keyring) -> Attempt:
    """The row's Attempt with what was sealed. Raises Unreadable."""

    def opened(kind: str) -> bytes:
        sealed = row[f"sealed_{kind}"]
        return b"" if sealed is None else keyring.unseal(sealed, _place(attempt, kind), sealed_by=row["sealed_by"])

    try:
        return replace(attempt, import_token=opened("token").decode(), wrapped_key_material=opened("blob"))
    except (CannotOpen, TypeError, UnicodeDecodeError):
        raise Unreadable from None


def _place(attempt: Attempt, kind: str) -> Place:
    cmk = attempt.cmk
    return Place(
        record_id=attempt.record_id,
        cmk=(cmk.account, cmk.region, cmk.key_id) if cmk else ("", "", ""),
        algorithm=attempt.algorithm,
        kind=kind,
    )

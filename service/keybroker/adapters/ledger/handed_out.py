"""The table of import parameters that went to callers: of each token its digest only."""

from datetime import datetime, timedelta

from keybroker.adapters.ledger.database import Connection
from keybroker.adapters.ledger.instants import from_microseconds, to_microseconds
from keybroker.domain.attempt import HandedOut
from keybroker.domain.external_key import CmkName

AFTER_EXPIRY = timedelta(hours=1)
"""How long a token is remembered after its expiry, so that its bearer is told that and not that it is unknown."""


def remember(connection: Connection, handed_out: HandedOut) -> None:
    """Once more changes nothing."""
    cmk = handed_out.cmk
    connection.execute(
        "INSERT OR IGNORE INTO handed_out (token_digest, account, region, key_id, algorithm, expires_at)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (
            handed_out.token_digest,
            cmk.account,
            cmk.region,
            cmk.key_id,
            handed_out.algorithm,
            to_microseconds(handed_out.expires_at),
        ),
    )


def find(connection: Connection, token_digest: bytes) -> HandedOut | None:
    """What is known of a token."""
    row = connection.execute("SELECT * FROM handed_out WHERE token_digest = ?", (token_digest,)).fetchone()
    if row is None:
        return None
    cmk = CmkName(row["account"], row["region"], row["key_id"])
    return HandedOut(row["token_digest"], cmk, row["algorithm"], from_microseconds(row["expires_at"]))


def has_one_of(connection: Connection, cmk: CmkName) -> bool:
    """Whether a token of this CMK is remembered."""
    found = connection.execute(
        "SELECT 1 FROM handed_out WHERE account = ? AND region = ? AND key_id = ? LIMIT 1",
        (cmk.account, cmk.region, cmk.key_id),
    )
    return found.fetchone() is not None


def too_old(now: datetime) -> tuple[str, int]:
    """A condition on the table, and its parameter: what may be forgotten."""
    return "handed_out WHERE expires_at < ?", to_microseconds(now - AFTER_EXPIRY)

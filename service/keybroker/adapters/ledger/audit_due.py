"""The events that the audit log has still to be told: kept with what they tell of, dropped once the log has them.

An event is put in the same transaction as the row that it is about. Those of one transaction have its sequence.
"""

import json
from collections.abc import Sequence

from keybroker.adapters.ledger.database import Connection
from keybroker.domain.audit import AuditEvent
from keybroker.ports import DueEvent


def put(connection: Connection, event: AuditEvent, sequence: int, *, held: bool) -> None:
    """Inside a transaction: keeps the event, in place of one with its id."""
    body = json.dumps(dict(event.fields), separators=(",", ":"))
    connection.execute(
        "INSERT OR REPLACE INTO audit_due (id, sequence, held, body) VALUES (?, ?, ?, ?)",
        (event.id, sequence, int(held), body),
    )


def read(connection: Connection, after: int) -> list[DueEvent]:
    """Those that are due with a later sequence, in order."""
    rows = connection.execute(
        "SELECT id, sequence, body FROM audit_due WHERE sequence > ? AND NOT held ORDER BY sequence, id", (after,)
    )
    return [DueEvent(row["sequence"], AuditEvent(row["id"], json.loads(row["body"]))) for row in rows]


def drop(connection: Connection, ids: Sequence[str], up_to: int) -> None:
    """Inside a transaction: forgets them, but not what another process has meanwhile put in the place of one."""
    connection.executemany(
        "DELETE FROM audit_due WHERE id = ? AND sequence <= ?", [(event_id, up_to) for event_id in ids]
    )


def release_held(connection: Connection, sequence: int) -> None:
    """Inside a transaction: what is held becomes due."""
    connection.execute("UPDATE audit_due SET held = 0, sequence = ? WHERE held", (sequence,))

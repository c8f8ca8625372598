"""Recognises a ledger that is an older copy of itself, by the mark outside it (rule R8 of the import protocol).

The mark is written after each commit and before the write returns. So a ledger that is behind its mark has lost writes
that somebody relied on. One that is ahead has not: it stopped between the two.
"""

import json
import uuid

from keybroker.adapters.ledger.database import Connection
from keybroker.adapters.ledger.mark import Reading

JUMP = 2**32
"""How far versions jump: past every one that the lost ledger can have used, also where the mark is lost too."""


def is_restored(ledger_id: uuid.UUID, sequence: int, reading: Reading) -> bool:
    """Whether the ledger is not the one, or not as far, as the mark says.

    Without a word of the mark: if the ledger has ever been written, or if the mark has been.
    """
    recorded = reading.recorded
    if sequence == 0 and (reading.blank or (recorded is not None and recorded.sequence == 0)):
        return False  # both are new
    return recorded is None or recorded.ledger_id != ledger_id or recorded.sequence > sequence


def note_restore(connection: Connection, sequence: int, reading: Reading) -> int:
    """Records it for ever, with its date to be learnt anew; marks PREPARED rows. Returns the sequence."""
    sequence = max(sequence, reading.recorded.sequence if reading.recorded else 0) + JUMP
    for row in connection.execute("SELECT * FROM attempts WHERE state = 'PREPARED' ORDER BY version").fetchall():
        sequence += 1
        _mark_row(connection, row["record_id"], row["body"], sequence)
    connection.execute("UPDATE meta SET restored = 1, restored_at = NULL, sequence = ?", (sequence,))
    return sequence


def _mark_row(connection: Connection, record_id: str, body: str, version: int) -> None:
    """Changes the two fields in the body. One that can't be read stays so, and its CMK stays quarantined."""
    try:
        tree = json.loads(body)
        changed = json.dumps({**tree, "restored": True, "version": version}, separators=(",", ":"))
    except (ValueError, TypeError, RecursionError):
        return
    connection.execute("UPDATE attempts SET body = ?, version = ? WHERE record_id = ?", (changed, version, record_id))

"""The events of the audit log: one before each change, one when it is known what came of it.

Their fields are built here from the row, so that what is told is what the ledger holds: who, what, for which CMK, with
which outcome and evidence. Key material, import tokens and wrapped key material are in none. How events become lines
of a chain is adapters/audit's. The fields are described in docs/audit.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass

Value = str | int | bool


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One event. `id` is the same if it is written twice. `fields` are flat, named as in docs/audit.md."""

    id: str
    fields: Mapping[str, Value]

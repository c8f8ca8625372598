"""Reads what the ledger holds of a caller's own request, without acting on it."""

from keybroker.domain.attempt import Attempt, Kind
from keybroker.domain.errors import BrokerError, Reason
from keybroker.ports import Ledger
from keybroker.usecases.asked import Asked


class GetImport:
    """GetImport."""

    def __init__(self, *, ledger: Ledger) -> None:
        self._ledger = ledger

    def run(self, asked: Asked) -> Attempt:
        """The row. Somebody else's request id behaves as one that was never used. Reasons: REQUEST_NOT_FOUND."""
        row = self._ledger.find(asked.caller, asked.request_id)
        if row is None or row.kind is Kind.DELETE_ORPHAN:
            raise BrokerError(Reason.REQUEST_NOT_FOUND, "The broker has no record of such a request of this caller.")
        return row

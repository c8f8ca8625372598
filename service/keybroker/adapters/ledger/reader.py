"""Makes Attempts of rows, and says what is wrong with those that are none."""

import structlog

from keybroker.adapters.ledger import records
from keybroker.adapters.ledger.database import Row
from keybroker.adapters.ledger.sealing import Keyring
from keybroker.adapters.ledger.values import restore_values
from keybroker.domain.attempt import Attempt
from keybroker.domain.errors import BrokerError, Reason


class RowReader:
    """Reads rows with the keys of `keyring`."""

    def __init__(self, *, keyring: Keyring) -> None:
        self._keyring = keyring
        self._reported: set[str] = set()

    def read(self, row: Row) -> Attempt:
        """The row's Attempt, sealed values and all. Raises BrokerError LEDGER_RECORD_UNREADABLE."""
        try:
            return restore_values(records.decode(row), row, self._keyring)
        except records.Unreadable:
            raise BrokerError(
                Reason.LEDGER_RECORD_UNREADABLE,
                "The broker's record of this request or CMK can't be read, so nothing is done with it.",
                metadata={"key_id": row["key_id"]} if isinstance(row["key_id"], str) else {},
            ) from None

    def read_or_log(self, row: Row) -> Attempt | None:
        """The same, but None and, once for a row, a line in the log."""
        try:
            return self.read(row)
        except BrokerError:
            record_id = str(row["record_id"])
            if record_id not in self._reported:
                self._reported.add(record_id)
                structlog.get_logger().error("ledger_record_unreadable", record_id=record_id)
            return None

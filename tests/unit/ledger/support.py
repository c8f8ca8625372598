"""Attempts and ledgers for the tests of the ledger."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from keybroker.adapters.ledger.sealing import Keyring
from keybroker.adapters.ledger.sqlite import SqliteLedger
from keybroker.domain.attempt import Attempt, Kind, State
from keybroker.domain.external_key import CmkName

ACCOUNT = "1540355698840000"
REGION = "cn-hangzhou"
KEY = bytes(range(32))
OTHER_KEY = bytes(range(32, 64))
TOKEN = "import-token-canary-5b1e"
BLOB = b"wrapped-canary-77aa" * 13
OAEP = "RSAES_OAEP_SHA_256"
PKCS1 = "RSAES_PKCS1_V1_5"
EXPIRY = datetime(2026, 1, 3, 3, 4, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


class StillClock:
    """A clock that stands still until it is moved. It needs nothing of the use cases, as processes of tests use it."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()

    def sleep(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


def cmk(key_id: str = "key-1", *, account: str = ACCOUNT, region: str = REGION) -> CmkName:
    return CmkName(account, region, key_id)


def attempt(number: object = 1, **changes: Any) -> Attempt:
    """A request that holds its own CMK, "key-" and the number."""
    defaults: dict[str, Any] = {
        "record_id": f"record-{number}",
        "caller": "jwt:caller",
        "request_id": f"request-{number}",
        "kind": Kind.IMPORT,
        "request_digest": bytes(32),
        "region": REGION,
        "dkms_instance_id": "kst-example",
        "state": State.CLAIMED,
        "cmk": cmk(f"key-{number}"),
    }
    return Attempt(**{**defaults, **changes})


def prepared(row: Attempt, **changes: Any) -> Attempt:
    """The row with a first send recorded."""
    defaults: dict[str, Any] = {
        "state": State.PREPARED,
        "sends": 1,
        "algorithm": OAEP,
        "import_token": TOKEN,
        "wrapped_key_material": BLOB,
        "pair_expiries": (EXPIRY,),
    }
    return replace(row, **{**defaults, **changes})


@dataclass
class Files:
    """A ledger's files, and ledgers over them."""

    folder: Path
    clock: StillClock = field(default_factory=StillClock)
    _opened: list[SqliteLedger] = field(default_factory=list)

    @property
    def file(self) -> Path:
        return self.folder / "ledger.db"

    @property
    def mark_file(self) -> Path:
        return self.folder / "mark"

    def ledger(
        self, *, key: bytes = KEY, old: tuple[bytes, ...] = (), with_mark: bool = True, **changes: Any
    ) -> SqliteLedger:
        ledger = SqliteLedger(
            keyring=Keyring(current=key, old=old),
            clock=self.clock,
            file=self.file,
            mark_file=self.mark_file if with_mark else None,
            **changes,
        )
        self._opened.append(ledger)
        ledger.connect()
        return ledger

    def close(self) -> None:
        for ledger in self._opened:
            ledger.close()
        self._opened.clear()

    def execute(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Past the ledger, as somebody with the file in hand."""
        with closing(sqlite3.connect(self.file, isolation_level=None)) as connection:
            return connection.execute(statement, parameters).fetchall()

    def content(self) -> bytes:
        """Everything that is on the disk now."""
        return b"".join(path.read_bytes() for path in sorted(self.folder.iterdir()))

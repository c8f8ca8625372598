"""Brokers in processes of their own over one ledger, to be killed and started again while the emulator lives on."""

import base64
import itertools
import json
import os
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from keybroker_client import KeyBrokerClient, KeyBrokerError
from keymaterial.v1 import types_pb2
from kms_emulator import AccessKey, Emulator, EmulatorSettings
from tests.integration.conftest import ACCESS_KEY_ID, ACCESS_KEY_SECRET, DKMS_INSTANCE_ID, broker_settings
from tests.integration.crash_answers import Told
from tests.unit.receipts.support import key_file

ROOT = Path(__file__).parents[2]
NEW_KEY = types_pb2.NewKey(key_spec=types_pb2.KEY_SPEC_AES_256)
_POLL_SECONDS = 0.01
_PATIENCE_SECONDS = 60.0
_CALL_SECONDS = 8.0
_LONGEST_WAIT_SECONDS = 0.5


def wait_until(condition: Callable[[], object], *, seconds: float = _PATIENCE_SECONDS) -> None:
    """Raises AssertionError after `seconds`."""
    ends_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends_at, "waited in vain"
        time.sleep(_POLL_SECONDS)


class Nursery:
    """Starts brokers that a stop can be named for: tests.integration.crashing_broker. For many threads."""

    def __enter__(self) -> Self:
        credentials = {
            "ALIBABA_CLOUD_ACCESS_KEY_ID": ACCESS_KEY_ID,
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET": ACCESS_KEY_SECRET,
        }
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.crashing_broker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | credentials,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def start(self, config: Path, log: Path, stop: dict[str, Any] | None) -> int:
        """The process id of a new broker."""
        return int(self._ask({"start": {"config": str(config), "log": str(log), "stop": stop}})["pid"])

    def status(self, pid: int) -> int | None:
        """None while it runs. To be asked until it is something else, and then no more."""
        status: int | None = self._ask({"status": pid})["status"]
        return status

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


@dataclass(frozen=True, slots=True)
class Stop:
    """Where a broker dies, or with `pause` its thread waits: the `nth` time that it is there, `seconds` later."""

    place: str
    nth: int = 1
    pause: bool = False
    seconds: float = 0.0


class Broker:
    """One process. `told` makes one call and says what came back; "" where nothing of the broker's did."""

    def __init__(self, nursery: Nursery, folder: Path, config: Path, stop: Stop | None) -> None:
        self._nursery = nursery
        self._log = folder / "broker.log"
        self._reached, self._go_on = folder / "reached", folder / "go-on"
        order = None if stop is None else self._order(stop)
        self.pid = nursery.start(config, self._log, order)
        self._status: int | None = None
        self._client = KeyBrokerClient(f"127.0.0.1:{self._port()}", retries=0)

    def told(
        self, request_id: str, key_id: str | None, *, seconds: float = _CALL_SECONDS, consent: bool = False
    ) -> Told:
        """ImportExternalKey, into a new CMK if there is no `key_id`."""
        try:
            answer = self._client.import_external_key(
                key_id=key_id,
                new_key=None if key_id else NEW_KEY,
                request_id=request_id,
                allow_second_key=consent,
                timeout_seconds=seconds,
            )
        except KeyBrokerError as error:
            key_id = error.metadata.get("key_id", "")
            replayed = error.metadata.get("replayed") == "true"
            return Told(error.reason, key_id, b"", replayed, error.retry_after_seconds)
        check_value = answer.key_check_value.value
        return Told("IMPORTED", answer.key.key_id, check_value, answer.replayed, receipt=answer.receipt)

    def repeated(self, request_id: str, key_id: str | None, *, seconds: float = _PATIENCE_SECONDS) -> Told:
        """The first final answer, or the last of the others when the time is up."""
        ends_at = time.monotonic() + seconds
        while True:
            told = self.told(request_id, key_id)
            if told.is_final or time.monotonic() > ends_at:
                return told
            time.sleep(min(told.retry_after_seconds or 0.05, _LONGEST_WAIT_SECONDS))

    def wait_until_paused(self) -> None:
        """Returns when the broker has come to its stop."""
        wait_until(self._reached.exists)

    def wake(self) -> None:
        """Ends its pause."""
        self._go_on.touch()

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal."""
        if self._status is None:
            os.kill(self.pid, number)

    def wait_until_dead(self) -> int:
        """Its exit status; negative for a signal."""
        wait_until(lambda: self._ended() is not None)
        assert self._status is not None
        return self._status

    def kill(self) -> None:
        """Whatever it does: dead when this returns."""
        if self._ended() is None:
            self.signal(signal.SIGKILL)
        self.wait_until_dead()

    def close(self) -> None:
        """Kills it and lets go of the connection."""
        self.kill()
        self._client.close()

    def end(self) -> None:
        """As an operator stops it."""
        self.signal(signal.SIGTERM)
        assert self.wait_until_dead() == 0, self._log.read_text()

    def logged(self, event: str) -> dict[str, Any] | None:
        """The first such line of its log."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return next((json.loads(line) for line in lines if f'"event": "{event}"' in line and line.endswith("}")), None)

    def _order(self, stop: Stop) -> dict[str, Any]:
        return {
            "place": stop.place,
            "nth": stop.nth,
            "seconds": stop.seconds,
            "reached": str(self._reached),
            "go_on": str(self._go_on) if stop.pause else "",
        }

    def _ended(self) -> int | None:
        if self._status is None:
            self._status = self._nursery.status(self.pid)
        return self._status

    def _port(self) -> int:
        wait_until(lambda: self.logged("serving") or self._ended() is not None)
        serving = self.logged("serving")
        assert serving is not None, self._log.read_text()
        return int(serving["grpc_port"])


class Site:
    """An emulator, a ledger with its key and its mark, and the brokers on it. Nothing of it outlives the `with`.

    Each broker has an audit log of its own, as two at a time can't share one; with `one_audit_log` they share it.
    """

    def __init__(
        self,
        nursery: Nursery,
        folder: Path,
        *,
        mark: bool = True,
        prove: bool = False,
        one_audit_log: bool = False,
        **readings: object,
    ) -> None:
        self._nursery = nursery
        self._folder = folder
        self._numbers = itertools.count(1)
        self._stack = ExitStack()
        self.ledger, self.mark, self._key = folder / "ledger.db", folder / "mark", folder / "key"
        self._receipt_key = folder / "receipt-key"
        self._has_mark = mark
        self._one_audit_log = one_audit_log
        self.audit_files: list[Path] = []
        self._imports = {"create_settle_seconds": 0.5, "prove": prove}
        self.emulator = Emulator(
            EmulatorSettings(
                region="cn-hangzhou",
                dkms_instance_ids=(DKMS_INSTANCE_ID,),
                access_keys=(AccessKey(ACCESS_KEY_ID, ACCESS_KEY_SECRET),),
            )
        )
        self.emulator.set_readings(**readings)

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._key.write_bytes(base64.b64encode(secrets.token_bytes(32)))
        self._key.chmod(0o600)
        key_file(self._receipt_key)
        self._stack.enter_context(self.emulator)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def broker(self, stop: Stop | None = None) -> Broker:
        """Starts one more process on the ledger. It is killed at the end."""
        folder = self._folder / f"broker-{next(self._numbers)}"
        folder.mkdir()
        ledger = {"file": str(self.ledger), "key_file": str(self._key)}
        if self._has_mark:
            ledger["mark_file"] = str(self.mark)
        audit = (self._folder if self._one_audit_log else folder) / "audit.jsonl"
        self.audit_files = list(dict.fromkeys([*self.audit_files, audit]))
        settings = broker_settings(
            self.emulator,
            ledger=ledger,
            imports=self._imports,
            audit={"file": str(audit)},
            receipts={"key_file": str(self._receipt_key)},
        )
        config = folder / "keybroker.yaml"
        config.write_text(yaml.safe_dump(settings.model_dump(mode="json")))
        broker = Broker(self._nursery, folder, config, stop)
        self._stack.callback(broker.close)
        return broker

    def back_up(self) -> Path:
        """A copy of the ledger as it is now, as docs/ledger.md has it made."""
        copy = self._folder / f"copy-{next(self._numbers)}.db"
        with closing(sqlite3.connect(self.ledger)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        return copy

    def restore(self, copy: Path) -> None:
        """Puts a copy in place, while no broker runs. The mark stays."""
        for suffix in ("-wal", "-shm"):
            self.ledger.with_name(self.ledger.name + suffix).unlink(missing_ok=True)
        shutil.copyfile(copy, self.ledger)

    def settle(self) -> None:
        """Lets held calls go on, and returns when the emulator has nothing in hand."""
        self.emulator.faults.clear()
        self.emulator.release_held()
        wait_until(lambda: not self.emulator.in_flight)

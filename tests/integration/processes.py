"""A broker in a process of its own, as it is deployed: for signals, exit status, logs and load."""

import json
import os
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import yaml

from kms_emulator import Emulator
from tests.integration.conftest import ACCESS_KEY_ID, ACCESS_KEY_SECRET, broker_settings


class BrokerProcess(AbstractContextManager["BrokerProcess"]):
    """`keybroker serve` with a configuration file, until it is told to end. Logs are in `log_path`."""

    def __init__(
        self, folder: Path, emulator: Emulator, *, stdout: IO[bytes] | None = None, **sections: dict[str, Any]
    ) -> None:
        self._stdout = stdout
        self._config_path = folder / "keybroker.yaml"
        self._config_path.write_text(yaml.safe_dump(broker_settings(emulator, **sections).model_dump(mode="json")))
        self.log_path = folder / "broker.log"
        self.address = ""
        self.http_url = ""

    def __enter__(self) -> Self:
        environment = os.environ | {
            "ALIBABA_CLOUD_ACCESS_KEY_ID": ACCESS_KEY_ID,
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET": ACCESS_KEY_SECRET,
        }
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "keybroker", "serve", "--config", str(self._config_path)],
                env=environment,
                stdout=self._stdout,
                stderr=log,
            )
        serving = self._wait_for("serving")
        self.address = f"127.0.0.1:{serving['grpc_port']}"
        self.http_url = f"http://127.0.0.1:{serving['http_port']}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def log(self) -> list[dict[str, Any]]:
        """Its lines; the last one may still be on its way."""
        return [json.loads(line) for line in self.log_path.read_text().splitlines() if line.endswith("}")]

    def _wait_for(self, event: str) -> dict[str, Any]:
        ends_at = time.monotonic() + 60
        while time.monotonic() < ends_at:
            assert self.process.poll() is None, self.log_path.read_text()
            for entry in self.log():
                if entry["event"] == event:
                    return entry
            time.sleep(0.05)
        raise AssertionError(f"no {event} in the log: {self.log_path.read_text()}")

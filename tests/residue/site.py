"""An emulator in this process, which knows every key that it unwrapped, and a broker in another."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pytest
import yaml

from keybroker_client import KeyBrokerClient
from keymaterial.v1 import types_pb2
from kms_emulator import AccessKey, Emulator, EmulatorSettings
from kms_emulator.operations import importing
from tests.integration.conftest import ACCESS_KEY_ID, ACCESS_KEY_SECRET, DKMS_INSTANCE_ID, broker_settings
from tests.residue.memory import residues

ROOT = Path(__file__).parents[2]
SPECS = ("Aliyun_AES_128", "Aliyun_AES_192", "Aliyun_AES_256")
ALGORITHMS = (
    types_pb2.WRAPPING_ALGORITHM_RSAES_OAEP_SHA_256,
    types_pb2.WRAPPING_ALGORITHM_RSAES_PKCS1_V1_5,
)
PATIENCE_SECONDS = 40.0
_POLL_SECONDS = 0.02


def wait_until(condition: Callable[[], object]) -> None:
    ends_at = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < ends_at, "waited in vain"
        time.sleep(_POLL_SECONDS)


class Site:
    """The emulator, while it `refuses`, unwraps and says that it could not."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        monkeypatch: pytest.MonkeyPatch,
        dump_protection: bool,
        **sections: dict[str, Any],
    ) -> None:
        self._unwrapped: dict[bytes, None] = {}
        self.refuses = False
        self._folder = folder
        self._options = options
        self.ledger = folder / "ledger.db"
        ledger = {"file": str(self.ledger), "key_file": str(self._ledger_key())}
        fixed = {"imports": {"prove": True}, "hardening": {"dump_protection": dump_protection}, "ledger": ledger}
        self._sections = fixed | sections
        self._stack = ExitStack()
        self._calls = ThreadPoolExecutor(20)
        unwrap = importing.unwrap

        def noted(*arguments: Any) -> bytes:
            material = unwrap(*arguments)
            self._unwrapped[material] = None
            if self.refuses:
                raise ValueError("refused")
            return material

        monkeypatch.setattr(importing, "unwrap", noted)

    def __enter__(self) -> Self:
        access_key = AccessKey(ACCESS_KEY_ID, ACCESS_KEY_SECRET)
        settings = EmulatorSettings(
            region="cn-hangzhou", dkms_instance_ids=(DKMS_INSTANCE_ID,), access_keys=(access_key,), rsa_key_pool=8
        )
        self.emulator = self._stack.enter_context(Emulator(settings))
        self.process = self._start()
        self._stack.callback(self._end)
        self._stack.callback(self._calls.shutdown)
        wait_until(self._ports)
        ports = self._ports()
        self._http_url = f"http://127.0.0.1:{ports['http_port']}"
        self.address = f"127.0.0.1:{ports['grpc_port']}"
        self.client = self._stack.enter_context(KeyBrokerClient(self.address, retries=0))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def unwrapped(self) -> list[bytes]:
        """Every key that reached the emulator, once, however often it was sent."""
        return list(self._unwrapped)

    def residues(self) -> dict[str, set[int]]:
        """What of those keys is in the broker's memory, which stands still meanwhile."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            wait_until(lambda: os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT))
            return residues(self.process.pid, self.unwrapped)
        finally:
            self.process.send_signal(signal.SIGCONT)

    def get(self, path: str) -> str:
        """What the broker's HTTP port answers."""
        with urllib.request.urlopen(self._http_url + path, timeout=PATIENCE_SECONDS) as reply:
            text: str = reply.read().decode()
        return text

    def new_keys(self, count: int, *, specs: Sequence[str] = SPECS) -> list[str]:
        """CMKs of these specs by turns."""
        return [self.emulator.create_key(key_spec=specs[number % len(specs)]) for number in range(count)]

    def imports(self, key_ids: Sequence[str], *, seconds: float = 20.0) -> list[Future[Any]]:
        """Starts imports by both algorithms, 20 at a time."""
        return [
            self._calls.submit(
                self.client.import_external_key,
                key_id=key_id,
                wrapping_algorithm=ALGORITHMS[number % len(ALGORITHMS)],
                timeout_seconds=seconds,
            )
            for number, key_id in enumerate(key_ids)
        ]

    def wait_until_idle(self) -> None:
        """Returns when no import is worked on."""
        wait_until(self._is_idle)

    def core_image(self) -> Path:
        """A core image of the running broker, by gcore."""
        path = self._folder / "image"
        subprocess.run(
            ["gcore", "-o", str(path), str(self.process.pid)], check=True, capture_output=True, timeout=PATIENCE_SECONDS
        )
        return self._folder / f"image.{self.process.pid}"

    def _ledger_key(self) -> Path:
        path = self._folder / "ledger.key"
        path.touch(0o600)
        path.write_text(base64.b64encode(bytes(range(32))).decode())
        return path

    def _start(self) -> subprocess.Popen[bytes]:
        settings = broker_settings(self.emulator, **self._sections)
        config = self._folder / "keybroker.yaml"
        config.write_text(yaml.safe_dump(settings.model_dump(mode="json")))
        credentials = {
            "ALIBABA_CLOUD_ACCESS_KEY_ID": ACCESS_KEY_ID,
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET": ACCESS_KEY_SECRET,
        }
        with (self._folder / "log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.residue.broker", str(config), *self._options],
                cwd=self._folder,
                env=os.environ | credentials | {"PYTHONPATH": str(ROOT)},
                stderr=log,
            )

    def _ports(self) -> dict[str, Any]:
        log = (self._folder / "log").read_text()
        assert self.process.poll() is None, log
        entries = [json.loads(line) for line in log.splitlines() if line.endswith("}")]
        return next((entry for entry in entries if entry["event"] == "serving"), {})

    def _is_idle(self) -> bool:
        return re.search(r"^keybroker_imports_in_flight 0\.0$", self.get("/metrics"), re.MULTILINE) is not None

    def _end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

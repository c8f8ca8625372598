"""The processes of a benchmark: emulator, broker, contenders. Each is ended by its own id, whatever happens."""

import base64
import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.benchmarks.floor import ACCESS_KEY_ID, ACCESS_KEY_SECRET, DKMS_INSTANCE_ID, REGION

RSA_KEY_POOL = 8
START_SECONDS = 30.0
STOP_SECONDS = 15.0
_BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]


class ProcessError(Exception):
    """A process of the benchmark did not start or ended early."""


def cpu_seconds(pid: int) -> float:
    """User and system CPU time of a process with all threads it ever had, to the nanosecond (Linux).

    The clock id is what clock_getcpuclockid(3) makes of a process id; /proc/PID/stat counts in ticks of 10 ms.
    """
    return time.clock_gettime((~pid << 3) | 2)


@contextmanager
def emulator(log: Path) -> Iterator[tuple[str, int]]:
    """`kms-emulator` with a pool of RSA key pairs: its endpoint and process id. Its request log goes to `log`."""
    command = [_BIN / "kms-emulator", "--port", "0", "--rsa-key-pool", str(RSA_KEY_POOL)]
    account = ["--region", REGION, "--dkms-instance", DKMS_INSTANCE_ID]
    key = ["--access-key-id", ACCESS_KEY_ID, "--access-key-secret", ACCESS_KEY_SECRET]
    announced = log.with_suffix(".out")
    with _process([*command, *account, *key], stdout=announced, stderr=log) as process:
        yield _awaited(process, announced, r"KMS emulator \S+ at (\S+)"), process.pid


@contextmanager
def broker(endpoint: str, folder: Path, *, on_disk: bool = False) -> Iterator[tuple[str, int]]:
    """`keybroker serve` with a configuration file and credentials by environment: its gRPC address and process id.

    `on_disk`: with ledger, mark and audit log in files, and receipts, as in production.
    """
    folder.mkdir(exist_ok=True)
    instance = {"region": REGION, "endpoint": endpoint, "dkms_instance_id": DKMS_INSTANCE_ID, "allow_emulator": True}
    settings = {
        "server": {"grpc_address": "127.0.0.1:0", "http_address": "127.0.0.1:0"},
        "kms": {"default_instance": "main", "instances": {"main": instance}, "pacing": {"enabled": False}},
    }
    if on_disk:
        settings |= _in_files(folder)
    config, log = folder / "keybroker.yaml", folder / "keybroker.log"
    config.write_text(yaml.safe_dump(settings))
    credentials = {"ALIBABA_CLOUD_ACCESS_KEY_ID": ACCESS_KEY_ID, "ALIBABA_CLOUD_ACCESS_KEY_SECRET": ACCESS_KEY_SECRET}
    command = [_BIN / "keybroker", "serve", "--config", config]
    with _process(command, stdout=folder / "keybroker.out", stderr=log, environ=credentials) as process:
        port = _awaited(process, log, r'"grpc_port": (\d+)')
        yield f"127.0.0.1:{port}", process.pid


def _in_files(folder: Path) -> dict[str, dict[str, str]]:
    ledger_key, receipt_key = folder / "ledger.key", folder / "receipt.pem"
    ledger_key.write_bytes(base64.b64encode(secrets.token_bytes(32)))
    pem = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    receipt_key.write_bytes(Ed25519PrivateKey.generate().private_bytes(*pem))
    for key in (ledger_key, receipt_key):
        key.chmod(0o600)
    ledger = {"file": folder / "ledger.db", "mark_file": folder / "mark", "key_file": ledger_key}
    return {
        "ledger": {name: str(path) for name, path in ledger.items()},
        "audit": {"file": str(folder / "audit.jsonl")},
        "receipts": {"key_file": str(receipt_key)},
    }


class Contender:
    """A running tests.benchmarks.contender."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, key_ids: list[str], concurrency: int) -> dict[str, Any]:
        """Has it import the CMKs; what it says."""
        if self._process.stdin is None or self._process.stdout is None:
            raise ProcessError("a contender without pipes")
        try:
            self._process.stdin.write(json.dumps({"key_ids": key_ids, "concurrency": concurrency}) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise ProcessError(f"a contender failed: {self._process.args!r}, see its error above")
        return json.loads(answer)


@contextmanager
def contender(name: str, address: str) -> Iterator[Contender]:
    """Starts one contender against the broker's address or the emulator's endpoint."""
    with conversation(["tests.benchmarks.contender", name, address]) as process:
        yield Contender(process)


@contextmanager
def conversation(module: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A module of the benchmarks, with its arguments, as a process that reads and answers lines."""
    process = subprocess.Popen(
        [sys.executable, "-m", *module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=_environment(),
    )
    try:
        yield process
    finally:
        _end(process)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


@contextmanager
def _process(
    command: list[str | Path], *, stdout: Path, stderr: Path, environ: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    with (
        stdout.open("wb") as out,
        stderr.open("wb") as err,
        subprocess.Popen(command, stdout=out, stderr=err, cwd=ROOT, env=_environment() | (environ or {})) as process,
    ):
        try:
            yield process
        finally:
            _end(process)


def _end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _awaited(process: subprocess.Popen[bytes], file: Path, pattern: str) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(pattern, file.read_text())
        if found:
            return found[1]
        time.sleep(0.02)
    raise ProcessError(f"{process.args!r} does not start: {file.read_text()}")


def _environment() -> dict[str, str]:
    """This process's, without what would lead a client through a proxy or configure the broker."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.upper().startswith(("KEYBROKER__", "ALIBABA_CLOUD_"))
    }

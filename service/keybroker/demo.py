"""`keybroker demo`: an embedded KMS, a broker and a client on this machine; every step of an import, shown.

Imports one key of each size, then walks the seed's path with OpenSSL: parameters, random bytes, wrapping, import. At
the end it shows what is left for later: a receipt that is verified without the broker, and the audit log.
"""

import base64
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from keybroker import __version__
from keybroker.app import App
from keybroker.background import BackgroundApp
from keybroker.domain.key_check_value import key_check_value
from keybroker.embedded import embedded_credentials, embedded_emulator, embedded_settings
from keybroker.telemetry.logs import configure_logs
from keybroker_client import KeyBrokerClient
from keymaterial.v1 import types_pb2
from kms_emulator import Emulator

_SIZES = {
    "AES-128": types_pb2.KEY_SPEC_AES_128,
    "AES-192": types_pb2.KEY_SPEC_AES_192,
    "AES-256": types_pb2.KEY_SPEC_AES_256,
}
_STATES = {
    types_pb2.KEY_STATE_PENDING_IMPORT: "PendingImport",
    types_pb2.KEY_STATE_ENABLED: "Enabled",
}
_SHOWN_CLAIMS = ("result", "key id", "length", "check value", "entropy", "evidence")
_SHOWN_METRICS = ("keybroker_import_duration_seconds_count", "keybroker_import_duration_seconds_sum")


def demo() -> int:
    """Runs the demo; returns 0 when every CMK is Enabled with the material that was meant for it."""
    configure_logs("ERROR")
    print(f"keybroker {__version__} demo: an embedded Dedicated KMS and a broker on this machine; no cloud account.\n")
    with embedded_emulator(port=0) as emulator, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _run(folder, "openssl genpkey -algorithm ed25519 -out receipt-key.pem")
        settings = embedded_settings(
            emulator,
            grpc_address="127.0.0.1:0",
            http_address="127.0.0.1:0",
            log_level="ERROR",
            sections={
                "audit": {"file": folder / "audit.jsonl"},
                "receipts": {"key_file": folder / "receipt-key.pem"},
            },
        )
        app = App(settings, credentials=embedded_credentials)
        with BackgroundApp(app) as broker, KeyBrokerClient(broker.grpc_address) as client:
            show = _Show(emulator, client, folder)
            good = [show.import_generated(name, spec) for name, spec in _SIZES.items()]
            good.append(show.import_with_openssl())
            _print_metrics(broker.http_url)
        _print_proofs(folder)
    if not all(good):
        print("Something is wrong: see above.", file=sys.stderr)
        return 1
    print(f"{len(good)} CMKs are Enabled, each with the material that was made for it.")
    return 0


class _Show:
    """Does an import and prints what happened, with the calls that the KMS saw."""

    def __init__(self, emulator: Emulator, client: KeyBrokerClient, folder: Path) -> None:
        self._emulator = emulator
        self._client = client
        self._folder = folder
        self._step = 0

    def import_generated(self, name: str, spec: types_pb2.KeySpec) -> bool:
        self._head(f"ImportExternalKey: a new {name} CMK, material generated and wrapped by the broker")
        created = self._client.create_external_key(new_key=types_pb2.NewKey(key_spec=spec))
        answer = self._client.import_external_key(key_id=created.key.key_id)
        (self._folder / "receipt.jws").write_text(answer.receipt, encoding="ascii")
        check_value = f"cmac-aes:{answer.key_check_value.value.hex()}"
        self._foot(created.key.state, answer.key)
        return self._compare(answer.key.key_id, check_value)

    def import_with_openssl(self) -> bool:
        self._head("ImportWrappedKeyMaterial: an AES-256 CMK, material generated and wrapped by OpenSSL")
        created = self._client.create_external_key(new_key=types_pb2.NewKey(key_spec=types_pb2.KEY_SPEC_AES_256))
        key_id = created.key.key_id
        parameters = self._client.get_import_parameters(
            key_id=key_id, wrapping_algorithm=types_pb2.WRAPPING_ALGORITHM_RSAES_PKCS1_V1_5
        )
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "PublicKey.bin").write_bytes(parameters.wrapping_public_key)
            _show(folder, "openssl rand -out KeyMaterial.bin 32")
            _show(
                folder,
                "openssl pkeyutl -encrypt -in KeyMaterial.bin -pubin -inkey PublicKey.bin -keyform DER "
                "-out EncryptedKeyMaterial.bin",
            )
            check_value = str(key_check_value((folder / "KeyMaterial.bin").read_bytes()))
            wrapped = (folder / "EncryptedKeyMaterial.bin").read_bytes()
        print(f"   wrapped      {base64.b64encode(wrapped[:12]).decode()}… ({len(wrapped)} bytes)")
        answer = self._client.import_wrapped_key_material(
            key_id=key_id, wrapped_key_material=wrapped, import_token=parameters.import_token
        )
        self._foot(created.key.state, answer.key)
        return self._compare(key_id, check_value)

    def _head(self, title: str) -> None:
        self._step += 1
        self._emulator.reset_calls()
        print(f"{self._step}  {title}")

    def _foot(self, state_before: types_pb2.KeyState, key: types_pb2.ExternalKey) -> None:
        calls = [operation for operation, _, _ in self._emulator.call_log]
        print(f"   KMS calls    {' → '.join(calls)}")
        print(f"   CMK          {key.key_id}: {_STATES.get(state_before, '?')} → {_STATES.get(key.state, '?')}")

    def _compare(self, key_id: str, check_value: str) -> bool:
        bound = self._emulator.bound_material(key_id)
        same = bound is not None and str(key_check_value(bound)) == check_value
        same = same and self._emulator.key_state(key_id) == "Enabled"
        print(f"   check value  {check_value} ({'the same' if same else 'NOT the same'} in the KMS)\n")
        return same


def _show(folder: Path, command: str, *, into: str = "") -> str:
    """Runs it, and prints it as one would type it; with its output written `into` a file."""
    print(f"   $ {command} > {into}" if into else f"   $ {command}")
    output = _run(folder, command)
    if into:
        (folder / into).write_text(output, encoding="utf-8")
    return output


def _run(folder: Path, command: str) -> str:
    """What it prints. `keybroker` and `kbctl` are this installation's."""
    program, *arguments = command.split()
    start = [sys.executable, "-m", program] if program in {"keybroker", "kbctl"} else [program]
    return subprocess.run([*start, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout  # noqa: S603


def _print_proofs(folder: Path) -> None:
    """CalledProcessError: one of them does not hold."""
    print("Afterwards, without the broker: the receipt of the last import that it generated, and its audit log")
    _show(folder, "keybroker receipt jwks --key receipt-key.pem", into="keys.json")
    for line in _show(folder, "kbctl receipt verify --jwks keys.json receipt.jws").splitlines():
        if line.startswith(_SHOWN_CLAIMS):
            print(f"   {line}")
    for line in _show(folder, "keybroker audit verify audit.jsonl").splitlines():
        print(f"   {line}")
    print()


def _print_metrics(http_url: str) -> None:
    print(f"Metrics, from {http_url}/metrics")
    with urllib.request.urlopen(f"{http_url}/metrics", timeout=5) as reply:  # noqa: S310  # our own loopback port
        for line in reply.read().decode().splitlines():
            if line.startswith(_SHOWN_METRICS):
                print(f"   {line}")
    print()

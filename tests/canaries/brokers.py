"""The broker as a process, configured with a secret in every place that can hold one."""

import base64
import json
import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from keymaterial.v1 import key_broker_service_pb2 as pb
from kms_emulator import AccessKey
from tests.canaries.planted import INSTANCE_ID, Planted
from tests.certificates import Authority, Issuer
from tests.integration.test_pkcs11_entropy import LABEL, MODULES

SERVICE = pb.DESCRIPTOR.services_by_name["KeyBrokerService"]
CALLER = "system:serviceaccount:payments:importer"
_PATIENCE_SECONDS = 30.0
_POLL_SECONDS = 0.02


class Estate:
    """The folder with all files of a broker, and who may call it."""

    def __init__(self, folder: Path, planted: Planted) -> None:
        self.folder = folder
        self.planted = planted
        self.authority = Authority()
        self.issuer = Issuer()
        self.pin = planted.text("PIN")
        self.access_key = AccessKey("LTAIenvironment", planted.text("access-key secret"), planted.text("STS token"))
        self.uri_key = AccessKey("STS.uri", planted.text("access-key secret"), planted.text("STS token"))
        self.uri_path = planted.text("path of the credentials URI")
        self.file_secret = planted.text("access-key secret")
        self.proxy_password = planted.text("proxy password")
        self._write_files()

    def path(self, name: str) -> str:
        """Of a file or folder of the estate."""
        return str(self.folder / name)

    def write(self, name: str, content: bytes) -> str:
        """A file that nobody else reads."""
        path = self.folder / name
        fresh = path.with_suffix(".fresh")
        fresh.touch(0o600)
        fresh.write_bytes(content)
        fresh.replace(path)
        return str(path)

    def write_policy(self) -> None:
        """Who calls may do everything."""
        principal = f"jwt:{self.issuer.url}#{CALLER}"
        rules = [
            {
                "name": "payments",
                "callers": [principal],
                "rpcs": [method.name for method in SERVICE.methods],
                "keys": ["*"],
                "may_create": True,
                "may_delete": True,
                "new_keys": {"aliases": ["alias/*"], "tags": {"team": ["*"]}},
                "wrapping_algorithms": ["RSAES_OAEP_SHA_256", "RSAES_PKCS1_V1_5"],
            }
        ]
        self.write("policy.yaml", yaml.safe_dump({"rules": rules}).encode())

    def configuration(self, endpoint: str, credentials_url: str) -> dict[str, Any]:
        """Three instances: credentials from the environment, from a URI, and from files behind a proxy."""
        identity = {"issuer": self.issuer.url, "audience": self.issuer.audience, "jwks_file": self.path("jwks.json")}
        return {
            "server": {
                "grpc_address": "127.0.0.1:0",
                "http_address": "127.0.0.1:0",
                "tls": {"certificate_file": self.path("tls.crt"), "private_key_file": self.path("tls.key")},
                "identity": {"jwt": identity},
                "reflection": True,
            },
            "policy": {"file": self.path("policy.yaml")},
            "kms": {
                "default_instance": "main",
                "instances": {
                    "main": _instance(endpoint),
                    "by-uri": _instance(endpoint, credentials={"uri": {"uri": f"{credentials_url}/{self.uri_path}"}}),
                    "by-proxy": _instance(
                        "https://kms.example",
                        proxy=f"http://user:{self.proxy_password}@127.0.0.1:9",
                        credentials={
                            "files": {
                                "access_key_id_file": self.path("access-key-id"),
                                "access_key_secret_file": self.path("access-key-secret"),
                            }
                        },
                    ),
                },
                "pacing": {"enabled": False},
            },
            "imports": {"prove": True, "create_settle_seconds": 0.2},
            "ledger": {
                "file": self.path("ledger/ledger.db"),
                "mark_file": self.path("mark/mark"),
                "key_file": self.path("ledger.key"),
            },
            "audit": {"file": self.path("audit/audit.log"), "stdout": True},
            "receipts": {"key_file": self.path("receipt.key")},
            "entropy": {
                "source": "pkcs11",
                "pkcs11": {
                    "module_file": str(next(path for path in MODULES if path.exists())),
                    "token_label": LABEL,
                    "pin_file": self.path("pin"),
                },
            },
            "logs": {"level": "DEBUG"},
        }

    def environment(self) -> dict[str, str]:
        """The variables of the process."""
        return {
            "ALIBABA_CLOUD_ACCESS_KEY_ID": self.access_key.access_key_id,
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET": self.access_key.access_key_secret,
            "ALIBABA_CLOUD_SECURITY_TOKEN": self.access_key.security_token,
            "SOFTHSM2_CONF": self.path("softhsm2.conf"),
        }

    def make_token(self) -> None:
        """An HSM's token with the PIN."""
        command = [
            "softhsm2-util",
            "--init-token",
            "--free",
            "--label",
            LABEL,
            "--pin",
            self.pin,
            "--so-pin",
            "31415926",
        ]
        subprocess.run(command, check=True, capture_output=True, env=os.environ | self.environment())

    def _write_files(self) -> None:
        for name in ("ledger", "mark", "audit", "tokens"):
            (self.folder / name).mkdir()
        server = self.authority.issue(dns_names=("localhost",))
        self.write("tls.crt", server.chain)
        self.write("tls.key", self.planted.private_key("TLS key", server.private_key))
        self.write("jwks.json", self.issuer.jwks())
        self.write_policy()
        self.write("access-key-id", b"LTAIfiles")
        self.write("access-key-secret", self.file_secret.encode())
        self.write("ledger.key", base64.b64encode(self.planted.binary("ledger key", secrets.token_bytes(32))))
        self.write("pin", self.pin.encode())
        tokens = f"directories.tokendir = {self.folder / 'tokens'}\nobjectstore.backend = file\n"
        self.write("softhsm2.conf", tokens.encode())
        signing = Ed25519PrivateKey.generate()
        self.planted.binary("receipt key", signing.private_bytes_raw())
        self.write("receipt.key", signing.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _instance(endpoint: str, **changes: Any) -> dict[str, Any]:
    instance = {"region": "cn-hangzhou", "endpoint": endpoint, "dkms_instance_id": INSTANCE_ID, "allow_emulator": True}
    return instance | changes


def wait_until(condition: Callable[[], bool]) -> None:
    """Returns when it holds."""
    ends_at = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < ends_at, "waited in vain"
        time.sleep(_POLL_SECONDS)


class BrokerProcess:
    """`keybroker serve`; its output goes to files of this name."""

    def __init__(self, estate: Estate, name: str, configuration: Mapping[str, Any]) -> None:
        self._stderr = estate.folder / f"{name}.stderr"
        self._stdout = estate.folder / f"{name}.stdout"
        config = estate.write("keybroker.yaml", yaml.safe_dump(configuration).encode())
        with self._stderr.open("wb") as stderr, self._stdout.open("wb") as stdout:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "keybroker", "serve", "--config", config],
                env=os.environ | estate.environment(),
                stderr=stderr,
                stdout=stdout,
            )

    def wait_until_serving(self) -> None:
        """Raises with its log if it does not."""
        wait_until(lambda: self._said("serving"))
        (serving,) = self.logged("serving")
        self.address = f"localhost:{serving['grpc_port']}"
        self._http_url = f"http://127.0.0.1:{serving['http_port']}"

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The lines of this event."""
        lines = [json.loads(line) for line in self._stderr.read_bytes().splitlines() if line.endswith(b"}")]
        return [line for line in lines if line["event"] == event]

    def _said(self, event: str) -> bool:
        assert self.process.poll() is None, self._stderr.read_text()
        return bool(self.logged(event))

    def get(self, path: str, **headers: str) -> bytes:
        """What the HTTP port answers, headers and all."""
        request = urllib.request.Request(self._http_url + path, headers=headers)
        try:
            reply = urllib.request.urlopen(request, timeout=_PATIENCE_SECONDS)
        except urllib.error.HTTPError as error:
            reply = error
        with reply:
            return bytes(reply.headers) + bytes(reply.read())

    def stderr(self) -> bytes:
        """All of it by now."""
        return self._stderr.read_bytes()

    def stdout(self) -> bytes:
        """All of it by now."""
        return self._stdout.read_bytes()


@contextmanager
def running(estate: Estate, name: str, configuration: Mapping[str, Any]) -> Iterator[BrokerProcess]:
    """A broker that serves; it is killed at the end if it has not ended by itself."""
    broker = BrokerProcess(estate, name, configuration)
    try:
        broker.wait_until_serving()
        yield broker
    finally:
        if broker.process.poll() is None:
            broker.process.kill()
        broker.process.wait()

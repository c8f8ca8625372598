"""The image as it is built here, run by podman without capabilities and with nothing to write to.

The bases are of mmdebstrap instead of a registry; the rest is the Dockerfile that everybody builds.
"""

import base64
import json
import os
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from keybroker import __version__
from keybroker_client import KeyBrokerClient, KeyBrokerError
from keymaterial.v1 import types_pb2
from kms_emulator import Emulator, EmulatorSettings
from tests.certificates import Authority, Certificate
from tests.deploy.containers import Containers, wait_for
from tests.deploy.manifests import ROOT, Tree, render

pytestmark = [pytest.mark.xdist_group("image"), pytest.mark.timeout(600)]

PRODUCTION = f"localhost/keybroker:{__version__}"
DEV = f"localhost/keybroker-dev:{__version__}"
PYTHON = "/opt/keybroker/bin/python"
CALLER = "spiffe://example.org/ns/payments/sa/importer"
POLICY: Tree = {"rules": [{"name": "a", "callers": [f"x509:{CALLER}"], "rpcs": "*", "keys": ["*"], "may_create": True}]}
NEW_KEY = types_pb2.NewKey(key_spec=types_pb2.KEY_SPEC_AES_256)


@pytest.fixture(scope="module")
def containers() -> Iterator[Containers]:
    with Containers() as containers:
        containers.build(PRODUCTION, "production")
        containers.build(DEV, "dev")
        yield containers


def test_dockerfile_has_no_hadolint_finding() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    command = [str(hadolint), str(ROOT / "deploy/docker/Dockerfile")]
    answer = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (answer.returncode, answer.stdout) == (0, "")


def test_production_image_has_neither_emulator_nor_installer(containers: Containers) -> None:
    for module in ("kms_emulator", "pip", "setuptools", "hatchling"):
        answer = containers.run(PRODUCTION, "-c", f"import {module}", options=("--rm", f"--entrypoint={PYTHON}"))
        assert f"ModuleNotFoundError: No module named '{module}'" in answer.stderr
    control = containers.run(DEV, "-c", "import kms_emulator", options=("--rm", f"--entrypoint={PYTHON}"))
    assert control.returncode == 0, control.stderr
    answer = containers.run(PRODUCTION, "serve", "--emulator", options=("--rm",))
    assert answer.returncode == 2
    assert "emulator is not part of this installation" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_image_runs_as_nobody_and_owns_nothing(containers: Containers) -> None:
    code = (
        "import os, pathlib, sys; print(os.getuid(), os.getgid(), sys.flags.safe_path,"
        " [str(path) for path in pathlib.Path('/opt').rglob('*') if os.access(path, os.W_OK)])"
    )
    answer = containers.run(PRODUCTION, "-c", code, options=("--rm", f"--entrypoint={PYTHON}"))
    assert answer.stdout == "65532 65532 True []\n"
    config = containers.inspect(PRODUCTION)["Config"]
    assert (config["User"], config["Entrypoint"]) == ("65532:65532", ["/opt/keybroker/bin/keybroker"])


class BrokerFiles:
    """Configuration, policy and certificates for a broker in a container, before an emulator outside it."""

    def __init__(self, folder: Path, emulator: Emulator) -> None:
        self.folder = folder
        self.authority = Authority()
        server = self.authority.issue(dns_names=("localhost",))
        instance = {
            "region": emulator.settings.region,
            "endpoint": emulator.endpoint,
            "dkms_instance_id": emulator.settings.dkms_instance_ids[0],
            "allow_emulator": True,
        }
        settings = {
            "server": {
                "grpc_address": "0.0.0.0:0",
                "http_address": "0.0.0.0:0",
                "tls": {"certificate_file": "/files/tls.crt", "private_key_file": "/files/tls.key"},
                "identity": {"mtls": {"client_ca_file": "/files/ca.crt"}},
            },
            "policy": {"file": "/files/policy.yaml"},
            "kms": {"default_instance": "main", "instances": {"main": instance}},
            "hardening": {"require_memory_lock": True},
        }
        folder.chmod(0o755)
        for name, content in {
            "tls.crt": server.chain,
            "tls.key": server.private_key,
            "ca.crt": self.authority.pem,
            "keybroker.yaml": yaml.safe_dump(settings).encode(),
            "policy.yaml": yaml.safe_dump(POLICY).encode(),
        }.items():
            (folder / name).write_bytes(content)

    def options(self, emulator: Emulator) -> tuple[str, ...]:
        key = emulator.settings.access_keys[0]
        return (
            f"--volume={self.folder}:/files:ro",
            f"--env=ALIBABA_CLOUD_ACCESS_KEY_ID={key.access_key_id}",
            f"--env=ALIBABA_CLOUD_ACCESS_KEY_SECRET={key.access_key_secret}",
        )

    def client(self, port: int, certificate: Certificate) -> KeyBrokerClient:
        credentials = grpc.ssl_channel_credentials(self.authority.pem, certificate.private_key, certificate.chain)
        return KeyBrokerClient(f"localhost:{port}", credentials=credentials)


def test_container_imports_over_mtls_from_an_emulator_outside(
    containers: Containers, tmp_path: Path, record_property: Any
) -> None:
    with Emulator(EmulatorSettings()) as emulator:
        files = BrokerFiles(tmp_path, emulator)
        options = ("--detach", "--name=broker", "--network=host", *files.options(emulator))
        asked_at = datetime.now(UTC)
        containers.run(PRODUCTION, "serve", "--config", "/files/keybroker.yaml", options=options)
        serving = wait_for(lambda: [entry for entry in containers.log("broker") if entry["event"] == "serving"])[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{serving['http_port']}/readyz", timeout=5) as reply:
            told = json.load(reply)["hardening"]
        assert (told["memory_locked"], told["memory_excluded_from_dumps"], told["dumps_off"]) == (True, True, True)
        seconds = (datetime.fromisoformat(serving["time"]) - asked_at).total_seconds()

        with files.client(serving["grpc_port"], files.authority.issue(uris=(CALLER,))) as client:
            key = client.import_external_key(new_key=NEW_KEY).key
        assert emulator.key_state(key.key_id) == "Enabled"
        stranger = files.authority.issue(uris=("spiffe://example.org/ns/other/sa/importer",))
        with files.client(serving["grpc_port"], stranger) as client, pytest.raises(KeyBrokerError):
            client.import_external_key(new_key=NEW_KEY)
        with (
            files.client(serving["grpc_port"], Authority("other").issue(uris=(CALLER,))) as client,
            pytest.raises(KeyBrokerError),
        ):
            client.import_external_key(new_key=NEW_KEY, timeout_seconds=2)
        assert emulator.calls["ImportKeyMaterial"] == 1

        containers.podman("stop", "--time=30", "broker")
        assert containers.inspect("broker")["State"]["ExitCode"] == 0
        containers.podman("rm", "broker")

    megabytes = containers.inspect(PRODUCTION)["Size"] / 1e6
    record_property("size of the image", f"{megabytes:.0f} MB, of which Debian and Python {_base(containers):.0f} MB")
    record_property("from podman run to serving", f"{seconds:.2f} s")
    assert megabytes < 260
    assert seconds < 10


def _base(containers: Containers) -> float:
    return float(containers.inspect("localhost/keybroker-base:bookworm")["Size"]) / 1e6


def for_podman(objects: list[Tree], ledger_key: Path) -> list[Tree]:
    """What podman 4.3.1 needs otherwise; all else of the overlay is given to it as it is.

    It writes a Secret's base64 text undecoded, so the emulator's access key comes as a ConfigMap. It makes that
    readable by all, which keybroker refuses of the ledger's key, so `ledger_key` is a folder with it, which is made
    here. It maps ports only with a bridge, which would leave rules in the host's firewall, so there is no network but
    loopback and no ports.
    """
    for item in objects:
        if item["kind"] == "Secret" and "key" in item["data"]:
            ledger_key.mkdir(mode=0o755)
            file = ledger_key / "key"
            file.write_bytes(base64.b64decode(item["data"]["key"]))
            file.chmod(0o440)
            os.chown(file, 0, 65532)
        if item["kind"] == "Secret":
            item["kind"] = "ConfigMap"
            item["data"] = {name: base64.b64decode(value).decode() for name, value in item["data"].items()}
        if item["kind"] == "Deployment":
            pod = item["spec"]["template"]["spec"]
            for container in pod["containers"]:
                container.pop("ports", None)
            for volume in pod["volumes"]:
                if volume["name"] == "ledger-key":
                    volume["hostPath"] = {"path": str(ledger_key), "type": "Directory"}
                    del volume["secret"]
                elif "secret" in volume:
                    volume["configMap"] = {"name": volume.pop("secret")["secretName"]}
    return objects


IMPORT = ("--output", "json", "import", "--new-key", "--spec", "aes-256", "--request-id")
REQUEST = "7f3f8a52-4c0e-4a53-9a55-0d6a4f0c6b11"


def test_podman_plays_the_dev_overlay_and_a_killed_broker_comes_back_with_its_ledger(
    containers: Containers, tmp_path: Path, record_property: Any
) -> None:
    manifest = tmp_path / "dev.yaml"
    manifest.write_text(yaml.safe_dump_all(for_podman(render("dev"), tmp_path / "ledger-key")))
    containers.podman("play", "kube", "--network=none", str(manifest))
    names = containers.podman("ps", "--format={{.Names}}").stdout.split()
    (broker,) = [name for name in names if name.endswith("-keybroker")]
    wait_for(lambda: _kbctl(containers, broker, "health").returncode == 0)
    first = _kbctl(containers, broker, *IMPORT, REQUEST)
    assert first.returncode == 0, first.stderr
    imported = json.loads(first.stdout)

    state = containers.inspect(broker)
    host = state["HostConfig"]
    assert (host["ReadonlyRootfs"], host["Memory"], host["RestartPolicy"]["Name"]) == (True, 512 << 20, "always")
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{state['State']['Pid']}/status").read_text().splitlines()
    )
    assert (status["NoNewPrivs"], int(status["CapBnd"], 16), status["Uid"].split()[0]) == ("1", 0, "65532")
    assert status["Seccomp"] == "2"

    os.kill(state["State"]["Pid"], signal.SIGKILL)
    wait_for(lambda: containers.inspect(broker)["RestartCount"] == 1)
    wait_for(lambda: _kbctl(containers, broker, "health").returncode == 0)
    again = json.loads(_kbctl(containers, broker, *IMPORT, REQUEST).stdout)
    assert (imported["replayed"], again["replayed"]) == (False, True)
    assert again | {"replayed": False} == imported
    second = _kbctl(containers, broker, "import", "--new-key", "--spec", "aes-128")
    assert second.returncode == 0, second.stderr
    assert _request_ids_in(_copy_as_documented(containers, broker), tmp_path).count(REQUEST) == 1
    record_property("podman play kube", containers.podman("--version").stdout.strip())
    containers.podman("pod", "rm", "--all", "--force", "--time", "0")


def _copy_as_documented(containers: Containers, name: str) -> bytes:
    """The ledger, by the command of docs/deployment.md, without its kubectl."""
    text = (ROOT / "docs/deployment.md").read_text()
    code = text.partition("deploy/keybroker -- /opt/keybroker/bin/python -c '\n")[2].partition("'")[0]
    assert "serialize" in code
    before = "import base64, io, sys\nsys.stdout = io.TextIOWrapper(io.BytesIO())"
    after = "print(base64.b64encode(sys.stdout.buffer.getvalue()).decode(), file=sys.__stdout__)"
    code = f"{before}\n{code}\n{after}"  # podman() gives text
    return base64.b64decode(containers.podman("exec", name, PYTHON, "-c", code).stdout)


def _request_ids_in(copy: bytes, folder: Path) -> list[str]:
    file = folder / "copy.db"
    file.write_bytes(copy)
    with closing(sqlite3.connect(file)) as ledger:
        assert ledger.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [request_id for (request_id,) in ledger.execute("SELECT request_id FROM attempts")]


def _kbctl(containers: Containers, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return containers.podman("exec", name, "kbctl", *arguments, check=False)

"""A real broker before an emulated KMS on loopback, one for each module: examples come in hundreds."""

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import pytest_socket
import structlog
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from keybroker.adapters.kms.credentials import Credentials
from keybroker.app import App
from keybroker.background import BackgroundApp
from keymaterial.v1 import key_broker_service_pb2 as pb
from keymaterial.v1.key_broker_service_pb2_grpc import KeyBrokerServiceStub
from kms_emulator import AccessKey, Emulator, EmulatorSettings
from tests.certificates import Issuer
from tests.integration.conftest import ACCESS_KEY_ID, ACCESS_KEY_SECRET, broker_settings

if TYPE_CHECKING:
    from pathlib import Path

SUBJECT = "system:serviceaccount:payments:importer"


class Target:
    """A broker that is fuzzed, and the hands to see how it is afterwards."""

    def __init__(self, address: str, emulator: Emulator, log: list[Any]) -> None:
        self.emulator = emulator
        self.log = log
        self.channel = grpc.insecure_channel(address)
        self.known_key = emulator.create_key()
        self._health = health_pb2_grpc.HealthStub(self.channel)
        self.stub = KeyBrokerServiceStub(self.channel)

    def is_well(self, token: str = "") -> bool:
        """It serves health and a good call, and has met nothing that nobody foresaw."""
        health = self._health.Check(health_pb2.HealthCheckRequest(), timeout=20)
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        answer = self.stub.DescribeKey(pb.DescribeKeyRequest(key_id=self.known_key), timeout=20, metadata=metadata)
        unforeseen = [line for line in self.log if line["event"] == "unforeseen" or line.get("exceptions")]
        assert unforeseen == []
        return bool(health.status == health_pb2.HealthCheckResponse.SERVING and answer.key.key_id == self.known_key)


def _running(**sections: Any) -> Iterator[Target]:
    logging.getLogger("urllib3").setLevel(logging.CRITICAL + 1)
    settings = EmulatorSettings(access_keys=(AccessKey(ACCESS_KEY_ID, ACCESS_KEY_SECRET),), rsa_key_pool=2)
    with structlog.testing.capture_logs() as log, Emulator(settings) as emulator:
        app = App(
            broker_settings(emulator, **sections), credentials=lambda: Credentials(ACCESS_KEY_ID, ACCESS_KEY_SECRET)
        )
        with BackgroundApp(app) as background:
            target = Target(background.grpc_address, emulator, log)
            yield target
            target.channel.close()


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    yield from _running(imports={"allow_foreign_tokens": True})


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture(scope="module")
def guarded_target(issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """One that knows callers by bearer tokens."""
    folder: Path = tmp_path_factory.mktemp("identity")
    (folder / "jwks.json").write_bytes(issuer.jwks())
    rule = {"name": "all", "callers": [f"jwt:{issuer.url}#{SUBJECT}"], "rpcs": "*", "keys": ["*"]}
    (folder / "policy.yaml").write_text(yaml.safe_dump({"rules": [rule]}))
    jwt = {"issuer": issuer.url, "audience": issuer.audience, "jwks_file": str(folder / "jwks.json")}
    yield from _running(server={"identity": {"jwt": jwt}}, policy={"file": str(folder / "policy.yaml")})


@pytest.fixture(autouse=True)
def _loopback_only() -> None:
    pytest_socket.socket_allow_hosts(["127.0.0.1", "::1"], allow_unix_socket=True)

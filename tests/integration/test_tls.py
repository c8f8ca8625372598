"""Where the broker serves: TLS, loopback, and what it refuses to do."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from keybroker.settings import ConfigurationError
from keybroker_client import KeyBrokerClient, KeyBrokerError
from kms_emulator import Emulator
from tests.integration.conftest import RunningBroker


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    subprocess.run(
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost "
        f"-addext subjectAltName=DNS:localhost -keyout {key} -out {certificate}".split(),
        check=True,
        capture_output=True,
    )
    return certificate, key


def test_tls_serves_those_who_trust_the_certificate_only(
    emulator: Emulator, make_broker: Callable[..., RunningBroker], certificate: tuple[Path, Path]
) -> None:
    files = {"certificate_file": str(certificate[0]), "private_key_file": str(certificate[1])}
    broker = make_broker(server={"tls": files})
    target = broker.address.replace("127.0.0.1", "localhost")
    trusting = grpc.ssl_channel_credentials(certificate[0].read_bytes())
    key_id = emulator.create_key()
    with KeyBrokerClient(target, retries=0, credentials=trusting) as client:
        assert client.import_external_key(key_id=key_id).key.key_id == key_id
    with (
        KeyBrokerClient(target, retries=0, credentials=grpc.ssl_channel_credentials()) as strange,
        pytest.raises(KeyBrokerError),
    ):
        strange.describe_key(key_id=key_id, timeout_seconds=2)
    with pytest.raises(KeyBrokerError):
        broker.client.describe_key(key_id=key_id, timeout_seconds=2)


def test_address_that_others_can_reach_needs_tls(make_broker: Callable[..., RunningBroker]) -> None:
    with pytest.raises(ConfigurationError, match="no TLS"):
        make_broker(server={"grpc_address": "0.0.0.0:0"})


def test_address_taken_is_a_configuration_error(
    broker: RunningBroker, make_broker: Callable[..., RunningBroker]
) -> None:
    with pytest.raises(ConfigurationError, match="grpc_address: can't bind"):
        make_broker(server={"grpc_address": broker.address})
    with pytest.raises(ConfigurationError, match="http_address: can't bind"):
        make_broker(server={"http_address": broker.http_url.removeprefix("http://")})


def test_kms_over_plain_http_beyond_loopback_is_refused(make_broker: Callable[..., RunningBroker]) -> None:
    with pytest.raises(ConfigurationError, match=r"kms\.instances\.main.*http"):
        make_broker(instance={"endpoint": "http://kms.cn-hangzhou.aliyuncs.com"})

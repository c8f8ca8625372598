"""Where plaintext may go, which options are fixed, TLS, and what importing the package costs."""

from __future__ import annotations

import datetime as dt
import ipaddress
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import keybroker_client
from keybroker_client import UnavailableError, channel
from tests.clients.fake_broker import KEY_ID, FakeBroker

if TYPE_CHECKING:
    from tests.clients.conftest import Invoke

LOCAL = [
    "127.0.0.1:50051",
    "127.8.8.8",
    "[::1]:50051",
    "::1",
    "localhost:50051",
    "dns:localhost:50051",
    "dns:///localhost:50051",
    "ipv4:127.0.0.1:50051",
    "ipv4:127.0.0.1:1,127.0.0.2:2",
    "ipv6:[::1]:50051",
    "unix:/run/keybroker.sock",
    "unix:///run/keybroker.sock",
    "unix-abstract:keybroker",
]
REMOTE = [
    "keybroker.internal:50051",
    "10.0.0.7:50051",
    "0.0.0.0:50051",
    "[2001:db8::1]:50051",
    "localhost.example.com:50051",
    "127.0.0.1.example.com:50051",
    "127.1:50051",
    "dns:///keybroker:50051",
    "dns://127.0.0.1/keybroker:50051",
    "ipv4:127.0.0.1:1,10.0.0.7:2",
    "xds:///localhost",
    "",
]


@pytest.mark.parametrize("target", LOCAL)
def test_is_local_target_on_this_host_true(target: str) -> None:
    assert channel.is_local(target)


@pytest.mark.parametrize("target", REMOTE)
def test_is_local_target_elsewhere_false(target: str) -> None:
    assert not channel.is_local(target)


def test_client_without_tls_to_another_host_is_refused(invoke: Invoke) -> None:
    with pytest.raises(
        ValueError, match=r"10\.0\.0\.7:50051 is not on this host .* give credentials, or allow_insecure"
    ):
        invoke("10.0.0.7:50051", "describe_key", key_id=KEY_ID)


def test_client_without_tls_to_another_host_connects_if_allowed(invoke: Invoke) -> None:
    with pytest.raises(UnavailableError):
        invoke("ipv4:0.0.0.0:1", "describe_key", client={"allow_insecure": True, "retries": 0}, key_id=KEY_ID)


def test_service_config_of_a_caller_is_refused(invoke: Invoke) -> None:
    options = (("grpc.service_config", "{}"),)
    with pytest.raises(ValueError, match="decides what is retried"):
        invoke("127.0.0.1:1", "describe_key", client={"channel_options": options}, key_id=KEY_ID)


def test_channel_options_of_a_caller_go_before_those_of_the_client() -> None:
    merged = channel.channel_options([("grpc.keepalive_time_ms", 5000), ("grpc.primary_user_agent", "billing")])
    assert dict(merged) == dict(channel.OPTIONS) | {
        "grpc.keepalive_time_ms": 5000,
        "grpc.primary_user_agent": "billing",
    }
    assert len(merged) == len(channel.OPTIONS) + 1


def test_proxy_of_the_environment_is_not_used(
    broker: FakeBroker, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    invoke(broker.address, "describe_key", key_id=KEY_ID)
    assert broker.rpcs == ["DescribeKey"]


class Certificate(NamedTuple):
    """A self-signed server certificate and its key, in PEM."""

    certificate: bytes
    key: bytes


@pytest.fixture(scope="module")
def certificate() -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "keybroker test")])
    now = dt.datetime.now(tz=dt.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Certificate(
        signed.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def test_client_with_credentials_calls_over_tls(certificate: Certificate, invoke: Invoke) -> None:
    server = grpc.ssl_server_credentials([(certificate.key, certificate.certificate)])
    credentials = grpc.ssl_channel_credentials(root_certificates=certificate.certificate)
    with FakeBroker(credentials=server) as broker:
        invoke(broker.address, "describe_key", client={"credentials": credentials}, key_id=KEY_ID)
        assert broker.rpcs == ["DescribeKey"]


def test_client_with_other_roots_calls_nobody(certificate: Certificate, invoke: Invoke) -> None:
    server = grpc.ssl_server_credentials([(certificate.key, certificate.certificate)])
    with FakeBroker(credentials=server) as broker:
        with pytest.raises(UnavailableError):
            invoke(
                broker.address,
                "describe_key",
                client={"credentials": grpc.ssl_channel_credentials(), "retries": 0},
                key_id=KEY_ID,
            )
        assert broker.calls == []


def test_exported_names_are_pinned() -> None:
    assert keybroker_client.__all__ == [
        "AlreadyBoundError",
        "AsyncKeyBrokerClient",
        "EntropySource",
        "ExternalKey",
        "ImportEvidence",
        "ImportInProgressError",
        "InvalidArgumentError",
        "KeyBrokerClient",
        "KeyBrokerError",
        "KeyCheckValue",
        "KeyCheckValueMethod",
        "KeyOrigin",
        "KeySpec",
        "KeyState",
        "NewKey",
        "NotAllowedError",
        "NotFoundError",
        "NotImportedError",
        "ParametersSource",
        "PreconditionFailedError",
        "QuarantinedError",
        "QuotaExceededError",
        "RequestIdReusedError",
        "RequestNotFoundError",
        "RequestState",
        "ThrottledError",
        "UnattributedError",
        "UnavailableError",
        "UnresolvedError",
        "WrappingAlgorithm",
    ]
    assert all(hasattr(keybroker_client, name) for name in keybroker_client.__all__)


@pytest.mark.parametrize("package", ["keybroker_client", "kbctl.__main__"])
def test_import_pulls_in_nothing_of_the_server(package: str) -> None:
    script = f"import sys, {package}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    unwanted = {"keybroker", "kms_emulator", "requests", "cryptography", "pydantic", "yaml", "structlog"}
    assert "keybroker_client" in run.stdout.split()
    assert unwanted.isdisjoint(run.stdout.split())


def test_broker_that_comes_back_is_tried_again_soon() -> None:
    options = dict(channel.OPTIONS)
    assert options["grpc.initial_reconnect_backoff_ms"] <= options["grpc.max_reconnect_backoff_ms"] <= 2000

"""TLS 1.2 or newer, whoever is served and whoever is called.

Each refusal has its control: the same party on the other side does speak TLS 1.1, with one that takes it.
"""

import contextlib
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from keybroker.adapters.identity.jwks import UrlKeys
from keybroker.adapters.kms.credentials import CredentialsError
from keybroker.adapters.kms.credentials_http import Connection, CredentialsHttp
from keybroker.adapters.kms.transport import trust
from keybroker.domain.errors import KmsError
from keybroker_client import KeyBrokerClient, KeyBrokerError
from tests.builders import FakeClock
from tests.certificates import Authority
from tests.integration.conftest import RunningBroker
from tests.unit.adapters_kms.support import KEY_ID, client, deadline

Version = ssl.TLSVersion
TOO_OLD = "UNSUPPORTED_PROTOCOL"  # OpenSSL's reason where no version is offered that this side takes


def only(context: ssl.SSLContext, version: Version) -> ssl.SSLContext:
    """Speaks this version and no other, if it is an old one: OpenSSL lets it at security level 0 only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that the version is old is the point
        context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


@dataclass(frozen=True)
class Pki:
    """Files with a certificate for localhost, its key and its CA."""

    ca: Path
    certificate: Path
    key: Path

    def caller(self, version: Version) -> ssl.SSLContext:
        """Trusts the CA."""
        return only(ssl.create_default_context(cafile=str(self.ca)), version)


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    authority = Authority()
    leaf = authority.issue(dns_names=("localhost",))
    files = Pki(tmp_path / "ca.crt", tmp_path / "tls.crt", tmp_path / "tls.key")
    files.ca.write_bytes(authority.pem)
    files.certificate.write_bytes(leaf.chain)
    files.key.write_bytes(leaf.private_key)
    return files


class Listener:
    """Takes connections of one TLS version. `heard` has the version of each handshake, or the reason why it failed."""

    def __init__(self, pki: Pki, version: Version) -> None:
        self.heard: list[str | None] = []
        self._context = only(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), version)
        self._context.load_cert_chain(pki.certificate, pki.key)
        self._context.set_alpn_protocols(["h2", "http/1.1"])
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(timeout=10)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(5)
                self.heard.append(self._handshake(connection))

    def _handshake(self, connection: socket.socket) -> str | None:
        try:
            with self._context.wrap_socket(connection, server_side=True) as encrypted:
                return encrypted.version()
        except ssl.SSLError as error:
            return error.reason


@contextmanager
def listening(pki: Pki, version: Version) -> Iterator[Listener]:
    listener = Listener(pki, version)
    try:
        yield listener
    finally:
        listener.close()


def shake_hands(port: int, context: ssl.SSLContext) -> str | None:
    """The version that a caller with this context and the server agree on."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as connection,
        context.wrap_socket(connection, server_hostname="localhost") as encrypted,
    ):
        return encrypted.version()


# The broker as a server


def served_with(pki: Pki, make_broker: Callable[..., RunningBroker]) -> int:
    tls = {"certificate_file": str(pki.certificate), "private_key_file": str(pki.key)}
    return int(make_broker(server={"tls": tls}).address.rpartition(":")[2])


@pytest.mark.parametrize("version", [Version.TLSv1_2, Version.TLSv1_3], ids=lambda version: version.name)
def test_broker_serves_callers_of_tls_1_2_and_1_3(
    version: Version, pki: Pki, make_broker: Callable[..., RunningBroker]
) -> None:
    context = pki.caller(version)
    context.set_alpn_protocols(["h2"])
    assert shake_hands(served_with(pki, make_broker), context) == version.name.replace("_", ".")


@pytest.mark.parametrize("version", [Version.TLSv1, Version.TLSv1_1], ids=lambda version: version.name)
def test_broker_refuses_callers_of_older_tls(
    version: Version, pki: Pki, make_broker: Callable[..., RunningBroker]
) -> None:
    port, context = served_with(pki, make_broker), pki.caller(version)
    context.set_alpn_protocols(["h2"])
    with pytest.raises((ssl.SSLError, ConnectionError)):  # grpc closes the connection, without an alert
        shake_hands(port, context)
    with listening(pki, version) as listener:
        assert shake_hands(listener.port, context) == version.name.replace("_", ".")


# The broker, and its callers' library, as clients


def call_kms(pki: Pki, port: int) -> None:
    with client(f"https://localhost:{port}", ca_bundle=pki.ca) as kms, pytest.raises(KmsError):
        kms.cancel_key_deletion(KEY_ID, deadline=deadline())


def call_credentials(pki: Pki, port: int) -> None:
    connection = Connection(timeout_seconds=10.0, ca_bundle=pki.ca)
    with pytest.raises(CredentialsError):
        CredentialsHttp(f"https://localhost:{port}", connection=connection).ask("GET", "/")


def call_issuer(pki: Pki, port: int) -> None:
    url = f"https://localhost:{port}/keys"
    keys = UrlKeys(url, ca_file=pki.ca, cache_seconds=300, monotonic=FakeClock().monotonic)
    assert keys.find("1") is None


def call_broker(pki: Pki, port: int) -> None:
    credentials = grpc.ssl_channel_credentials(pki.ca.read_bytes())
    with (
        KeyBrokerClient(f"localhost:{port}", retries=0, credentials=credentials) as broker,
        pytest.raises(KeyBrokerError),
    ):
        broker.describe_key(key_id=KEY_ID, timeout_seconds=10)


CALLS = {"KMS": call_kms, "credentials": call_credentials, "issuer": call_issuer, "client library": call_broker}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("version", [Version.TLSv1_2, Version.TLSv1_3], ids=lambda version: version.name)
def test_server_of_tls_1_2_or_1_3_is_spoken_to(call: Callable[[Pki, int], None], version: Version, pki: Pki) -> None:
    with listening(pki, version) as listener:
        call(pki, listener.port)
    assert set(listener.heard) == {version.name.replace("_", ".")}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_server_of_older_tls_is_not_spoken_to(call: Callable[[Pki, int], None], pki: Pki) -> None:
    with listening(pki, Version.TLSv1_1) as listener:
        assert shake_hands(listener.port, pki.caller(Version.TLSv1_1)) == "TLSv1.1"
        while not listener.heard:  # the listener's side of it ends a moment later
            time.sleep(0.001)
        listener.heard.clear()
        call(pki, listener.port)
    assert set(listener.heard) == {TOO_OLD}


def test_context_for_the_kms_says_its_oldest_version_itself() -> None:
    """The system's configuration of OpenSSL may allow more than this."""
    assert trust(None).minimum_version is Version.TLSv1_2

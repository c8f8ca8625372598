"""Who is spoken to: endpoint policy, TLS, proxies, the process's environment, cookies, the emulator."""

import datetime as dt
import ipaddress
import socket
import ssl
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from keybroker.adapters.kms.transport import Reply, checked_endpoint
from keybroker.domain.errors import KmsError, Reason
from tests.unit.adapters_kms.support import (
    KEY_ID,
    REQUEST_ID,
    client,
    deadline,
    error_body,
    key_body,
    replies,
    reply_bytes,
    serving,
)

pytestmark = pytest.mark.usefixtures("loopback")


@pytest.mark.parametrize(
    ("endpoint", "result"),
    [
        ("https://kms.cn-hangzhou.aliyuncs.com", "https://kms.cn-hangzhou.aliyuncs.com"),
        ("https://kms-vpc.cn-hangzhou.aliyuncs.com/", "https://kms-vpc.cn-hangzhou.aliyuncs.com"),
        ("https://127.0.0.1:8443", "https://127.0.0.1:8443"),
        ("http://127.0.0.1:8088", "http://127.0.0.1:8088"),
        ("http://127.9.9.9", "http://127.9.9.9"),
        ("http://[::1]:8088", "http://[::1]:8088"),
        ("http://localhost:8088", "http://localhost:8088"),
        ("https://KMS_1.example.:65535", "https://KMS_1.example.:65535"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]"),
    ],
)
def test_endpoint_over_tls_or_on_this_machine_is_taken(endpoint: str, result: str) -> None:
    assert checked_endpoint(endpoint) == result


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://kms.cn-hangzhou.aliyuncs.com",
        "http://10.0.0.1",
        "http://0.0.0.0:8088",
        "http://[::]:8088",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
        "http://2130706433",
        "http://[::ffff:10.0.0.1]",
        "kms.cn-hangzhou.aliyuncs.com",
        "ftp://127.0.0.1",
        "https://",
        "https://user:secret@kms.example.com",
        "http://127.0.0.1@evil.example.com",
        "https://kms.example.com/path",
        "https://kms.example.com?Action=x",
        "https://kms.example.com#x",
        "https://kms.example:99999",
        "https://kms.example:abc",
        "https://kms.example:-1",
        "https://kms.example:0",
        "https://kms example",
        " https://kms.example",
        "https://kms.exam\nple",
        "https://kms.example\t",
        "https://kms.ex\u2100mple",
        "https://kms.ex\u00e4mple",
        "https://kms..example",
        "https://.example",
        "https://kms%2eexample",
        "https://kms\\example",
        "https://kms,example",
        "https://[kms",
        "https://[kms.example]",
        "https://[1:2]",
        "https://[fe80::1%25eth0]",
        f"https://{'k' * 64}.example",
        f"https://{'k.' * 127}kk",
        "",
    ],
)
def test_endpoint_that_is_not_safe_is_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match="the KMS endpoint must be"):
        checked_endpoint(endpoint)


def test_client_refuses_a_bad_endpoint_proxy_and_bundle(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    bad: list[tuple[str, dict[str, object]]] = [
        ("endpoint", {"endpoint": "http://kms.example.com"}),
        ("proxy", {"proxy": "proxy.example.com:3128"}),
        ("CA bundle", {"ca_bundle": tmp_path / "absent.pem"}),
        ("CA bundle", {"ca_bundle": empty}),
    ]
    for what, settings in bad:
        with pytest.raises(ValueError, match=what), client("https://kms.example.com", **settings):
            pass


@pytest.mark.parametrize("place", ["ex\u2100mple:1", "example:99999", "example:port", "exa mple", "[::1", "example\n"])
def test_proxy_that_is_refused_is_not_quoted(place: str) -> None:
    proxy = f"http://user:s3cret@{place}"
    with pytest.raises(ValueError, match="the KMS proxy must be") as caught, client("https://kms.example", proxy=proxy):
        pass
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None


def test_reply_does_not_show_its_body() -> None:
    assert "canary" not in repr(Reply(200, {}, b"canary"))


class Pki:
    """A CA and a server certificate of it."""

    def __init__(self, folder: Path, san: x509.GeneralName) -> None:
        self.ca_bundle = folder / "ca.pem"
        chain, key_file = folder / "server.pem", folder / "server.key"
        ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test CA")])
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        ca = self._certificate(ca_name, ca_key, ca_name, ca_key).add_extension(usage, critical=True)
        ca = ca.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
        server = self._certificate(name, key, ca_name, ca_key)
        server = server.add_extension(x509.SubjectAlternativeName([san]), critical=False)
        self.ca_bundle.write_bytes(ca.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        chain.write_bytes(server.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(chain, key_file)

    @staticmethod
    def _certificate(
        subject: x509.Name, key: ec.EllipticCurvePrivateKey, issuer: x509.Name, issuer_key: ec.EllipticCurvePrivateKey
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        )


LOOPBACK = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))


def test_tls_with_a_trusted_bundle_works(tmp_path: Path) -> None:
    pki = Pki(tmp_path, LOOPBACK)
    with (
        serving(replies(key_body()), tls=pki.context) as server,
        client(f"https://{server.address}", ca_bundle=pki.ca_bundle) as kms,
    ):
        assert kms.describe_key(KEY_ID, deadline=deadline()).name.key_id == KEY_ID


def test_tls_of_a_ca_in_the_systems_store_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pki = Pki(tmp_path, LOOPBACK)
    monkeypatch.setenv("SSL_CERT_FILE", str(pki.ca_bundle))  # where OpenSSL looks for the system's store
    with serving(replies(key_body()), tls=pki.context) as server, client(f"https://{server.address}") as kms:
        assert kms.describe_key(KEY_ID, deadline=deadline()).name.key_id == KEY_ID


def refused_before_sending(pki: Pki, *, host: str = "127.0.0.1", **settings: Any) -> None:
    with serving(replies(key_body()), tls=pki.context) as server:
        endpoint = f"https://{host}:{server.address.rpartition(':')[2]}"
        with client(endpoint, **settings) as kms, pytest.raises(KmsError) as caught:
            kms.cancel_key_deletion(KEY_ID, deadline=deadline())
        assert (caught.value.reason, caught.value.kms_code) == (Reason.KMS_UNAVAILABLE, "connection")
        assert caught.value.committed_nothing
        assert "SSLCertVerificationError" in caught.value.message
        assert server.requests == []


def test_tls_of_an_unknown_ca_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    refused_before_sending(Pki(tmp_path, LOOPBACK))


def test_tls_of_another_ca_than_the_bundles_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Pki(tmp_path / "other", LOOPBACK)
    refused_before_sending(Pki(tmp_path, LOOPBACK), ca_bundle=other.ca_bundle)


def test_tls_bundle_replaces_the_systems_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    pki, other = Pki(tmp_path, LOOPBACK), Pki(tmp_path / "other", LOOPBACK)
    monkeypatch.setenv("SSL_CERT_FILE", str(pki.ca_bundle))
    refused_before_sending(pki, ca_bundle=other.ca_bundle)


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_tls_ignores_the_librarys_own_variables(variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pki = Pki(tmp_path, LOOPBACK)
    monkeypatch.setenv(variable, str(pki.ca_bundle))
    refused_before_sending(pki)


def test_tls_does_not_trust_the_librarys_own_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pki = Pki(tmp_path, LOOPBACK)
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(pki.ca_bundle))
    refused_before_sending(pki)


def test_tls_for_another_host_is_refused(tmp_path: Path) -> None:
    pki = Pki(tmp_path, x509.DNSName("kms.example.com"))
    refused_before_sending(pki, ca_bundle=pki.ca_bundle)
    (tmp_path / "b").mkdir()
    numeric_only = Pki(tmp_path / "b", LOOPBACK)
    refused_before_sending(numeric_only, host="localhost", ca_bundle=numeric_only.ca_bundle)


def test_environment_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login intruder password canary\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with serving(replies(key_body())) as proxy, serving(replies(key_body())) as server:
        for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(variable, f"http://{proxy.address}")
        with client(server.address) as kms:
            kms.describe_key(KEY_ID, deadline=deadline())
        assert proxy.connections == 0
        assert b"Authorization: ACS3-HMAC-SHA256 " in server.requests[0]
        assert b"Basic" not in server.requests[0]


def test_proxy_forwards_plain_http() -> None:
    with serving(replies(key_body())) as proxy, client("127.0.0.1:9", proxy=f"http://{proxy.address}") as kms:
        kms.describe_key(KEY_ID, deadline=deadline())
        assert proxy.requests[0].startswith(b"POST http://127.0.0.1:9/?KeyId=")


def test_proxy_setting_beats_no_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    test_proxy_forwards_plain_http()


def test_proxy_is_asked_for_a_tunnel_and_sees_no_request() -> None:
    refusal = replies(b"", status=403)
    with (
        serving(refusal) as proxy,
        client("https://kms.example.com", proxy=f"http://user:pass@{proxy.address}") as kms,
    ):
        with pytest.raises(KmsError) as caught:
            kms.describe_key(KEY_ID, deadline=deadline())
        assert caught.value.reason is Reason.KMS_UNAVAILABLE
        assert proxy.requests[0].startswith(b"CONNECT kms.example.com:443 ")
        assert b"Proxy-Authorization: Basic " in proxy.requests[0]
        assert KEY_ID.encode() not in proxy.requests[0]
        assert len(proxy.requests) == 1


def test_proxy_tunnel_ends_at_the_kms_that_the_bundle_trusts(tmp_path: Path) -> None:
    pki, seen = Pki(tmp_path, x509.DNSName("kms.example.com")), []

    def tunnel(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        with pki.context.wrap_socket(connection, server_side=True) as inside:
            seen.append(inside.recv(65536))
            inside.sendall(reply_bytes(key_body()))

    with (
        serving(tunnel) as proxy,
        client("https://kms.example.com", proxy=f"http://{proxy.address}", ca_bundle=pki.ca_bundle) as kms,
    ):
        assert kms.describe_key(KEY_ID, deadline=deadline()).name.key_id == KEY_ID
        assert seen[0].startswith(b"POST /?KeyId=")
        assert b"Proxy-Authorization" not in seen[0]


def test_cookies_are_not_kept() -> None:
    script = replies(key_body(), headers={"Set-Cookie": "session=1; Path=/"})
    with serving(script, keep_alive=True) as server, client(server.address) as kms:
        kms.describe_key(KEY_ID, deadline=deadline())
        kms.describe_key(KEY_ID, deadline=deadline())
        assert all(b"cookie" not in request.lower() for request in server.requests)


MARKED: dict[str, Callable[[], dict[str, Any]]] = {
    "success": lambda: {"body": key_body()},
    "refusal": lambda: {"body": error_body("Forbidden.KeyNotFound"), "status": 404},
    "outage": lambda: {"body": b"", "status": 503},
    "redirect": lambda: {"body": b"", "status": 302},
    "garbage": lambda: {"body": b"\x00"},
}


@pytest.mark.parametrize("reply", MARKED.values(), ids=MARKED)
@pytest.mark.parametrize("header", ["x-kms-emulator", "X-KMS-Emulator"])
def test_emulator_is_refused_at_its_first_reply_of_any_kind(reply: Callable[[], dict[str, Any]], header: str) -> None:
    script = replies(**reply(), headers={header: "1"})
    with serving(script, keep_alive=True) as server, client(server.address) as kms:
        for call in (kms.describe_key, kms.cancel_key_deletion):
            with pytest.raises(KmsError) as caught:
                call(KEY_ID, deadline=deadline())
            assert (caught.value.reason, caught.value.kms_code) == (Reason.EMULATOR_NOT_ALLOWED, "other")
            assert caught.value.committed_nothing
        assert len(server.requests) == 2


def test_emulator_is_taken_when_allowed() -> None:
    script = replies({"RequestId": REQUEST_ID}, headers={"x-kms-emulator": "1"})
    with serving(script) as server, client(server.address, allow_emulator=True) as kms:
        assert kms.cancel_key_deletion(KEY_ID, deadline=deadline()).request_id == REQUEST_ID

"""Certificate authorities, certificates and bearer tokens made for tests."""

import base64
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Certificate:
    """A certificate with its private key, both PEM."""

    chain: bytes
    private_key: bytes


class Authority:
    """A certificate authority with a key of its own."""

    def __init__(self, name: str = "test CA", *, of: "Authority | None" = None) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = of or self
        constraints = (x509.BasicConstraints(ca=True, path_length=None), True)
        certificate = _signed(self._name, self._key.public_key(), issuer._name, issuer._key, [constraints])
        self.pem = certificate.public_bytes(Encoding.PEM)

    def issue_authority(self, name: str) -> "Authority":
        """An authority below this one."""
        return Authority(name, of=self)

    def issue_below(self, leaf: Certificate, *, uris: tuple[str, ...]) -> Certificate:
        """A certificate signed with the key of a leaf, which may not."""
        issuer = x509.load_pem_x509_certificate(leaf.chain)
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
        signing: Any = load_pem_private_key(leaf.private_key, None)
        signed = _signed(self._name, key.public_key(), issuer.subject, signing, [(names, False)])
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Certificate(signed.public_bytes(Encoding.PEM), private)

    def issue(
        self,
        *,
        uris: tuple[str, ...] = (),
        dns_names: tuple[str, ...] = (),
        not_before: datetime | None = None,
        not_after: datetime | None = None,
    ) -> Certificate:
        """A certificate with these subject alternative names, valid now unless told otherwise."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [*map(x509.UniformResourceIdentifier, uris), *map(x509.DNSName, dns_names)]
        extensions = [(x509.SubjectAlternativeName(names), False)] if names else []
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "leaf")])
        leaf = _signed(subject, key.public_key(), self._name, self._key, extensions, not_before, not_after)
        return Certificate(
            leaf.public_bytes(Encoding.PEM),
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        )


def _signed(
    subject: x509.Name,
    public_key: Any,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    extensions: list[tuple[Any, bool]],
    not_before: datetime | None = None,
    not_after: datetime | None = None,
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        issuer, subject, public_key, x509.random_serial_number(), not_before or now - HOUR, not_after or now + HOUR
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(issuer_key, SHA256())


@dataclass
class Issuer:
    """An issuer of bearer tokens, such as a Kubernetes API server."""

    url: str = "https://issuer.example"
    audience: str = "keybroker"
    key_id: str = "key-1"
    key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))

    def jwks(self) -> bytes:
        numbers = self.key.public_key().public_numbers()
        entry = {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": self.key_id}
        return json.dumps({"keys": [entry | {"n": _b64(numbers.n), "e": _b64(numbers.e)}]}).encode()

    def public_pem(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def token(self, subject: str, *, headers: dict[str, Any] | None = None, **claims: Any) -> str:
        now = datetime.now(UTC)
        body = {
            "iss": self.url,
            "aud": [self.audience],
            "sub": subject,
            "iat": now,
            "nbf": now - HOUR,
            "exp": now + HOUR,
        } | claims
        return jwt.encode(body, self.key, algorithm="RS256", headers={"kid": self.key_id} | (headers or {}))


def _b64(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes((number.bit_length() + 7) // 8)).rstrip(b"=").decode()

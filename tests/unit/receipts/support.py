"""Keys that are made up, a row that was imported, and the receipt of it."""

from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from keybroker.adapters.receipts import ReceiptKey
from keybroker.domain.receipt import payload
from tests.unit.domain.test_receipt import ROW

ISSUED = datetime(2026, 1, 2, 3, 4, 8, tzinfo=UTC)
RFC_SECRET = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
"""RFC 8032 §7.1, test 1; RFC 8037 appendix A has the same as a JWK."""


def private_key(secret: bytes = RFC_SECRET) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(secret)


def key(secret: bytes = RFC_SECRET) -> ReceiptKey:
    return ReceiptKey(private_key(secret))


def receipt(signer: ReceiptKey | None = None) -> str:
    return (signer or key()).sign(payload(ROW, version="1.2.3", issued_at=ISSUED))


def key_file(path: Path, content: bytes | None = None, *, mode: int = 0o440) -> Path:
    pem = private_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(pem if content is None else content)
    path.chmod(mode)
    return path

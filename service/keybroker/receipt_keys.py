"""Reads the key that signs receipts, and makes what signs them. Part of the composition root."""

from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from keybroker import __version__
from keybroker.adapters.ledger.files import LedgerFileError, check_private
from keybroker.adapters.receipts import ReceiptKey, Receipts
from keybroker.domain.attempt import Attempt
from keybroker.ports import Clock
from keybroker.secret_files import SecretFiles
from keybroker.settings import ConfigurationError, ReceiptSettings

_BEGINS = "-----BEGIN "


def receipt_key(settings: ReceiptSettings) -> ReceiptKey | None:
    """The key that the settings name; None where there are no receipts. Raises ConfigurationError."""
    return None if settings.key_file is None else read_receipt_key(settings.key_file, "receipts.key_file")


def read_receipt_key(path: Path, key: str) -> ReceiptKey:
    """An Ed25519 private key, PKCS#8 in PEM. Raises ConfigurationError, which names `key` and quotes nothing."""
    (text,) = SecretFiles([path], key=key).contents()
    try:
        check_private(path)
        private_key = load_pem_private_key(text.encode(), password=None)
    except LedgerFileError as error:
        raise ConfigurationError(f"{key}: {error}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it has a passphrase
        private_key = None
    if not isinstance(private_key, Ed25519PrivateKey) or text.count(_BEGINS) > 1:  # of several, only one would count
        raise ConfigurationError(f"{key}: {path} must hold one Ed25519 private key: PKCS#8, PEM, no passphrase")
    return ReceiptKey(private_key)


def receipt_maker(key: ReceiptKey | None, *, clock: Clock) -> Callable[[Attempt], str]:
    """What makes the receipt of an IMPORTED row: without a key, an empty one."""
    return (lambda _: "") if key is None else Receipts(key=key, clock=clock, version=__version__)

"""Makes the ledger that the settings ask for. Part of the composition root."""

import base64
import binascii
from datetime import timedelta
from pathlib import Path

from keybroker.adapters.ledger.files import LedgerFileError, check_private
from keybroker.adapters.ledger.sealing import KEY_BYTES, Keyring, random_keyring
from keybroker.adapters.ledger.sqlite import SqliteLedger
from keybroker.domain.audit import after
from keybroker.ports import Clock
from keybroker.secret_files import SecretFiles
from keybroker.settings import ConfigurationError, LedgerSettings


def make_ledger(settings: LedgerSettings, *, clock: Clock, audited: bool = False) -> SqliteLedger:
    """The ledger, to be opened by open_ledger(). Reads the key files. Raises ConfigurationError.

    `audited`: it keeps what the audit log has to be told.
    """
    return SqliteLedger(
        keyring=_keyring(settings),
        clock=clock,
        file=settings.file,
        mark_file=settings.mark_file,
        tombstones_kept=timedelta(days=settings.tombstone_days),
        **({"to_audit": after} if audited else {}),
    )


def open_ledger(ledger: SqliteLedger) -> None:
    """Opens its files. Raises ConfigurationError; BrokerError LEDGER_UNAVAILABLE if another process holds them."""
    try:
        ledger.connect()
    except LedgerFileError as error:
        raise ConfigurationError(f"ledger: {error}") from None


def _keyring(settings: LedgerSettings) -> Keyring:
    if settings.key_file is None:
        return random_keyring()
    current = _key(settings.key_file, "ledger.key_file")
    old = [_key(path, "ledger.old_key_files") for path in settings.old_key_files]
    try:
        return Keyring(current=current, old=old)
    except ValueError as error:
        raise ConfigurationError(f"ledger.old_key_files: {error}") from None


def _key(path: Path, key: str) -> bytes:
    """32 bytes from base64. Unlike a certificate's, a ledger key that others read can't be revoked."""
    (text,) = SecretFiles([path], key=key).contents()
    try:
        check_private(path)
        decoded = base64.b64decode(text, validate=True)
    except LedgerFileError as error:
        raise ConfigurationError(f"{key}: {error}") from None
    except binascii.Error:
        decoded = b""
    if len(decoded) != KEY_BYTES:
        raise ConfigurationError(f"{key}: {path} must hold {KEY_BYTES} random bytes in base64")
    return decoded

"""Makes the source of random bytes that the settings name. Part of the composition root."""

import threading
from importlib.util import find_spec

import structlog

from keybroker.adapters.entropy import SystemEntropy
from keybroker.adapters.entropy.checked import CheckedEntropy
from keybroker.adapters.entropy.failures import SourceFailed
from keybroker.domain.errors import BrokerError
from keybroker.ports import EntropySource
from keybroker.secret_files import SecretFiles
from keybroker.settings import ConfigurationError, EntropySettings, Pkcs11Settings
from keybroker.telemetry.logs import exception_chain

FIRST_LOOK_SECONDS = 5.0


def make_entropy(settings: EntropySettings) -> EntropySource:
    """The source, not yet connected. Reads the PIN file. Raises ConfigurationError."""
    return SystemEntropy() if settings.pkcs11 is None else _pkcs11(settings.pkcs11)


def look_at(entropy: EntropySource) -> None:
    """Asks the source for the first time, so that the log says early what is wrong with it. Never fails.

    One that hangs can't be stopped: it is left to a thread that the process does not wait for at its end.
    """
    thread = threading.Thread(target=_checked, args=[entropy], name="entropy", daemon=True)
    thread.start()
    thread.join(FIRST_LOOK_SECONDS)
    if thread.is_alive():
        structlog.get_logger().error("entropy_source_failed", source=entropy.name, kind="NoAnswer")


def _checked(entropy: EntropySource) -> None:
    try:
        entropy.check()
    except BrokerError:
        return  # the source has told the log
    except Exception as error:  # noqa: BLE001  # a thread's last resort; imports meet it too, and are INTERNAL
        structlog.get_logger().error("unforeseen", source=entropy.name, exceptions=exception_chain(error))


def _pkcs11(settings: Pkcs11Settings) -> EntropySource:
    if find_spec("pkcs11") is None:
        raise ConfigurationError("entropy.source: pkcs11 needs python-pkcs11: install keybroker[server,pkcs11]")
    if not settings.module_file.is_file():
        raise ConfigurationError(f"entropy.pkcs11.module_file: {settings.module_file} is no file")
    from keybroker.adapters.entropy.pkcs11_token import Pkcs11Token  # noqa: PLC0415  # needs an extra

    files = None if settings.pin_file is None else SecretFiles([settings.pin_file], key="entropy.pkcs11.pin_file")
    if files is not None:
        files.contents()

    def pin() -> str | None:
        try:
            return files.contents()[0] if files is not None else None
        except ConfigurationError:
            raise SourceFailed("PinFileUnreadable") from None

    token = Pkcs11Token(module_file=settings.module_file, token_label=settings.token_label, pin=pin)
    return CheckedEntropy(name="pkcs11", generator=token)

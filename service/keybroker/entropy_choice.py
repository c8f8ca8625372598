"""Makes the source of random bytes that the settings name. Part of the composition root."""

from importlib.util import find_spec

from keybroker.adapters.entropy import SystemEntropy
from keybroker.adapters.entropy.checked import CheckedEntropy
from keybroker.adapters.entropy.failures import SourceFailed
from keybroker.ports import EntropySource
from keybroker.secret_files import SecretFiles
from keybroker.settings import ConfigurationError, EntropySettings, Pkcs11Settings


def make_entropy(settings: EntropySettings) -> EntropySource:
    """The source, not yet connected. Reads the PIN file. Raises ConfigurationError."""
    return SystemEntropy() if settings.pkcs11 is None else _pkcs11(settings.pkcs11)


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

"""Chooses where the KMS credentials of an instance come from. Part of the composition root.

Each instance has a source of its own. The first read happens at the start, so that a missing file or variable stops
it; then the source is asked for each request.
"""

from collections.abc import Callable

from keybroker.adapters.kms.credentials import Credentials
from keybroker.secret_files import SecretFiles, environment_credentials
from keybroker.settings import ConfigurationError, FileCredentialSettings, InstanceSettings

Source = Callable[[], Credentials]


def credentials_source(name: str, settings: InstanceSettings) -> Source:
    """What gives the current credentials of the instance `name`. Raises ConfigurationError."""
    key = f"kms.instances.{name}.credentials"
    if settings.credentials is not None and settings.credentials.files is not None:
        return _checked(_from_files(settings.credentials.files, key), key)
    return _checked(lambda: Credentials(*environment_credentials()), key)


def _from_files(files: FileCredentialSettings, key: str) -> Source:
    paths = [files.access_key_id_file, files.access_key_secret_file, files.security_token_file]
    watched = SecretFiles([path for path in paths if path], key=f"{key}.files")
    return lambda: Credentials(*watched.contents())


def _checked(source: Source, key: str) -> Source:
    try:
        source()
    except ConfigurationError:
        raise
    except ValueError as error:
        raise ConfigurationError(f"{key}: {error}") from None
    return source

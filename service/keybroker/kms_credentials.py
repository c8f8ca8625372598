"""Chooses where the KMS credentials of an instance come from. Part of the composition root.

Each instance has a source of its own. Files and variables are read at the start, so that a missing one stops it, and
then for each request. What comes over the network is fetched when the first request needs it.
"""

from collections.abc import Callable
from pathlib import Path

from keybroker.adapters.clock import SystemClock
from keybroker.adapters.kms.credentials import Credentials, Provider
from keybroker.adapters.kms.credentials_http import Connection
from keybroker.adapters.kms.credentials_uri import URI_TIMEOUT_SECONDS, CredentialsUri
from keybroker.adapters.kms.ecs_metadata import METADATA_TIMEOUT_SECONDS, EcsRamRole
from keybroker.adapters.kms.refreshing import RefreshingCredentials
from keybroker.adapters.kms.sts import STS_TIMEOUT_SECONDS, AssumeRoleWithOidc, OidcRole
from keybroker.secret_files import SecretFiles, environment_credentials, vendor_variable
from keybroker.settings import (
    ConfigurationError,
    CredentialSettings,
    EcsRamRoleCredentialSettings,
    FileCredentialSettings,
    InstanceSettings,
    RrsaCredentialSettings,
    UriCredentialSettings,
)

Source = Callable[[], Credentials]

_ROLE_ARN = "ALIBABA_CLOUD_ROLE_ARN"
_OIDC_PROVIDER_ARN = "ALIBABA_CLOUD_OIDC_PROVIDER_ARN"
_OIDC_TOKEN_FILE = "ALIBABA_CLOUD_OIDC_TOKEN_FILE"  # noqa: S105  # a variable's name
_STS_ENDPOINT = "ALIBABA_CLOUD_STS_ENDPOINT"


def credentials_source(name: str, settings: InstanceSettings) -> Source:
    """What gives the current credentials of the instance `name`. Raises ConfigurationError."""
    key = f"kms.instances.{name}.credentials"
    chosen = settings.credentials
    if chosen is None:
        return _checked(lambda: Credentials(*environment_credentials()), key)
    if chosen.files is not None:
        return _checked(_from_files(chosen.files, key), key)
    return RefreshingCredentials(_provider(chosen, settings, key), instance=name, clock=SystemClock())


def default_sts_endpoint(region: str) -> str:
    """The one that ACK's webhook names, else the region's inside the VPC. Contract 4, item 2."""
    host = vendor_variable(_STS_ENDPOINT) or f"sts-vpc.{region}.aliyuncs.com"
    return host if "://" in host else f"https://{host}"


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


def _provider(chosen: CredentialSettings, instance: InstanceSettings, key: str) -> Provider:
    if chosen.rrsa is not None:
        return _rrsa(chosen.rrsa, instance, f"{key}.rrsa")
    if chosen.ecs_ram_role is not None:
        return _ecs_ram_role(chosen.ecs_ram_role, f"{key}.ecs_ram_role")
    if chosen.uri is not None:
        return _uri(chosen.uri, instance, f"{key}.uri")
    raise ConfigurationError(f"{key}: no source is given")


def _rrsa(settings: RrsaCredentialSettings, instance: InstanceSettings, key: str) -> Provider:
    role = OidcRole(
        role_arn=_given(settings.role_arn, _ROLE_ARN, f"{key}.role_arn"),
        oidc_provider_arn=_given(settings.oidc_provider_arn, _OIDC_PROVIDER_ARN, f"{key}.oidc_provider_arn"),
        session_name=settings.role_session_name,
        duration_seconds=settings.duration_seconds,
    )
    token_file = _given(str(settings.oidc_token_file or ""), _OIDC_TOKEN_FILE, f"{key}.oidc_token_file")
    token = SecretFiles([Path(token_file)], key=f"{key}.oidc_token_file")
    if not token.contents()[0]:
        raise ConfigurationError(f"{key}.oidc_token_file: {token_file} is empty")
    try:
        return AssumeRoleWithOidc(
            role,
            oidc_token=lambda: token.contents()[0],
            endpoint=settings.sts_endpoint or default_sts_endpoint(instance.region),
            connection=_connection(instance, STS_TIMEOUT_SECONDS),
            now=SystemClock().now,
        )
    except ValueError as error:
        raise ConfigurationError(f"{key}.sts_endpoint: {error}") from None


def _ecs_ram_role(settings: EcsRamRoleCredentialSettings, key: str) -> Provider:
    try:
        return EcsRamRole(
            role_name=settings.role_name,
            endpoint=settings.metadata_endpoint,
            connection=Connection(timeout_seconds=METADATA_TIMEOUT_SECONDS),
        )
    except ValueError as error:
        raise ConfigurationError(f"{key}: {error}") from None


def _uri(settings: UriCredentialSettings, instance: InstanceSettings, key: str) -> Provider:
    try:
        return CredentialsUri(settings.uri.get_secret_value(), connection=_connection(instance, URI_TIMEOUT_SECONDS))
    except ValueError as error:
        raise ConfigurationError(f"{key}.uri: {error}") from None


def _connection(instance: InstanceSettings, timeout_seconds: float) -> Connection:
    return Connection(timeout_seconds=timeout_seconds, proxy=instance.proxy_url, ca_bundle=instance.ca_bundle_file)


def _given(value: str | None, variable: str, key: str) -> str:
    found = value or vendor_variable(variable)
    if not found:
        raise ConfigurationError(f"{key}: not set, and neither is {variable}")
    return found

"""The sections about the KMS: its instances, the credentials for them, the quotas."""

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator

from keybroker.settings.base import InstanceName, RequestsPerSecond, Seconds, Section


class FileCredentialSettings(Section):
    """Files with the parts of an access key, re-read when they change."""

    access_key_id_file: Path
    access_key_secret_file: Path
    security_token_file: Path | None = None


class RrsaCredentialSettings(Section):
    """AssumeRoleWithOIDC with a projected service-account token (contract 4, item 2).

    What is left out comes from the variables that ACK's webhook injects: ALIBABA_CLOUD_ROLE_ARN,
    ALIBABA_CLOUD_OIDC_PROVIDER_ARN, ALIBABA_CLOUD_OIDC_TOKEN_FILE, ALIBABA_CLOUD_STS_ENDPOINT.
    """

    role_arn: str | None = None
    oidc_provider_arn: str | None = None
    oidc_token_file: Path | None = None
    role_session_name: str = Field(default="keybroker", pattern=r"^[A-Za-z0-9.@_-]{2,64}$")
    duration_seconds: int = Field(default=3600, ge=900, le=43_200)
    sts_endpoint: str | None = Field(
        default=None, description="default, without the variable: https://sts-vpc.REGION.aliyuncs.com"
    )


class EcsRamRoleCredentialSettings(Section):
    """The RAM role of the ECS instance, from its metadata service in hardened mode (contract 4, item 5)."""

    role_name: str | None = Field(default=None, description="default: the role that the metadata service lists")
    metadata_endpoint: str = "http://100.100.100.200"


class UriCredentialSettings(Section):
    """Credentials from a URI on this host or over https (contract 4, item 6). Its path or query may be a secret."""

    uri: SecretStr


class CredentialSettings(Section):
    """Where the KMS credentials of an instance come from: exactly one of these. Without: the environment."""

    files: FileCredentialSettings | None = None
    rrsa: RrsaCredentialSettings | None = None
    ecs_ram_role: EcsRamRoleCredentialSettings | None = None
    uri: UriCredentialSettings | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"must have exactly one of {', '.join(type(self).model_fields)}")
        return self


class InstanceSettings(Section):
    """One Dedicated KMS instance, through the shared gateway of its region. Times in seconds."""

    region: str = Field(pattern=r"^[a-z]{2}-[a-z0-9-]{1,60}$")
    endpoint: str
    dkms_instance_id: str = Field(pattern=r"^[A-Za-z0-9-]{1,64}$")
    proxy: SecretStr | None = None  # the URL may hold a user and a password
    ca_bundle_file: Path | None = None
    connect_timeout_seconds: Seconds = 5.0
    read_timeout_seconds: Seconds = 10.0
    allow_emulator: bool = False
    quota_group: str = Field(
        default="",
        pattern=r"^[a-z0-9_-]{0,62}$",
        description="Instances of a region share the quotas, unless they are of different accounts: then a group each.",
    )
    credentials: CredentialSettings | None = None

    @property
    def proxy_url(self) -> str | None:
        """The proxy's URL, with what it may hold of a user and a password."""
        return self.proxy.get_secret_value() if self.proxy is not None else None


class PacingSettings(Section):
    """What the KMS allows an account in a region, in requests a second, by quota class (contract 5)."""

    enabled: bool = True
    create_per_second: RequestsPerSecond = 10
    read_per_second: RequestsPerSecond = 50
    write_per_second: RequestsPerSecond = 30
    crypto_per_second: RequestsPerSecond = 1000
    resource_tags_per_second: RequestsPerSecond = 300

    def limits(self) -> dict[str, int]:
        """By the name of the quota class."""
        suffix = "_per_second"
        return {key.removesuffix(suffix): limit for key, limit in self if key.endswith(suffix)}


class KmsSettings(Section):
    """The KMS instances by name."""

    default_instance: InstanceName
    instances: dict[InstanceName, InstanceSettings] = Field(min_length=1)
    pacing: PacingSettings = Field(default_factory=PacingSettings)

    @model_validator(mode="after")
    def _default_exists(self) -> Self:
        if self.default_instance not in self.instances:
            raise ValueError(f"default_instance {self.default_instance!r} is not one of the instances")
        return self

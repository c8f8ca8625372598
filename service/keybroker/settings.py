"""The one model of the configuration, and the only reader of files and environment.

One YAML file, every key overridable by an environment variable KEYBROKER__SECTION__KEY (two underscores between the
levels, any case; the value is read as YAML). An unknown key is an error that names it.
"""

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from keybroker import strict_yaml

ENV_PREFIX = "KEYBROKER__"
_ADDRESS = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^\[\]:]+):(?P<port>[0-9]{1,5})")
_MAX_PORT = 65535
_WORDINGS = {"extra_forbidden": "unknown key", "model_type": "must be a mapping"}
_PROTECTIONS = {"tls": "TLS", "identity": "identity"}

InstanceName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
RequestsPerSecond = Annotated[int, Field(ge=1, le=100_000)]
Seconds = Annotated[float, Field(gt=0, le=2_000_000)]  # grpc takes milliseconds as 32 bits with a sign


class ConfigurationError(ValueError):
    """The configuration can't be used. The text says which key is wrong and why; it quotes no secret."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @field_validator("*")
    @classmethod
    def _can_be_paths(cls, value: object) -> object:
        """What no file can be called would be an error of another kind when the file is opened."""
        for path in value if isinstance(value, list) else [value]:
            if isinstance(path, Path) and not _can_be_path(str(path)):
                raise ValueError("is not a path")
        return value


class TlsSettings(_Section):
    """Server certificate chain and private key, as PEM files."""

    certificate_file: Path
    private_key_file: Path


class MtlsSettings(_Section):
    """Callers are known by their client certificates: SPIFFE id or DNS name. Needs server.tls."""

    client_ca_file: Path


class JwtSettings(_Section):
    """Callers are known by bearer tokens, such as Kubernetes' projected service-account tokens."""

    issuer: str = Field(min_length=1)
    audience: str = Field(min_length=1)
    algorithms: list[Literal["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]] = Field(
        default=["RS256"], min_length=1
    )
    jwks_file: Path | None = None
    jwks_url: str | None = Field(
        default=None, pattern=r"^(https://[^/@]+|http://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?)(/[^@]*)?$"
    )
    jwks_ca_file: Path | None = None
    jwks_cache_seconds: Seconds = 300.0
    leeway_seconds: float = Field(default=10.0, ge=0, le=300)

    @model_validator(mode="after")
    def _has_keys(self) -> Self:
        if (self.jwks_file is None) == (self.jwks_url is None):
            raise ValueError("must have exactly one of jwks_file, jwks_url")
        return self


class IdentitySettings(_Section):
    """How callers are known: exactly one of these."""

    mtls: MtlsSettings | None = None
    jwt: JwtSettings | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.mtls is None) == (self.jwt is None):
            raise ValueError("must have exactly one of mtls, jwt")
        return self


class ServerSettings(_Section):
    """The two ports, and how much the broker takes on. Times in seconds."""

    grpc_address: str = "127.0.0.1:50051"
    http_address: str = "127.0.0.1:9464"
    tls: TlsSettings | None = None
    identity: IdentitySettings | None = None
    allow_insecure_non_loopback: bool = Field(
        default=False, description="Serve gRPC without TLS or without identity on an address that others can reach."
    )
    reflection: bool = False
    channelz: bool = False
    max_concurrent_calls: int = Field(default=256, ge=1, le=4096)
    default_deadline_seconds: Seconds = 15.0
    max_deadline_seconds: Seconds = 20.0
    shutdown_grace_seconds: Seconds = 25.0
    keepalive_seconds: Seconds = 60.0
    max_connection_age_seconds: Seconds = 1800.0

    @field_validator("grpc_address", "http_address")
    @classmethod
    def _is_address(cls, value: str) -> str:
        split_address(value)
        return value

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.shutdown_grace_seconds <= self.max_deadline_seconds:
            raise ValueError(
                "shutdown_grace_seconds must be greater than max_deadline_seconds, or a shutdown would cut calls"
            )
        if self.default_deadline_seconds > self.max_deadline_seconds:
            raise ValueError("default_deadline_seconds must not be greater than max_deadline_seconds")
        if self.identity is not None and self.identity.mtls is not None and self.tls is None:
            raise ValueError("identity.mtls needs tls")
        host, _ = split_address(self.grpc_address)
        missing = [word for name, word in _PROTECTIONS.items() if getattr(self, name) is None]
        if not is_loopback(host) and missing and not self.allow_insecure_non_loopback:
            lacking = " and no ".join(missing)
            raise ValueError(
                f"grpc_address {self.grpc_address} can be reached by others and there is no {lacking}: set it, "
                "use a loopback address, or, knowing that anyone there can bind keys for ever, set "
                "allow_insecure_non_loopback: true"
            )
        return self


class FileCredentialSettings(_Section):
    """Files with the parts of an access key, re-read when they change."""

    access_key_id_file: Path
    access_key_secret_file: Path
    security_token_file: Path | None = None


class RrsaCredentialSettings(_Section):
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


class EcsRamRoleCredentialSettings(_Section):
    """The RAM role of the ECS instance, from its metadata service in hardened mode (contract 4, item 5)."""

    role_name: str | None = Field(default=None, description="default: the role that the metadata service lists")
    metadata_endpoint: str = "http://100.100.100.200"


class UriCredentialSettings(_Section):
    """Credentials from a URI on this host or over https (contract 4, item 6). Its path or query may be a secret."""

    uri: SecretStr


class CredentialSettings(_Section):
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


class InstanceSettings(_Section):
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


class PacingSettings(_Section):
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


class KmsSettings(_Section):
    """The KMS instances by name."""

    default_instance: InstanceName
    instances: dict[InstanceName, InstanceSettings] = Field(min_length=1)
    pacing: PacingSettings = Field(default_factory=PacingSettings)

    @model_validator(mode="after")
    def _default_exists(self) -> Self:
        if self.default_instance not in self.instances:
            raise ValueError(f"default_instance {self.default_instance!r} is not one of the instances")
        return self


class ImportSettings(_Section):
    """What imports may do, and the cache of import parameters."""

    forbid_pkcs1_v1_5: bool = False
    allow_foreign_tokens: bool = False
    prove: bool = Field(default=False, description="have the KMS encrypt a nonce, and open it with the material")
    sole_importer: bool = Field(default=False, description="the operator asserts that nothing else imports")
    create_settle_seconds: float = Field(default=10.0, gt=0, le=60)
    cached_parameters: int = Field(default=10_000, ge=1, le=1_000_000)
    parameters_expiry_margin_seconds: float = Field(default=300.0, ge=0, le=43_200)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.forbid_pkcs1_v1_5 and self.allow_foreign_tokens:
            raise ValueError(
                "forbid_pkcs1_v1_5 and allow_foreign_tokens exclude each other: the algorithm of a foreign token is "
                "not known"
            )
        return self


class LedgerSettings(_Section):
    """Where requests are recorded, and the keys that seal what is recorded. Without `file`: in memory."""

    file: Path | None = None
    mark_file: Path | None = Field(default=None, description="on a volume that is not restored together with the file")
    key_file: Path | None = None
    old_key_files: list[Path] = []
    tombstone_days: int = Field(default=400, ge=1, le=36_500)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.file is not None and self.key_file is None:
            raise ValueError("file needs key_file")
        if self.mark_file is not None and self.file is None:
            raise ValueError("mark_file needs file")
        if self.old_key_files and self.key_file is None:
            raise ValueError("old_key_files needs key_file")
        if self.mark_file is not None and self.mark_file == self.file:
            raise ValueError("mark_file must be another one than file")
        return self


class Pkcs11Settings(_Section):
    """An HSM's module, and which of its tokens. Without `pin_file`: no login."""

    module_file: Path
    token_label: str = Field(min_length=1, max_length=32)  # CK_TOKEN_INFO.label has 32 bytes
    pin_file: Path | None = None


class EntropySettings(_Section):
    """Where the random bytes of key material come from. Nothing takes the place of a source that fails."""

    source: Literal["os", "pkcs11"] = "os"
    pkcs11: Pkcs11Settings | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if (self.source == "pkcs11") != (self.pkcs11 is not None):
            raise ValueError("source: pkcs11 and the section pkcs11 come together")
        return self


class LogSettings(_Section):
    """Logs go to standard error, one JSON object a line."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class HardeningSettings(_Section):
    """What keeps the memory of the process to itself, and which of it readiness requires."""

    dump_protection: bool = Field(default=True, description="off: for diagnosis on a machine without real keys")
    require_memory_lock: bool = False
    require_no_swap: bool = False


class PolicySettings(_Section):
    """What callers may do: one YAML file, read again when it changes."""

    file: Path


class Settings(_Section):
    """The whole configuration. `policy` and `server.identity` come together."""

    server: ServerSettings = Field(default_factory=ServerSettings)
    policy: PolicySettings | None = None
    kms: KmsSettings
    imports: ImportSettings = Field(default_factory=ImportSettings)
    ledger: LedgerSettings = Field(default_factory=LedgerSettings)
    entropy: EntropySettings = Field(default_factory=EntropySettings)
    hardening: HardeningSettings = Field(default_factory=HardeningSettings)
    logs: LogSettings = Field(default_factory=LogSettings)

    @model_validator(mode="after")
    def _identity_has_policy(self) -> Self:
        if (self.policy is None) != (self.server.identity is None):
            raise ValueError("policy and server.identity come together: who calls, and what callers may do")
        return self


def load_settings(path: Path | None, *, environ: Mapping[str, str] = os.environ) -> Settings:
    """Reads the YAML file, if there is one, and the environment over it. Raises ConfigurationError."""
    tree: dict[str, Any] = {}
    if path is not None:
        tree = _read_yaml(path)
    for name, value in sorted(environ.items()):
        if name.upper().startswith(ENV_PREFIX):
            _set(tree, name, value)
    return parse_settings(tree)


def parse_settings(tree: Mapping[str, Any]) -> Settings:
    """Checks a configuration tree. Raises ConfigurationError."""
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, problem['loc'])) or 'configuration'}: {wording(problem['type'], problem['msg'])}"
            for problem in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        raise ConfigurationError("\n".join(lines)) from None


def wording(kind: str, message: str) -> str:
    """A problem that pydantic found, without its name for us."""
    return _WORDINGS.get(kind) or message.removeprefix("Value error, ")


def _can_be_path(text: str) -> bool:
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def split_address(value: str) -> tuple[str, int]:
    """Host and port of "host:port" or "[v6]:port". Raises ValueError."""
    match = _ADDRESS.fullmatch(value)
    if match is None or int(match["port"]) > _MAX_PORT:
        raise ValueError("must be HOST:PORT, with an IPv6 host in brackets")
    return match["host"].strip("[]"), int(match["port"])


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host: localhost, 127.0.0.0/8 or ::1. A name is not looked up."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_file(path: Path, *, key: str) -> bytes:
    """The bytes of a file that the configuration names under `key`. Raises ConfigurationError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{key}: can't read {path}: {error.strerror}") from None


def _read_yaml(path: Path) -> dict[str, Any]:
    content = read_file(path, key="--config")
    try:
        tree = strict_yaml.load(content)
    except strict_yaml.NOT_YAML as error:
        raise ConfigurationError(f"--config: {path} {strict_yaml.wording(error, with_line=True)}") from None
    if tree is not None and not isinstance(tree, dict):
        raise ConfigurationError(f"--config: {path} must hold a mapping")
    return tree or {}


def _set(tree: dict[str, Any], name: str, value: str) -> None:
    *sections, key = name[len(ENV_PREFIX) :].lower().split("__")
    node: Any = tree
    for section in sections:
        if node.get(section) is None:
            node[section] = {}
        node = node[section]
        if not isinstance(node, dict):
            raise ConfigurationError(f"{name}: {section} is not a section")
    try:
        node[key] = strict_yaml.load(value)
    except strict_yaml.NOT_YAML as error:
        raise ConfigurationError(f"{name}: the value {strict_yaml.wording(error, with_line=False)}") from None

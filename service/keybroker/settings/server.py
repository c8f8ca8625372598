"""The sections about callers: the two ports, how callers are known, what they may do."""

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from keybroker.settings.base import Seconds, Section, is_loopback, split_address

_JWKS_URL = re.compile(r"(https://[^/@]+|http://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?)(/[^@]*)?")
_PROTECTIONS = {"tls": "TLS", "identity": "identity"}


class TlsSettings(Section):
    """Server certificate chain and private key, as PEM files."""

    certificate_file: Path
    private_key_file: Path


class MtlsSettings(Section):
    """Callers are known by their client certificates: SPIFFE id or DNS name. Needs server.tls."""

    client_ca_file: Path


class JwtSettings(Section):
    """Callers are known by bearer tokens, such as Kubernetes' projected service-account tokens."""

    issuer: str = Field(min_length=1)
    audience: str = Field(min_length=1)
    algorithms: list[Literal["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]] = Field(
        default=["RS256"], min_length=1
    )
    jwks_file: Path | None = None
    jwks_url: SecretStr | None = None  # its query may be a secret
    jwks_ca_file: Path | None = None
    jwks_cache_seconds: Seconds = 300.0
    leeway_seconds: float = Field(default=10.0, ge=0, le=300)

    @field_validator("jwks_url")
    @classmethod
    def _can_be_trusted(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _JWKS_URL.fullmatch(value.get_secret_value()):
            raise ValueError("must be an https URL, or an http URL of this host, without a user")
        return value

    @model_validator(mode="after")
    def _has_keys(self) -> Self:
        if (self.jwks_file is None) == (self.jwks_url is None):
            raise ValueError("must have exactly one of jwks_file, jwks_url")
        return self


class IdentitySettings(Section):
    """How callers are known: exactly one of these."""

    mtls: MtlsSettings | None = None
    jwt: JwtSettings | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.mtls is None) == (self.jwt is None):
            raise ValueError("must have exactly one of mtls, jwt")
        return self


class ServerSettings(Section):
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


class PolicySettings(Section):
    """What callers may do: one YAML file, read again when it changes."""

    file: Path

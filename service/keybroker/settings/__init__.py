"""The one model of the configuration, and the only reader of files and environment.

One YAML file, every key overridable by an environment variable KEYBROKER__SECTION__KEY (two underscores between the
levels, any case; the value is read as YAML). An unknown key is an error that names it.
"""

from keybroker.settings.base import ConfigurationError, is_loopback, split_address
from keybroker.settings.broker import (
    AuditSettings,
    EntropySettings,
    HardeningSettings,
    ImportSettings,
    LedgerSettings,
    LogSettings,
    Pkcs11Settings,
    ReceiptSettings,
)
from keybroker.settings.kms import (
    CredentialSettings,
    EcsRamRoleCredentialSettings,
    FileCredentialSettings,
    InstanceSettings,
    KmsSettings,
    PacingSettings,
    RrsaCredentialSettings,
    UriCredentialSettings,
)
from keybroker.settings.loading import ENV_PREFIX, load_settings, parse_settings, read_file, wording
from keybroker.settings.model import Settings
from keybroker.settings.server import (
    IdentitySettings,
    JwtSettings,
    MtlsSettings,
    PolicySettings,
    ServerSettings,
    TlsSettings,
)

__all__ = [
    "ENV_PREFIX",
    "AuditSettings",
    "ConfigurationError",
    "CredentialSettings",
    "EcsRamRoleCredentialSettings",
    "EntropySettings",
    "FileCredentialSettings",
    "HardeningSettings",
    "IdentitySettings",
    "ImportSettings",
    "InstanceSettings",
    "JwtSettings",
    "KmsSettings",
    "LedgerSettings",
    "LogSettings",
    "MtlsSettings",
    "PacingSettings",
    "Pkcs11Settings",
    "PolicySettings",
    "ReceiptSettings",
    "RrsaCredentialSettings",
    "ServerSettings",
    "Settings",
    "TlsSettings",
    "UriCredentialSettings",
    "is_loopback",
    "load_settings",
    "parse_settings",
    "read_file",
    "split_address",
    "wording",
]

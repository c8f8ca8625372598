"""The whole configuration."""

from typing import Self

from pydantic import Field, model_validator

from keybroker.settings.base import Section
from keybroker.settings.broker import (
    AuditSettings,
    EntropySettings,
    HardeningSettings,
    ImportSettings,
    LedgerSettings,
    LogSettings,
    ReceiptSettings,
)
from keybroker.settings.kms import KmsSettings
from keybroker.settings.server import PolicySettings, ServerSettings


class Settings(Section):
    """The whole configuration. `policy` and `server.identity` come together."""

    server: ServerSettings = Field(default_factory=ServerSettings)
    policy: PolicySettings | None = None
    kms: KmsSettings
    imports: ImportSettings = Field(default_factory=ImportSettings)
    ledger: LedgerSettings = Field(default_factory=LedgerSettings)
    audit: AuditSettings = Field(default_factory=AuditSettings)
    receipts: ReceiptSettings = Field(default_factory=ReceiptSettings)
    entropy: EntropySettings = Field(default_factory=EntropySettings)
    hardening: HardeningSettings = Field(default_factory=HardeningSettings)
    logs: LogSettings = Field(default_factory=LogSettings)

    @model_validator(mode="after")
    def _identity_has_policy(self) -> Self:
        if (self.policy is None) != (self.server.identity is None):
            raise ValueError("policy and server.identity come together: who calls, and what callers may do")
        return self

    @model_validator(mode="after")
    def _audit_log_has_its_file(self) -> Self:
        """What is appended to another file spoils that, and is no log of anything."""
        ledger = self.ledger
        others = [
            ("ledger.file", ledger.file),
            ("ledger.mark_file", ledger.mark_file),
            ("ledger.key_file", ledger.key_file),
            *(("ledger.old_key_files", path) for path in ledger.old_key_files),
            ("receipts.key_file", self.receipts.key_file),
        ]
        for key, path in others:
            if path is not None and path == self.audit.file:
                raise ValueError(f"audit.file must be another one than {key}")
        return self

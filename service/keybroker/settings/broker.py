"""The sections about what the broker itself does and keeps."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from keybroker.settings.base import Section


class ImportSettings(Section):
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


class LedgerSettings(Section):
    """Where requests are recorded, and the keys that seal what is recorded. Without `file`: in memory."""

    file: Path | None = None
    mark_file: Path | None = Field(default=None, description="on a volume that is not restored together with the file")
    key_file: Path | None = None
    old_key_files: list[Path] = Field(default_factory=list)
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


class Pkcs11Settings(Section):
    """An HSM's module, and which of its tokens. Without `pin_file`: no login."""

    module_file: Path
    token_label: str = Field(min_length=1, max_length=32)  # CK_TOKEN_INFO.label has 32 bytes
    pin_file: Path | None = None


class EntropySettings(Section):
    """Where the random bytes of key material come from. Nothing takes the place of a source that fails."""

    source: Literal["os", "pkcs11"] = "os"
    pkcs11: Pkcs11Settings | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if (self.source == "pkcs11") != (self.pkcs11 is not None):
            raise ValueError("source: pkcs11 and the section pkcs11 come together")
        return self


class LogSettings(Section):
    """Logs go to standard error, one JSON object a line."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class HardeningSettings(Section):
    """What keeps the memory of the process to itself, and which of it readiness requires."""

    dump_protection: bool = Field(default=True, description="off: for diagnosis on a machine without real keys")
    require_memory_lock: bool = False
    require_no_swap: bool = False


class AuditSettings(Section):
    """Where the audit log goes: a file, standard output, or both. Without either there is none."""

    file: Path | None = None
    stdout: bool = False

    @property
    def is_on(self) -> bool:
        """Whether anything is written."""
        return self.file is not None or self.stdout


class ReceiptSettings(Section):
    """The key that signs receipts: an Ed25519 private key, PKCS#8, PEM. Without it there are no receipts."""

    key_file: Path | None = None

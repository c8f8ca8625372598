"""What an emulator is started with: one frozen value, every field defaulted."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

from kms_emulator.faults import Fault
from kms_emulator.quotas import QuotaMode
from kms_emulator.readings import Readings


@dataclass(frozen=True, slots=True)
class AccessKey:
    """One access key of the account; with `security_token` it is an STS one.

    A request of an STS access key has to carry that token. From `expires_at` (UTC-aware) on it is refused.
    """

    access_key_id: str
    access_key_secret: str = field(repr=False)
    security_token: str = field(default="", repr=False)
    disabled: bool = False
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class EmulatorSettings:
    """Settings of one emulator: one account in one region.

    `port` 0 takes any free port. `rsa_key_pool` N > 0 generates N key pairs at start-up and cycles through them,
    which no KMS does: for benchmarks only. `admin_port` None leaves the admin API off; an empty `admin_token` makes
    one up. `max_keys` None is no limit. `quota_limits` overrides limits by quota class.
    """

    host: str = "127.0.0.1"
    port: int = 0
    allow_non_loopback: bool = False
    tls_certificate_path: Path | None = None
    tls_key_path: Path | None = None
    region: str = "cn-hangzhou"
    account_id: str = "1540355698840000"
    dkms_instance_ids: tuple[str, ...] = ("kst-example",)
    access_keys: tuple[AccessKey, ...] = (AccessKey("LTAIexample", "secret"),)
    max_keys: int | None = None
    rsa_key_pool: int = 0
    readings: Readings = field(default_factory=Readings)
    faults: tuple[Fault, ...] = ()
    fault_seed: int | None = None
    quota_mode: QuotaMode = "off"
    quota_limits: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    clock_offset_seconds: float = 0.0
    admin_port: int | None = None
    admin_token: str = field(default="", repr=False)

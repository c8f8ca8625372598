"""Builders with overridable defaults for what tests need again and again."""

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import KmsError, Reason
from keybroker.domain.external_key import CmkName
from keybroker.usecases.claims import ImportClaims
from keybroker.usecases.deliver import Deliver
from keybroker.usecases.hand_out_import_parameters import HandedOutTokens, HandOutImportParameters
from keybroker.usecases.import_external_key import ImportExternalKey
from keybroker.usecases.import_wrapped_key_material import ImportWrappedKeyMaterial, Refusals
from keybroker.usecases.keys import Keys
from keybroker.usecases.manage_keys import ManageKeys
from keybroker.usecases.obtain_import_parameters import ImportParametersCache, ObtainImportParameters
from tests.contract.fake_kms import FakeKms

ACCOUNT = "1540355698840000"
REGION = "cn-hangzhou"


class FakeClock:
    """A clock that stands still until it is moved or slept on."""

    def __init__(self) -> None:
        self._now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        self._monotonic = 1000.0
        self._lock = threading.Lock()
        self.slept: list[float] = []

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        with self._lock:
            self._now += timedelta(seconds=seconds)
            self._monotonic += seconds


class CountingEntropy:
    """Distinct, recognisable bytes; `filled` holds the lengths asked for."""

    def __init__(self) -> None:
        self.filled: list[int] = []

    def fill(self, buffer: memoryview) -> None:
        self.filled.append(len(buffer))
        buffer[:] = bytes((len(self.filled) * 37 + place) % 256 for place in range(len(buffer)))


@dataclass
class World:
    """The use cases over one fake KMS."""

    clock: FakeClock = field(default_factory=FakeClock)
    entropy: CountingEntropy = field(default_factory=CountingEntropy)
    allow_foreign_tokens: bool = False
    cache_size: int = 100
    expiry_margin_seconds: float = 300.0

    def __post_init__(self) -> None:
        self.kms = FakeKms(clock=self.clock)
        self.parameters_requests: list[str] = []
        self.cache = ImportParametersCache(
            size=self.cache_size, expiry_margin_seconds=self.expiry_margin_seconds, clock=self.clock
        )
        self.obtain = ObtainImportParameters(
            cache=self.cache, on_request=lambda result: self.parameters_requests.append(result.value)
        )
        self.keys = Keys(clock=self.clock)
        self.claims = ImportClaims(clock=self.clock)
        self.manage = ManageKeys(keys=self.keys, cache=self.cache)
        deliver = Deliver(keys=self.keys, clock=self.clock)
        tokens = HandedOutTokens(clock=self.clock)
        self.import_external_key = ImportExternalKey(
            keys=self.keys,
            manage=self.manage,
            obtain=self.obtain,
            cache=self.cache,
            claims=self.claims,
            deliver=deliver,
            entropy=self.entropy,
        )
        self.hand_out = HandOutImportParameters(keys=self.keys, obtain=self.obtain, claims=self.claims, tokens=tokens)
        self.import_wrapped = ImportWrappedKeyMaterial(
            keys=self.keys,
            obtain=self.obtain,
            cache=self.cache,
            claims=self.claims,
            deliver=deliver,
            tokens=tokens,
            refusals=Refusals(clock=self.clock),
            clock=self.clock,
            allow_foreign_tokens=self.allow_foreign_tokens,
        )

    def deadline(self, seconds: float = 15.0) -> Deadline:
        return Deadline.after(seconds, monotonic=self.clock.monotonic)

    def cmk(self, key_id: str) -> CmkName:
        return CmkName(ACCOUNT, REGION, key_id)


def lost_reply() -> KmsError:
    """The KMS was asked and did not answer in time."""
    return KmsError(Reason.KMS_UNAVAILABLE, "No answer in time.", kms_code="timeout", committed_nothing=False)


def refusal(reason: Reason, kms_code: str = "refused") -> KmsError:
    """The KMS provably changed nothing."""
    return KmsError(reason, "Refused.", kms_code=kms_code, committed_nothing=True, kms_request_id="a-request")

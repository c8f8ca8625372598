"""Builders with overridable defaults for what tests need again and again."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from keybroker.adapters.ledger.sealing import random_keyring
from keybroker.adapters.ledger.sqlite import SqliteLedger
from keybroker.assembly import Assembly, Choices, Listeners, Ports
from keybroker.domain.attempt import Attempt
from keybroker.domain.audit import AuditEvent, after
from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import BrokerError, KmsError, Reason
from keybroker.domain.external_key import CmkName, KeyReference, NewKey
from keybroker.domain.wrapping import RSAES_OAEP_SHA_256, WrappingAlgorithm
from keybroker.usecases.answers import Answer
from keybroker.usecases.asked import Asked
from keybroker.usecases.progress import Progress
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
    """Distinct, recognisable bytes; `filled` holds the lengths asked for. `failure` stands for a source that fails."""

    name = "os"
    is_health_tested = False

    def __init__(self) -> None:
        self.filled: list[int] = []
        self.failure: BrokerError | None = None
        self.fails_late = False  # only once bytes are asked for

    def check(self) -> None:
        if self.failure and not self.fails_late:
            raise self.failure

    def fill(self, buffer: memoryview) -> None:
        if self.failure:
            raise self.failure
        self.filled.append(len(buffer))
        buffer[:] = bytes((len(self.filled) * 37 + place) % 256 for place in range(len(buffer)))


class FakeAuditLog:
    """The events that were written. `failure` stands for a log that can't be."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        self.failure: BrokerError | None = None

    def write(self, events: Sequence[AuditEvent]) -> str:
        if self.failure:
            raise self.failure
        self.events += events
        return f"{len(self.events):064x}"

    def told(self, *names: str) -> list[tuple[object, ...]]:
        """The named fields of each event; None where it has none."""
        return [tuple(event.fields.get(name) for name in names) for event in self.events]


@dataclass
class World:
    """The use cases over one fake KMS and a ledger in memory.

    `restart` is what a new process on the same ledger and KMS is. `places` are the names at which `at` was told.
    """

    clock: FakeClock = field(default_factory=FakeClock)
    entropy: CountingEntropy = field(default_factory=CountingEntropy)
    choices: Choices = Choices()  # noqa: RUF009  # frozen
    allow_foreign_tokens: bool = False
    cache_size: int = 100
    expiry_margin_seconds: float = 300.0
    audit: FakeAuditLog | None = None
    receipt: Callable[[Attempt], str] = lambda _: ""
    at: Callable[[str], None] = lambda _: None

    def __post_init__(self) -> None:
        self.kms = FakeKms(clock=self.clock)
        self.ledger = SqliteLedger(
            keyring=random_keyring(), clock=self.clock, **({"to_audit": after} if self.audit else {})
        )
        self.ledger.connect()
        self.parameters_requests: list[str] = []
        self.resolved_late: list[Attempt] = []
        self.choices = replace(
            self.choices,
            allow_foreign_tokens=self.choices.allow_foreign_tokens or self.allow_foreign_tokens,
            cached_parameters=self.cache_size,
            parameters_expiry_margin_seconds=self.expiry_margin_seconds,
        )
        self.restart()

    def restart(self) -> None:
        """Forgets what a process forgets."""
        ports = Ports(
            instances=[self.kms],
            ledger=self.ledger,
            clock=self.clock,
            entropy=self.entropy,
            audit=self.audit,
            receipt=self.receipt,
        )
        listeners = Listeners(
            parameters_requested=lambda result: self.parameters_requests.append(result.value),
            resolved_late=self.resolved_late.append,
            at=self._tell,
        )
        self.assembly = Assembly(ports, self.choices, listeners)
        self.cache = self.assembly.cache
        self.obtain = self.assembly.obtain
        self.keys = self.assembly.keys
        self.claims = self.assembly.claims
        self.manage = self.assembly.manage_keys
        self.import_external_key = self.assembly.import_external_key
        self.hand_out = self.assembly.hand_out_import_parameters
        self.import_wrapped = self.assembly.import_wrapped_key_material
        self.create = self.assembly.create_external_key
        self.recovery = self.assembly.recovery
        self.trail = self.assembly.trail

    def _tell(self, place: str) -> None:
        """What `at` is at that moment."""
        self.at(place)

    def import_key(
        self,
        target: KeyReference | NewKey,
        algorithm: WrappingAlgorithm = RSAES_OAEP_SHA_256,
        *,
        request_id: str | None = None,
        caller: str = "a caller",
        allow_second_key: bool = False,
        seconds: float = 15.0,
    ) -> Answer:
        """ImportExternalKey; without `request_id` a new request."""
        return self.import_external_key.run(
            self.kms,
            Asked(caller, request_id or str(uuid4())),
            target,
            algorithm,
            allow_second_key=allow_second_key,
            progress=Progress(),
            deadline=self.deadline(seconds),
        )

    def row(self, request_id: str, caller: str = "a caller") -> Attempt | None:
        return self.ledger.find(caller, request_id)

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

"""Puts the use cases together over the ports. Part of the composition root; the tests build the same over doubles."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from keybroker.domain.attempt import Attempt
from keybroker.ports import AuditLog, Clock, EntropySource, Kms, Ledger
from keybroker.usecases.carry_on import CarryOn
from keybroker.usecases.claims import Claims
from keybroker.usecases.create_external_key import CreateExternalKey
from keybroker.usecases.create_safely import CreateSafely
from keybroker.usecases.embargo import Embargo
from keybroker.usecases.get_import import GetImport
from keybroker.usecases.hand_out_import_parameters import HandOutImportParameters
from keybroker.usecases.import_external_key import ImportExternalKey
from keybroker.usecases.import_wrapped_key_material import ImportWrappedKeyMaterial, Refusals
from keybroker.usecases.keys import Keys
from keybroker.usecases.manage_keys import ManageKeys
from keybroker.usecases.obtain_import_parameters import (
    ImportParametersCache,
    ObtainImportParameters,
    ParametersRequestResult,
)
from keybroker.usecases.orphans import Orphans
from keybroker.usecases.proof import Prover
from keybroker.usecases.recovery import Recovery
from keybroker.usecases.rows import Rows, Warn
from keybroker.usecases.settling import Settling
from keybroker.usecases.take_cmk import TakeCmk
from keybroker.usecases.trail import Trail


def _nothing(_: object) -> None:
    """Nobody listens."""


def _unlogged(event: str, **fields: str) -> None:
    """Nobody reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What the operator chooses for imports. Times in seconds."""

    cached_parameters: int = 10_000
    parameters_expiry_margin_seconds: float = 300.0
    allow_foreign_tokens: bool = False
    prove: bool = False
    sole_importer: bool = False
    create_settle_seconds: float = 10.0
    longest_call_seconds: float = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Listeners:
    """Who is told what. `at` names the places where tests stop the process (usecases/rows.py)."""

    parameters_requested: Callable[[ParametersRequestResult], None] = _nothing
    resolved_late: Callable[[Attempt], None] = _nothing
    at: Callable[[str], None] = _nothing
    warn: Warn = _unlogged


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """What the use cases stand on. `receipt` signs what an IMPORTED row says; without a key it is empty."""

    instances: Sequence[Kms]
    ledger: Ledger
    clock: Clock
    entropy: EntropySource
    audit: AuditLog | None = None
    receipt: Callable[[Attempt], str] = lambda _: ""


class Assembly:
    """The use cases of one broker, by attribute."""

    def __init__(self, ports: Ports, choices: Choices, listeners: Listeners = Listeners()) -> None:  # frozen
        clock = ports.clock
        self.cache = ImportParametersCache(
            size=choices.cached_parameters,
            expiry_margin_seconds=choices.parameters_expiry_margin_seconds,
            clock=clock,
        )
        self.obtain = ObtainImportParameters(cache=self.cache, on_request=listeners.parameters_requested)
        self.keys = Keys(clock=clock)
        self.claims = Claims()
        self.trail = Trail(outbox=ports.ledger, log=ports.audit)
        self.rows = Rows(ledger=ports.ledger, at=listeners.at, warn=listeners.warn, trail=self.trail)
        self._settling = Settling()
        self._prover = Prover(enabled=choices.prove)
        self.manage_keys = ManageKeys(keys=self.keys, cache=self.cache, trail=self.trail)
        self._embargo = Embargo(ledger=ports.ledger, settling=self._settling)
        self.take = TakeCmk(rows=self.rows, keys=self.keys, obtain=self.obtain, embargo=self._embargo)
        self.carry_on = self._carry_on(self.rows, ports, choices)
        self.create = self._create(self.rows, clock, choices)
        self.get_import = GetImport(ledger=ports.ledger)
        self._imports(ports, choices)
        self.recovery = self._recovery(ports, choices, listeners)

    def _imports(self, ports: Ports, choices: Choices) -> None:
        self.import_external_key = ImportExternalKey(
            rows=self.rows,
            keys=self.keys,
            manage=self.manage_keys,
            create=self.create,
            take=self.take,
            obtain=self.obtain,
            claims=self.claims,
            carry_on=self.carry_on,
            entropy=ports.entropy,
            clock=ports.clock,
        )
        self.import_wrapped_key_material = ImportWrappedKeyMaterial(
            rows=self.rows,
            take=self.take,
            claims=self.claims,
            carry_on=self.carry_on,
            refusals=Refusals(clock=ports.clock),
            clock=ports.clock,
            allow_foreign_tokens=choices.allow_foreign_tokens,
        )
        self.hand_out_import_parameters = HandOutImportParameters(
            rows=self.rows, keys=self.keys, take=self.take, obtain=self.obtain, claims=self.claims
        )
        self.create_external_key = CreateExternalKey(
            rows=self.rows, manage=self.manage_keys, create=self.create, claims=self.claims
        )
        self.orphans = Orphans(
            rows=self.rows,
            keys=self.keys,
            manage=self.manage_keys,
            claims=self.claims,
            embargo=self._embargo,
            clock=ports.clock,
        )

    def _recovery(self, ports: Ports, choices: Choices, listeners: Listeners) -> Recovery:
        """The recovery writes rows of its own, so that what it brings to an end is counted there."""
        rows = Rows(
            ledger=ports.ledger,
            at=listeners.at,
            on_finished=listeners.resolved_late,
            warn=listeners.warn,
            trail=self.trail,
        )
        return Recovery(
            instances=ports.instances,
            rows=rows,
            claims=self.claims,
            carry_on=self._carry_on(rows, ports, choices),
            create=self._create(rows, ports.clock, choices),
            settling=self._settling,
            clock=ports.clock,
            longest_call_seconds=choices.longest_call_seconds,
        )

    def _carry_on(self, rows: Rows, ports: Ports, choices: Choices) -> CarryOn:
        return CarryOn(
            rows=rows,
            keys=self.keys,
            obtain=self.obtain,
            prover=self._prover,
            settling=self._settling,
            clock=ports.clock,
            sole_importer=choices.sole_importer,
            receipt=ports.receipt,
        )

    def _create(self, rows: Rows, clock: Clock, choices: Choices) -> CreateSafely:
        return CreateSafely(
            rows=rows,
            keys=self.keys,
            embargo=self._embargo,
            clock=clock,
            settle_seconds=choices.create_settle_seconds,
        )

"""A site: two broker processes over one ledger and one KMS, people beside the broker, and a clock. Events happen to it.

Everything is done by one thread at a time. A process stands still at an interrupt while something else happens; the
other process may act then, the same one not. A crash takes everything from a process but what it had written.
"""

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from unittest.mock import patch
from uuid import NAMESPACE_OID, UUID, uuid5

from keybroker.adapters.ledger import restores
from keybroker.adapters.ledger.mark import Reading, Recorded
from keybroker.adapters.ledger.sealing import random_keyring
from keybroker.adapters.ledger.sqlite import SqliteLedger
from keybroker.assembly import Assembly, Choices, Listeners, Ports
from keybroker.domain.attempt import UNFINISHED, Kind
from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import BrokerError, Reason
from keybroker.domain.external_key import CmkName, KeyReference, NewKey
from keybroker.domain.import_parameters import ImportParameters  # noqa: TC001  # as everywhere
from keybroker.domain.key_spec import AES_256
from keybroker.domain.wrapping import RSAES_OAEP_SHA_256, WRAPPING_ALGORITHMS
from keybroker.usecases import recovery
from keybroker.usecases.answers import Answer
from keybroker.usecases.asked import Asked
from keybroker.usecases.create_safely import REQUEST_TAG
from keybroker.usecases.import_wrapped_key_material import Given
from keybroker.usecases.progress import Progress
from tests.builders import ACCOUNT, REGION, FakeClock
from tests.contract.fake_kms import shared_wrapping_pair
from tests.unit.exactly_once.events import WRITES, Event, Interrupt, What
from tests.unit.exactly_once.faults import ERRORS
from tests.unit.exactly_once.requests import People, Request
from tests.unit.exactly_once.truth import Truth
from tests.unit.exactly_once.watched_kms import WatchedKms

_CALL_SECONDS = 4.0
_PROCESSES = 2


class Killed(BaseException):
    """A process stopped here, for good."""


class SiteClock(FakeClock):
    """A FakeClock under which checked messages land before their time is over."""

    kms: WatchedKms

    def advance(self, seconds: float) -> None:
        end = self._now + timedelta(seconds=seconds)
        while (landing := self.kms.latest_landing()) is not None and landing - self.kms.ahead <= end:
            super().advance(max(0.0, (landing - self.kms.ahead - self._now).total_seconds()))
            self.kms.land()
        super().advance(max(0.0, (end - self._now).total_seconds()))

    def set_by(self, seconds: float) -> None:
        """The broker's clock is set; the KMS's goes on as it did."""
        self._now += timedelta(seconds=seconds)
        self.kms.ahead -= timedelta(seconds=seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """What the KMS is like, and what the operator has chosen."""

    same_material_reimport: bool = True
    newest_token_only: bool = False
    enabled_lag_seconds: float = 0.0
    enabled_after_describes: int = 0
    tag_filters_ignored: bool = False
    tag_filter_lag_seconds: float = 0.0
    encrypt_works: bool = True
    prove: bool = False
    sole_importer: bool = False  # nobody beside the broker imports then


@dataclass(slots=True)
class Process:
    """A running broker."""

    assembly: Assembly
    interrupts: list[tuple[Interrupt, int]] = field(default_factory=list)
    request: Request | None = None
    claimed: bool = False  # the row of its request was CLAIMED by it, or when it came
    stood_still: bool = False  # since then
    dead: bool = False


class Site:
    """See the module. `truth` watches; `requests` is who asks for what, `first` where the newest of them begin."""

    name = "os"  # ports.EntropySource
    is_health_tested = False

    def __init__(self, readings: Readings, people: People) -> None:
        self.readings = readings
        self.people = people
        self.requests: list[Request] = []
        self.first = 0
        self.key_ids: list[str] = []
        self.clock = SiteClock()
        self.kms = self.clock.kms = _kms(readings, self.clock)
        self.ledger = SqliteLedger(keyring=random_keyring(), clock=self.clock)
        self.ledger.connect()
        self._renew()
        self._pairs: dict[str, ImportParameters] = {}
        self.running: list[Process] = []
        self.generated = 0
        self.truth = Truth(self.kms, self.ledger, readings.sole_importer)
        self.kms.at = self._at
        self.kms.on_arrival = self.truth.arrived
        self.kms.on_fetch = self._fetched
        self.processes = [self._started() for _ in range(_PROCESSES)]
        self._copy: sqlite3.Connection | None = None

    def close(self) -> None:
        """Lets go of the ledger."""
        self.ledger.close()
        if self._copy is not None:
            self._copy.close()

    def happen(self, event: Event) -> None:
        """Lets it happen, and looks whether all is as it must be."""
        self._happen(event)
        self.truth.look()

    def _happen(self, event: Event) -> None:  # noqa: C901, PLR0912  # one arm an event
        match event.what:
            case What.CALL | What.CONSENT | What.RECOVER | What.HAND_OUT | What.DELETE_ORPHAN:
                self._act(event)
            case What.RENEW:
                self._renew()
            case What.RESTART:
                self._restart(event.process)
            case What.FOREIGN_IMPORT if not self.readings.sole_importer:
                self.kms.bind_foreign(self._key_id(event))
            case What.FOREIGN_FETCH if not self.readings.sole_importer:
                cmk = CmkName(ACCOUNT, REGION, self._key_id(event))
                with self._aside():
                    self.kms.get_parameters_for_import(cmk, RSAES_OAEP_SHA_256, deadline=self._time())
            case What.FOREIGN_TAG | What.FOREIGN_ALIAS:
                self._take_name(event)
            case What.LAND:
                self.kms.land()
            case What.MOVE:
                self.clock.advance(event.number)
            case What.LOCAL_CLOCK:
                self.clock.set_by(event.number)
            case What.COPY_LEDGER:
                self._copy_ledger()
            case What.RESTORE_LEDGER if not self.running:
                self._restore_ledger()
            case What.CRASH if self.running:
                self.running[-1].dead = True
                raise Killed
            case What.LEDGER_FAILS:
                raise BrokerError(Reason.LEDGER_UNAVAILABLE, "The disk is full.")

    def _take_name(self, event: Event) -> None:
        """Somebody gives a CMK of theirs what would make it look like a request's."""
        key_id = self.key_ids[-1 - event.number % self.people.cmks]
        for request in self.requests[self.first :]:
            if not isinstance(request.target, NewKey) or request.target.spec is AES_256:
                continue
            if event.what is What.FOREIGN_TAG:
                self.kms.set_tags(key_id, {REQUEST_TAG: self.ledger.tag(*request.identity)})
            elif request.target.alias:
                with self._aside(), suppress(BrokerError):
                    self.kms.create_alias(key_id, request.target.alias, deadline=self._time())
            return

    # What processes do

    def _act(self, event: Event) -> None:
        process = self.processes[event.process]
        if process in self.running:
            return
        for fault in event.faults:
            self.kms.fail_next(fault.operation, ERRORS[fault.error](), fault.fate, fault.times)
        process.interrupts = [(interrupt, interrupt.nth) for interrupt in event.interrupts]
        process.claimed = process.stood_still = False
        self.running.append(process)
        try:
            self._do(process, event)
        except Killed:
            self._restart(event.process)
        finally:
            self.running.pop()
            process.interrupts, process.request = [], None
            if not self.running:
                self.kms.forget_faults()

    def _do(self, process: Process, event: Event) -> None:
        match event.what:
            case What.RECOVER:
                with patch.object(recovery, "_PARALLEL", 1):
                    process.assembly.recovery.run_due()
            case What.HAND_OUT:
                self._hand_out(process, self._key_id(event))
            case What.DELETE_ORPHAN:
                self._delete_orphan(process, self._key_id(event))
            case _:
                self._call(process, self._request(event.number), consent=event.what is What.CONSENT)

    def _call(self, process: Process, request: Request, *, consent: bool) -> None:
        if request.kind is Kind.IMPORT_WRAPPED and not self._wrapped(process, request):
            return
        process.request = request
        row = self.ledger.find(*request.identity)
        process.claimed = row is not None and row.state in UNFINISHED
        if consent:
            self.truth.consented(request)
        outcome: Answer | BrokerError
        try:
            outcome = self._asked(process, request, consent=consent)
        except BrokerError as error:
            outcome = error
        self.truth.told(request, outcome)

    def _asked(self, process: Process, request: Request, *, consent: bool) -> Answer:
        asked, target = Asked(request.caller, request.request_id), self._target(request)
        if request.kind is Kind.IMPORT_WRAPPED and isinstance(target, KeyReference) and request.given is not None:
            use_case = process.assembly.import_wrapped_key_material
            return use_case.run(self.kms, asked, target, request.given, deadline=self._time())
        if request.kind is Kind.CREATE and isinstance(target, NewKey):
            return process.assembly.create_external_key.run(
                self.kms, asked, target, allow_second_key=consent, progress=Progress(), deadline=self._time()
            )
        return process.assembly.import_external_key.run(
            self.kms,
            asked,
            target,
            WRAPPING_ALGORITHMS[request.algorithm],
            allow_second_key=consent,
            progress=Progress(),
            deadline=self._time(),
        )

    def _target(self, request: Request) -> KeyReference | NewKey:
        if isinstance(request.target, NewKey):
            return request.target
        return KeyReference(self.key_ids[request.target])

    def _wrapped(self, process: Process, request: Request) -> bool:
        """The caller generates and wraps its own material, once."""
        if request.given is not None:
            return True
        if isinstance(request.target, NewKey):
            return False
        key_id = self.key_ids[request.target]
        if key_id not in self._pairs:
            self._hand_out(process, key_id)
        pair = self._pairs.get(key_id)
        if pair is None:
            return False
        material = self._new_material(request, 32)
        wrapped = shared_wrapping_pair().public_key().encrypt(material, pair.algorithm.padding)
        request.given = Given(wrapped, pair.import_token)
        return True

    def _hand_out(self, process: Process, key_id: str) -> None:
        try:
            self._pairs[key_id] = process.assembly.hand_out_import_parameters.run(
                self.kms, KeyReference(key_id), RSAES_OAEP_SHA_256, deadline=self._time()
            )
        except BrokerError:
            return

    def _delete_orphan(self, process: Process, key_id: str) -> None:
        asked = Asked("an operator", str(uuid5(NAMESPACE_OID, f"delete {key_id}")))
        try:
            process.assembly.orphans.delete(
                self.kms, asked, KeyReference(key_id), pending_window=timedelta(days=7), deadline=self._time()
            )
        except BrokerError:
            return
        self.truth.deleted(key_id)

    def check(self) -> None:
        """ports.EntropySource: it always answers."""

    def fill(self, buffer: memoryview) -> None:
        """ports.EntropySource: material that tells whose it is."""
        request = self.running[-1].request
        if request is None:
            raise AssertionError("only calls generate material")
        buffer[:] = self._new_material(request, len(buffer))

    def _new_material(self, request: Request, length_bytes: int) -> bytes:
        self.generated += 1
        material = hashlib.sha256(b"%d" % self.generated).digest()[:length_bytes]
        self.truth.generated(request, material)
        return material

    # Where they stand

    def _at(self, place: str) -> None:
        if not self.running:
            return
        process = self.running[-1]
        if process.dead:
            raise Killed
        if place == "claim: after":
            process.claimed, process.stood_still = True, False
        reached = [(each, left - 1 if each.place == place else left) for each, left in process.interrupts]
        process.interrupts = [(each, left) for each, left in reached if left]
        for each, left in reached:
            if not left and (each.event.what is not What.LEDGER_FAILS or place in WRITES):
                process.stood_still |= each.event.what not in {What.CRASH, What.LEDGER_FAILS}
                self._happen(each.event)

    def _fetched(self, cmk: CmkName) -> None:
        """Who stood still may have lost the claim, and fetches in vain; who fetches without a claim has no excuse."""
        process = self.running[-1] if self.running else None
        if process is not None and not (process.stood_still and (process.claimed or process.request is None)):
            self.truth.fetched(cmk)

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Somebody beside the broker does it, and no fault meets them."""
        running, self.running = self.running, []
        try:
            with self.kms.without_faults():
                yield
        finally:
            self.running = running

    def _renew(self) -> None:
        self.first = len(self.requests)
        self.requests += self.people.requests(self.first, len(self.key_ids))
        self.key_ids += [self.kms.add_key() for _ in range(self.people.cmks)]

    def _request(self, number: int) -> Request:
        return self.requests[self.first + number % (len(self.requests) - self.first)]

    def _key_id(self, event: Event) -> str:
        """The newest are counted from their first, then those that were made since."""
        known = self.kms.key_ids
        newest = known[known.index(self.key_ids[-self.people.cmks]) :]
        return newest[event.number % len(newest)]

    def _time(self) -> Deadline:
        return Deadline.after(_CALL_SECONDS, monotonic=self.clock.monotonic)

    # How they start

    def _started(self) -> Process:
        ports = Ports(instances=[self.kms], ledger=self.ledger, clock=self.clock, entropy=self)
        choices = Choices(
            prove=self.readings.prove, sole_importer=self.readings.sole_importer, create_settle_seconds=2.0
        )
        return Process(Assembly(ports, choices, Listeners(at=self._at)))

    def _restart(self, number: int) -> None:
        if self.processes[number] not in self.running or self.processes[number].dead:
            self.processes[number] = self._started()

    # The ledger's copies

    def _copy_ledger(self) -> None:
        if self._copy is not None:
            self._copy.close()
        self._copy = sqlite3.connect(":memory:", check_same_thread=False)
        with self.ledger._database.reading() as connection:
            connection.backup(self._copy)

    def _restore_ledger(self) -> None:
        if self._copy is None:
            return
        with self.ledger._database.reading() as connection:
            ledger_id, lost = connection.execute("SELECT ledger_id, sequence FROM meta").fetchone()
            self._copy.backup(connection)
        reading = Reading(Recorded(UUID(ledger_id), lost), blank=False)
        with self.ledger._database.writing() as connection:
            sequence = connection.execute("SELECT sequence FROM meta").fetchone()[0]
            if restores.is_restored(UUID(ledger_id), sequence, reading):
                restores.note_restore(connection, sequence, reading)
        if sequence < lost:
            self.truth.restored()
        for number in range(_PROCESSES):
            self._restart(number)


def _kms(readings: Readings, clock: SiteClock) -> WatchedKms:
    kms = WatchedKms(clock=clock)
    kms.same_material_reimport = readings.same_material_reimport
    kms.newest_token_only = readings.newest_token_only
    kms.enabled_lag_seconds = readings.enabled_lag_seconds
    kms.show_enabled_after_describes(readings.enabled_after_describes)
    kms.tag_filters_ignored = readings.tag_filters_ignored
    kms.tag_filter_lag_seconds = readings.tag_filter_lag_seconds
    kms.encrypt_refused = not readings.encrypt_works
    return kms

"""The course of one cell: the call under the fault, the end of the fault, and the way to an answer that stays.

Wherever the caller is told something, it is held against the emulator's truth (judgement.py).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import uuid4

from keybroker.domain.errors import Reason
from keybroker_client import KeyBrokerError
from keymaterial.v1 import types_pb2 as pb
from kms_emulator import Fault
from tests.integration.fault_matrix.axes import (
    DEADLINE_SECONDS,
    DELAY,
    EXISTING,
    PAST_THE_DEADLINE_SECONDS,
    REFUSED,
    Cell,
    Length,
)
from tests.integration.fault_matrix.judgement import ARROW, Told, Truth, check
from tests.integration.fault_matrix.stack import NotStruckError, Site

TIME_TO_CONVERGE_SECONDS = 30.0
_PAST_EVERY_EXPIRY_SECONDS = 24 * 3600 + 301
_APART_SECONDS = 62
_SLACK_SECONDS = 2.0  # the broker cuts the deadline itself; on a busy machine the answer may take its time
_LOST_CREATION = Fault(operation="CreateKey", when="after", action="drop")
_AT_REST = {pb.REQUEST_STATE_RELEASED} | {
    getattr(pb, f"REQUEST_STATE_{name}")
    for name in ("IMPORTED", "ENABLED_UNATTRIBUTED", "NOT_IMPORTED", "ALREADY_BOUND")
}


@dataclass(slots=True)
class Run:
    """One cell while it runs. `told` in the order of the calls; `by` how the last answer was come by."""

    cell: Cell
    site: Site
    truth: Truth
    key_id: str = ""
    request_id: str = field(default_factory=lambda: str(uuid4()))
    told: list[Told] = field(default_factory=list)
    by: str = ""
    consent_is_spent: bool = False
    moved_seconds: float = 0.0

    def call(self, *, consent: bool = False) -> Told:
        """One call with the cell's request id; what it is told is judged at once."""
        algorithm = pb.WRAPPING_ALGORITHM_RSAES_PKCS1_V1_5 if self.cell.world.pkcs1 else None
        try:
            response = self.site.client.import_external_key(
                key_id=self.key_id or None,
                new_key=None if self.key_id else self._new_key(),
                wrapping_algorithm=algorithm,
                allow_second_key=consent,
                instance=self.site.instance,
                request_id=self.request_id,
                timeout_seconds=DEADLINE_SECONDS + _SLACK_SECONDS,
            )
        except KeyBrokerError as error:
            told = Told.of_error(error)
        else:
            told = Told.of_response(response)
        self.told.append(told)
        check(told, self.truth)
        return told

    def _new_key(self) -> pb.NewKey:
        alias = f"alias/{self.request_id}" if self.cell.place.alias else ""
        return pb.NewKey(key_spec=pb.KEY_SPEC_AES_256, alias=alias)


def run_cell(cell: Cell, site: Site) -> str:
    """What the caller was told and what became of it, in the words of the table.

    AssertionError, KeyBrokerError: something is false. NotStruckError: the cell did not come about.
    """
    emulator = site.lane.emulator
    run = Run(cell, site, Truth(emulator, known=frozenset(emulator.key_ids)))
    if cell.target == EXISTING:
        run.key_id = emulator.create_key(dkms_instance_id=site.dkms_instance_id)
    try:
        return _course(run)
    finally:
        emulator.clock.advance(-run.moved_seconds)


def _course(run: Run) -> str:
    first = _call_under_fault(run)
    ended_at = time.monotonic()
    if first.is_passing:
        assert not run.truth.successful_imports(), f"told {first.reason}, and it was imported"
    last = _converge(run, first)
    seconds = time.monotonic() - ended_at
    assert seconds < TIME_TO_CONVERGE_SECONDS, f"no answer that stays in {seconds:.0f} s"
    run.truth.check_keys(second_allowed=run.cell.world.filters_off and run.by == "consent")
    for told in run.told:
        if told.is_final:
            check(told, run.truth)  # also afterwards
            assert told.content == last.content, f"{told} became {last}"
    return first.words if last.words == first.words else ARROW.join(filter(None, (first.words, run.by, last.words)))


def _call_under_fault(run: Run) -> Told:
    struck = _arm(run)
    started_at = time.monotonic()
    try:
        told = run.call()
        if not struck():
            raise NotStruckError(told.words)
    finally:
        _end_fault(run, started_at=started_at)
    return told


def _arm(run: Run) -> Callable[[], bool]:
    """Arms the cell's fault; the result says whether it has struck."""
    cell, emulator = run.cell, run.site.lane.emulator
    if cell.place.lost_creation:
        emulator.faults.add(_LOST_CREATION)
    if cell.ill is REFUSED:
        run.site.lane.aim.arm(cell.place, times=1 if cell.length is Length.ONCE else 0)
        return lambda: run.site.lane.aim.struck > 0
    faults = cell.ill.faults(cell.place, cell.length)
    for fault in faults:
        emulator.faults.add(fault)
    return lambda: all(struck for _, struck in emulator.faults.armed())


def _end_fault(run: Run, *, started_at: float) -> None:
    """Nothing strikes any more, and whatever was under way has landed.

    What is delayed lands before the end, or it would depend on the recovery's haste whether its resend is first.
    """
    lane = run.site.lane
    if run.cell.ill is DELAY:
        time.sleep(max(0.0, started_at + PAST_THE_DEADLINE_SECONDS + _SLACK_SECONDS / 2 - time.monotonic()))
    lane.aim.clear()
    lane.emulator.faults.clear()
    lane.emulator.land_late()
    until = time.monotonic() + 10.0
    while lane.emulator.in_flight and time.monotonic() < until:
        time.sleep(0.02)


def _converge(run: Run, told: Told) -> Told:
    if told.is_final:
        run.by = "repeat"
        return run.call()
    if told.reason == Reason.IMPORT_UNRESOLVED and run.cell.target == EXISTING and not run.cell.world.pkcs1:
        _await_recovery(run)
    return _repeat(run)


def _await_recovery(run: Run) -> None:
    """The recovery alone, read by GetImport."""
    until = time.monotonic() + TIME_TO_CONVERGE_SECONDS
    while time.monotonic() < until:
        state = run.site.client.get_import(request_id=run.request_id).state
        if state in _AT_REST:
            return
        time.sleep(0.1)
    raise AssertionError("the recovery found no answer")


def _repeat(run: Run) -> Told:
    until = time.monotonic() + TIME_TO_CONVERGE_SECONDS
    while time.monotonic() < until:
        told = run.call()
        if told.is_final:
            return run.call()
        if told.reason == Reason.CREATE_OUTCOME_UNKNOWN and _consents(run):
            run.by = "consent"
            told = run.call(consent=True)
            run.consent_is_spent = not told.did_nothing
        elif told.reason == Reason.IMPORT_UNRESOLVED and run.cell.world.pkcs1:
            _expire(run)
        time.sleep(min(told.retry_after_seconds or 0.1, 1.0))
    raise AssertionError(f"no answer that stays after {[told.words for told in run.told]}")


def _consents(run: Run) -> bool:
    """A caller consents when he has looked: there is no CMK, or the KMS can't be asked for it.

    Once: again only after an answer that says that nothing came of it.
    """
    return not run.consent_is_spent and (run.cell.world.filters_off or not run.truth.created_key_ids())


def _expire(run: Run) -> None:
    """The emulator's clock goes past the expiry of every token, then past the settling."""
    seconds = _APART_SECONDS if run.moved_seconds else _PAST_EVERY_EXPIRY_SECONDS
    run.by = "token expiry"
    run.moved_seconds += seconds
    run.site.lane.emulator.clock.advance(seconds)

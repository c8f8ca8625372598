"""A stream of imports through brokers that are killed, or stopped and woken beside another, at any moment.

Every caller repeats its request until the answer is final, through whichever broker serves. In the end each answer is
held against the emulator's truth, and told again by the last broker.
"""

import random
import signal
import tempfile
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from keybroker.domain.errors import Reason
from keybroker.usecases.create_safely import REQUEST_TAG
from kms_emulator import Fault
from tests.integration.crash_answers import Told, check_true
from tests.integration.crash_points import IMPORTED
from tests.integration.crashing import Broker, Nursery, Site
from tests.soak.plan import Plan

_CALLERS = 6
_CALL_SECONDS = 5.0
_REQUEST_SECONDS = 90.0
_UNKNOWN_BEFORE_CONSENT = 6
_LONGEST_PEACE_SECONDS = 0.8
_STOPS_AMONG = 4  # one of so many is a stop instead of a kill
_DELAYS = (
    Fault(action="delay", delay_seconds=0.03, count=0, probability=0.3),
    Fault(when="after", action="delay", delay_seconds=0.03, count=0, probability=0.3),
    Fault(operation="ImportKeyMaterial", when="after", action="drop", count=0, probability=0.05),
    Fault(operation="CreateKey", when="after", action="drop", count=0, probability=0.05),
)


@dataclass(frozen=True, slots=True)
class _Done:
    request_id: str
    key_id: str | None
    told: Told
    consented: bool


@dataclass(slots=True)
class _Stream:
    site: Site
    broker: Broker
    over: threading.Event = field(default_factory=threading.Event)
    done: list[_Done] = field(default_factory=list)

    def call_on_and_on(self, seed: int) -> None:
        """One caller."""
        chance = random.Random(seed)
        while not self.over.is_set():
            key_id = self.site.emulator.create_key() if chance.random() < 0.5 else None
            self.done.append(self._ended(str(uuid.uuid4()), key_id))

    def _ended(self, request_id: str, key_id: str | None) -> _Done:
        ends_at = time.monotonic() + _REQUEST_SECONDS
        unknown, consented = 0, False
        while True:
            consent = unknown >= _UNKNOWN_BEFORE_CONSENT
            consented = consented or consent
            told = self.broker.told(request_id, key_id, seconds=_CALL_SECONDS, consent=consent)
            if told.is_final:
                return _Done(request_id, key_id, told, consented)
            unknown += told.outcome == Reason.CREATE_OUTCOME_UNKNOWN
            assert time.monotonic() < ends_at, f"still {told.outcome} after {_REQUEST_SECONDS} s"
            time.sleep(0.02)


def soak(plan: Plan) -> str:
    """Five deaths or stops for each round."""
    chance = random.Random(plan.seed)
    reports = []
    for reimport in (True, False):
        with (
            tempfile.TemporaryDirectory() as folder,
            Nursery() as nursery,
            Site(nursery, Path(folder), same_material_reimport=reimport) as site,
        ):
            reports.append(_run(site, chance, deaths=5 * plan.rounds // 2))
    return ", ".join(reports)


def _run(site: Site, chance: random.Random, *, deaths: int) -> str:
    for fault in _DELAYS:
        site.emulator.faults.add(fault)
    stream = _Stream(site, site.broker())
    with ThreadPoolExecutor(_CALLERS) as pool:
        callers = [pool.submit(stream.call_on_and_on, chance.randrange(2**32)) for _ in range(_CALLERS)]
        try:
            stops = sum(_disturbed(stream, chance) for _ in range(deaths))
        finally:
            stream.over.set()
        for caller in callers:
            caller.result()
    site.settle()
    outcomes = _check(stream)
    return f"{deaths - stops} kills and {stops} stops during {len(stream.done)} imports ({outcomes})"


def _disturbed(stream: _Stream, chance: random.Random) -> bool:
    """Whether it was a stop."""
    time.sleep(chance.uniform(0.0, _LONGEST_PEACE_SECONDS))
    old = stream.broker
    if chance.randrange(_STOPS_AMONG):
        old.kill()
        stream.broker = stream.site.broker()
        return False
    stream.broker = stream.site.broker()
    old.signal(signal.SIGSTOP)
    time.sleep(chance.uniform(0.0, _LONGEST_PEACE_SECONDS))
    old.signal(signal.SIGCONT)
    time.sleep(chance.uniform(0.0, _LONGEST_PEACE_SECONDS))
    old.kill()
    return True


def _check(stream: _Stream) -> str:
    emulator = stream.site.emulator
    for done in stream.done:
        key_id = done.key_id or done.told.key_id
        assert done.told.outcome in {IMPORTED, Reason.ENABLED_UNATTRIBUTED}, done.told
        check_true(done.told, emulator, key_id)
        again = stream.broker.told(done.request_id, done.key_id)
        assert again.content == done.told.content, (done.told, again)
        assert again.replayed
    _check_keys(stream)
    imported = sum(done.told.outcome == IMPORTED for done in stream.done)
    consents = sum(done.consented for done in stream.done)
    return f"{imported} IMPORTED, {len(stream.done) - imported} ENABLED_UNATTRIBUTED, {consents} consents"


def _check_keys(stream: _Stream) -> None:
    """One material a CMK; one CMK a request, and as many as were consented to beside."""
    emulator = stream.site.emulator
    assert all(len(emulator.accepted_imports(key_id)) <= 1 for key_id in emulator.key_ids)
    created = emulator.created_key_ids
    wanted = [done for done in stream.done if done.key_id is None]
    assert {done.told.key_id for done in wanted} <= set(created)
    assert len({emulator.tags(key_id)[REQUEST_TAG] for key_id in created}) == len(wanted)
    assert len(created) <= len(wanted) + sum(done.consented for done in wanted)

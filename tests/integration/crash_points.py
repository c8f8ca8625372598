"""The crash points of the import protocol, and what it is to die or to pause at one. Source: docs/exactly-once.md.

Points 1 to 17 by their numbers, those around CreateKey and CreateAlias by letters. Point 18 needs a clock that is
moved, see test_crashes.py.
"""

import random
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from keybroker.domain.errors import Reason
from kms_emulator import Fault
from tests.integration.crash_answers import Told, check_true
from tests.integration.crashing import Broker, Site, Stop

IMPORTED = "IMPORTED"
_KILLED = -9
_MEANWHILE_SECONDS = 1.2
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Point:
    """The broker stops at `stop`, or the emulator holds the call that the last of `faults` names.

    `outcome`: what the same request is told in the end; `once`: where the KMS refuses any second import.
    """

    name: str
    stop: Stop | None = None
    faults: Sequence[Fault] = ()
    outcome: str = IMPORTED
    once: str = ""

    def expected(self, *, reimport: bool) -> str:
        """The outcome under a reading of same_material_reimport."""
        return self.outcome if reimport else self.once or self.outcome


def _held(operation: str, when: str, *before: Fault) -> Sequence[Fault]:
    return (*before, Fault(operation=operation, when=when, action="hold"))  # type: ignore[arg-type]


def _refused(code: str, operation: str = "ImportKeyMaterial") -> Fault:
    return Fault(operation=operation, action="error", code=code)


_UNATTRIBUTED = Reason.ENABLED_UNATTRIBUTED.value
_TOKEN_REFUSED = Reason.IMPORT_TOKEN_INVALID.value
_THROTTLED = (_refused("Rejected.Throttling"),)
_BAD_TOKEN = (_refused("InvalidImportToken"),)
_REPLY_LOST = (Fault(operation="ImportKeyMaterial", when="after", action="drop"),)
_NEVER_SENT = (Fault(operation="ImportKeyMaterial", when="before", action="drop"),)
_FOREIGN = Fault(operation="ImportKeyMaterial", action="foreign_import")

IMPORT_POINTS = [
    Point("1 before the claim", Stop("claim: before")),
    Point("2 claimed", Stop("claim: after")),
    Point("3 pair issued, reply lost", faults=_held("GetParametersForImport", "after")),
    Point("4 pair in hand", Stop("pair: in hand")),
    Point("5 generated", Stop("material: generated")),
    Point("5 wrapped, before PREPARED", Stop("prepare: before")),
    Point("6 PREPARED", Stop("prepare: after")),
    Point("6 before the send", Stop("send: before")),
    Point("7 sent, not landed", faults=_held("ImportKeyMaterial", "before"), once=_UNATTRIBUTED),
    Point("8 throttled, reply not read", faults=_held("ImportKeyMaterial", "before", *_THROTTLED)),
    Point(
        "8 refused beside another's, reply not read",
        faults=_held("ImportKeyMaterial", "after", _FOREIGN),
        outcome=_UNATTRIBUTED,
    ),
    Point("9 bound, reply not read", faults=_held("ImportKeyMaterial", "after"), once=_UNATTRIBUTED),
    Point("10 success read", Stop("send: accepted"), once=_UNATTRIBUTED),
    Point("10 before ACCEPTED", Stop("acceptance: before"), once=_UNATTRIBUTED),
    Point("11 refusal read", Stop("send: refused"), _THROTTLED),
    Point("11 before refused + 1", Stop("refusal: before"), _THROTTLED),
    Point("11 refused + 1", Stop("refusal: after"), _THROTTLED),
    Point("12 ACCEPTED", Stop("acceptance: after")),
    Point("13 Enabled seen", Stop("finish: before")),
    Point("14 terminal", Stop("finish: after")),
    Point("15 before the resend is recorded", Stop("resend: before"), _NEVER_SENT),
    Point("15 resend recorded", Stop("resend: after"), _NEVER_SENT),
    Point("15 resend recorded of what is bound", Stop("resend: after"), _REPLY_LOST, once=_UNATTRIBUTED),
    Point("16 rewrap: pair in hand", Stop("rewrap: pair in hand"), _BAD_TOKEN, _TOKEN_REFUSED),
    Point("16 rewrap: before its CAS", Stop("rewrap: before"), _BAD_TOKEN, _TOKEN_REFUSED),
    Point("17 rewrap recorded", Stop("rewrap: after"), _BAD_TOKEN),
    Point("17 rewrap recorded, before its send", Stop("send: before", nth=2), _BAD_TOKEN),
]

_NO_KEY = Reason.CREATE_OUTCOME_UNKNOWN.value
_CREATE_THROTTLED = (_refused("Rejected.Throttling", "CreateKey"),)

CREATE_POINTS = [
    Point("a CreateKey recorded", Stop("create: after"), outcome=_NO_KEY),
    Point("b before CreateKey is sent", Stop("create: before", nth=2), outcome=_NO_KEY),
    Point("c CreateKey sent, not landed", faults=_held("CreateKey", "before")),
    Point("d CMK created, reply not read", faults=_held("CreateKey", "after")),
    Point("e CMK created, reply read", Stop("create: accepted")),
    Point("f before the CMK is recorded", Stop("created: before")),
    Point("g CMK recorded", Stop("created: after")),
    Point("h CreateKey refused", Stop("create refused: before"), _CREATE_THROTTLED, _NO_KEY),
    Point("i refusal of CreateKey recorded", Stop("create refused: after"), _CREATE_THROTTLED),
]

PAUSE_POINTS = [point for point in IMPORT_POINTS if point.stop is not None]


@dataclass(slots=True)
class Request:
    """One request on a site: into a CMK that is there, or with `key_id` None into a new one."""

    site: Site
    key_id: str | None
    request_id: str

    def check(self, told: Told) -> None:
        """What was told is true; one material, one CMK."""
        created = self.site.emulator.created_key_ids
        assert len(created) == (0 if self.key_id else len(created[:1])), f"{len(created)} CMKs were created"
        for key_id in [self.key_id] if self.key_id else created:
            check_true(told, self.site.emulator, key_id)

    def check_repeat(self, broker: Broker, told: Told) -> None:
        """It is told again, as what it is."""
        again = broker.told(self.request_id, self.key_id)
        assert again.content == told.content
        assert again.replayed
        self.check(again)


def new_request(site: Site, *, new_key: bool) -> Request:
    """A request that nobody has made yet."""
    return Request(site, None if new_key else site.emulator.create_key(), str(uuid.uuid4()))


def crash(request: Request, point: Point, *, seconds: float = 0.0, release_late: bool = False) -> Told:
    """Dies at the point, `seconds` after it; what the same request is told by a new process, once that is final.

    A held call goes on before the restart, or with `release_late` some time after it.
    """
    site = request.site
    broker = site.broker(point.stop and replace(point.stop, seconds=seconds))
    with ThreadPoolExecutor(1) as pool:
        call = _called(pool, broker, request, point)
        if point.stop is None:
            site.emulator.wait_until_held()
            time.sleep(seconds)
            broker.kill()
        assert broker.wait_until_dead() == _KILLED
        assert call.result().outcome == "", "the broker answered, and then died"
        if not release_late:
            site.settle()
        broker = site.broker()
        if release_late:
            late = pool.submit(_released, site, random.uniform(0.0, 0.3))
            told = _ended(broker, request)
            late.result()
        else:
            told = _ended(broker, request)
    request.check(told)
    request.check_repeat(broker, told)
    return told


def pause(request: Request, point: Point) -> Told:
    """One process pauses at the point, another takes over, the first wakes: what the request is told in the end."""
    site = request.site
    sleeper = site.broker(point.stop and replace(point.stop, pause=True))
    with ThreadPoolExecutor(1) as pool:
        call = _called(pool, sleeper, request, point)
        sleeper.wait_until_paused()
        other = site.broker()
        meanwhile = other.repeated(request.request_id, request.key_id, seconds=_MEANWHILE_SECONDS)
        request.check(meanwhile)
        taken = _taken_by_another(request, other, meanwhile)
        sleeper.wake()
        woken = call.result()
    if woken.is_final:
        assert not meanwhile.is_final or woken.content == meanwhile.content, (woken.outcome, meanwhile.outcome)
    final = sleeper.repeated(request.request_id, request.key_id)
    assert not meanwhile.is_final or final.content == meanwhile.content, (final.outcome, meanwhile.outcome)
    for told in [final] if taken is None else [taken]:
        request.check(told)
    repeated = other.told(request.request_id, request.key_id)
    assert repeated.content == final.content
    return final


def _called(pool: ThreadPoolExecutor, broker: Broker, request: Request, point: Point) -> Future[Told]:
    for fault in point.faults:
        request.site.emulator.faults.add(fault)
    return pool.submit(broker.told, request.request_id, request.key_id)


def _released(site: Site, seconds: float) -> None:
    time.sleep(seconds)
    site.settle()


def _ended(broker: Broker, request: Request) -> Told:
    """The final answer; where no CMK was created, that is not known, and then by the caller's consent.

    The recovery may be at work on the request: consent that has done nothing is repeated.
    """
    told, ends_at = Told(""), time.monotonic() + _PATIENCE_SECONDS
    while told.outcome == _NO_KEY or not told.is_final:
        assert time.monotonic() < ends_at, f"still {told.outcome}"
        if told.outcome == _NO_KEY:
            assert not request.site.emulator.created_key_ids
            told = broker.told(request.request_id, None, consent=True)
        else:
            told = broker.repeated(request.request_id, request.key_id, seconds=_MEANWHILE_SECONDS)
    return told


def _taken_by_another(request: Request, broker: Broker, told: Told) -> Told | None:
    """Where the sleeper's request is over and its CMK is free, another request takes the CMK."""
    if request.key_id is None or not told.is_final or told.outcome != _TOKEN_REFUSED:
        return None
    another = broker.repeated(str(uuid.uuid4()), request.key_id)
    assert another.outcome == IMPORTED
    request.check(another)
    return another

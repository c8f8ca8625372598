"""A broker that is killed, or sleeps while another takes over, at each crash point of the import protocol.

Processes of their own on a real ledger, and an emulator that lives on and knows the truth. What each point is and what
has to come of it: crash_points.py. More of it, at random times: make soak.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from keybroker.domain.errors import Reason
from keybroker.domain.import_protocol import LATE_COMMIT, SETTLING
from keybroker.usecases.embargo import TOKEN_LIFE
from kms_emulator import Fault
from kms_emulator.call_record import LoggedCall
from tests.integration.audit_checks import check_nothing_is_missing
from tests.integration.crash_points import (
    CREATE_POINTS,
    IMPORT_POINTS,
    IMPORTED,
    PAUSE_POINTS,
    Point,
    Request,
    crash,
    new_request,
    pause,
)
from tests.integration.crashing import Broker, Nursery, Site, wait_until


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as started:
        yield started


def _name(point: Point) -> str:
    return point.name


@pytest.mark.parametrize(
    ("new_key", "reimport"), [(False, True), (False, False), (True, True)], ids=["existing", "once", "new"]
)
@pytest.mark.parametrize("point", IMPORT_POINTS, ids=_name)
def test_kill_during_an_import_then_the_same_request_binds_one_material(
    nursery: Nursery, tmp_path: Path, point: Point, *, new_key: bool, reimport: bool
) -> None:
    with Site(nursery, tmp_path, one_audit_log=True, same_material_reimport=reimport) as site:
        told = crash(new_request(site, new_key=new_key), point)
        assert told.outcome == point.expected(reimport=reimport)
        check_nothing_is_missing(site.audit_files, site.emulator, told.outcome)


@pytest.mark.parametrize("point", CREATE_POINTS, ids=_name)
def test_kill_while_a_cmk_is_created_then_the_same_request_has_one_cmk(
    nursery: Nursery, tmp_path: Path, point: Point
) -> None:
    with Site(nursery, tmp_path, one_audit_log=True) as site:
        request = new_request(site, new_key=True)
        assert crash(request, point).outcome == IMPORTED
        assert len(site.emulator.created_key_ids) == 1
        check_nothing_is_missing(site.audit_files, site.emulator, IMPORTED)


@pytest.mark.parametrize("reimport", [True, False], ids=["again", "once"])
@pytest.mark.parametrize("point", PAUSE_POINTS, ids=_name)
def test_pause_during_an_import_then_whoever_wakes_sends_nothing_else(
    nursery: Nursery, tmp_path: Path, point: Point, *, reimport: bool
) -> None:
    with Site(nursery, tmp_path, same_material_reimport=reimport) as site:
        assert pause(new_request(site, new_key=False), point).outcome == point.expected(reimport=reimport)


@pytest.mark.parametrize("point", [point for point in CREATE_POINTS if point.stop], ids=_name)
def test_pause_while_a_cmk_is_created_then_there_is_one_cmk(nursery: Nursery, tmp_path: Path, point: Point) -> None:
    with Site(nursery, tmp_path) as site:
        assert pause(new_request(site, new_key=True), point).outcome == IMPORTED
        assert len(site.emulator.created_key_ids) == 1


def test_pause_before_the_first_look_then_what_another_process_imported_is_not_told_as_somebody_else_s(
    nursery: Nursery, tmp_path: Path
) -> None:
    with Site(nursery, tmp_path) as site, ThreadPoolExecutor(1) as pool:
        request = new_request(site, new_key=False)
        site.emulator.faults.add(Fault(operation="DescribeKey", when="before", action="hold"))
        sleeper = site.broker()
        call = pool.submit(sleeper.told, request.request_id, request.key_id)
        site.emulator.wait_until_held()
        told = site.broker().repeated(request.request_id, request.key_id)
        site.emulator.release_held()
        assert told.outcome == IMPORTED
        assert not call.result().is_final
        request.check_repeat(sleeper, told)


def test_kill_between_the_looks_that_settle_then_both_are_made_anew(nursery: Nursery, tmp_path: Path) -> None:
    """Point 18: nothing landed, every token is expired, and the CMK was seen without material once."""
    with Site(nursery, tmp_path) as site:
        emulator, request = site.emulator, new_request(site, new_key=False)
        emulator.faults.add(Fault(operation="ImportKeyMaterial", when="before", action="drop", count=0))
        broker = site.broker()
        wait_until(lambda: _unresolved_after(broker, request, "ImportKeyMaterial", 1, status=0))
        emulator.clock.advance((TOKEN_LIFE + LATE_COMMIT + timedelta(seconds=1)).total_seconds())
        emulator.reset_calls()
        emulator.faults.clear()
        wait_until(lambda: _unresolved_after(broker, request, "DescribeKey", 2))
        broker.kill()
        emulator.clock.advance(SETTLING.total_seconds())
        broker = site.broker()
        emulator.reset_calls()
        wait_until(lambda: _unresolved_after(broker, request, "DescribeKey", 2))
        emulator.clock.advance(SETTLING.total_seconds())
        told = broker.repeated(request.request_id, request.key_id)
        assert told.outcome == Reason.NOT_IMPORTED
        assert emulator.successful_imports(request.key_id or "") == 0
        request.check_repeat(broker, told)
        assert broker.repeated("00000000-0000-4000-8000-000000000001", request.key_id).outcome == IMPORTED


def _unresolved_after(broker: Broker, request: Request, operation: str, calls: int, *, status: int = 200) -> bool:
    """Whether the emulator has answered so many calls so, after one more repeat; status 0: not at all."""
    told = broker.told(request.request_id, request.key_id, seconds=1.5)
    assert not told.is_final
    return request.site.emulator.call_log.count(LoggedCall(operation, request.key_id or "", status)) >= calls

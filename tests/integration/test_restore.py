"""An older copy of the ledger under a broker: recognised by the mark (rule R8), and not recognised for want of one.

Every process is real, the copy is made and put back as docs/ledger.md says, and the emulator knows the truth.
"""

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keybroker.domain.errors import Reason
from keybroker.domain.import_protocol import LATE_COMMIT, SETTLING
from keybroker.usecases.embargo import TOKEN_LIFE
from kms_emulator import Fault
from kms_emulator.keys import KeyState
from tests.integration.crash_answers import Told, check_true, check_value
from tests.integration.crash_points import IMPORTED
from tests.integration.crashing import Broker, Nursery, Site, Stop, wait_until

EMBARGO_SECONDS = (TOKEN_LIFE + LATE_COMMIT).total_seconds()
SETTLING_SECONDS = SETTLING.total_seconds()
SHORT_SECONDS = 1.5
DATE_IS_CUT_TO_SECONDS = 1.0
NEVER_ANSWERED = Fault(operation="ImportKeyMaterial", action="late", count=0)
NEVER_SENT = Fault(operation="ImportKeyMaterial", when="before", action="drop", count=0)


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as started:
        yield started


@pytest.fixture
def site(nursery: Nursery, tmp_path: Path) -> Iterator[Site]:
    with Site(nursery, tmp_path) as made:
        yield made


@pytest.fixture
def unmarked(nursery: Nursery, tmp_path: Path) -> Iterator[Site]:
    """A ledger that can't see its own rollback."""
    with Site(nursery, tmp_path, mark=False) as made:
        yield made


def new_id() -> str:
    return str(uuid.uuid4())


def copy_of_new_ledger(site: Site) -> Path:
    """A copy from before anything that the test does."""
    broker = site.broker()
    broker.repeated(new_id(), None)
    broker.end()
    return site.back_up()


def restarted(site: Site, copy: Path, *, recognised: bool = True) -> Broker:
    site.restore(copy)
    broker = site.broker()
    assert (broker.logged("ledger_restored") is not None) is recognised
    return broker


def import_late(site: Site, request_id: str, key_id: str) -> None:
    """A broker's import that is under way when the broker dies."""
    site.emulator.faults.add(NEVER_ANSWERED)
    broker = site.broker()
    wait_until(lambda: _is_under_way(site, broker.told(request_id, key_id, seconds=SHORT_SECONDS)))
    broker.kill()
    site.emulator.faults.clear()


def _is_under_way(site: Site, told: Told) -> bool:
    assert not told.is_final
    return bool(site.emulator.under_way)


def told_once_settled(site: Site, broker: Broker, request_id: str, key_id: str) -> Told:
    """For a CMK of which every token of before is over: two looks, and two more after the settling."""
    for _ in range(4):
        assert not broker.told(request_id, key_id, seconds=SHORT_SECONDS).is_final
    site.emulator.clock.advance(SETTLING_SECONDS)
    return broker.repeated(request_id, key_id)


def test_restored_and_the_row_of_an_import_lost_then_it_is_unattributed_and_never_another_s(site: Site) -> None:
    key_id, request_id, copy = site.emulator.create_key(), new_id(), copy_of_new_ledger(site)
    broker = site.broker()
    assert broker.repeated(request_id, key_id).outcome == IMPORTED
    broker.end()
    broker = restarted(site, copy)
    for asked in (request_id, new_id()):
        told = broker.told(asked, key_id)
        assert told.outcome == Reason.ENABLED_UNATTRIBUTED
        check_true(told, site.emulator, key_id)


def test_restored_and_the_row_of_a_send_under_way_lost_then_there_is_no_second_material(site: Site) -> None:
    key_id, request_id, copy = site.emulator.create_key(), new_id(), copy_of_new_ledger(site)
    import_late(site, request_id, key_id)
    pairs = len(site.emulator.issued_pairs(key_id))
    broker = restarted(site, copy)
    for asked in (request_id, new_id()):
        told = broker.told(asked, key_id)
        assert told.outcome == Reason.LEDGER_RESTORED
        assert told.retry_after_seconds == pytest.approx(EMBARGO_SECONDS + SETTLING_SECONDS, abs=30)
    assert len(site.emulator.issued_pairs(key_id)) == pairs
    site.emulator.land_late()
    assert site.emulator.key_state(key_id) is KeyState.ENABLED
    assert broker.told(request_id, key_id).outcome == Reason.ENABLED_UNATTRIBUTED
    assert len(site.emulator.accepted_imports(key_id)) == 1


def test_restored_then_new_cmks_work_at_once_and_old_ones_once_every_token_is_over_and_settled(site: Site) -> None:
    key_id, request_id, copy = site.emulator.create_key(), new_id(), copy_of_new_ledger(site)
    broker = site.broker()
    broker.repeated(new_id(), None)
    broker.end()
    broker = restarted(site, copy)
    assert broker.told(request_id, key_id).outcome == Reason.LEDGER_RESTORED
    time.sleep(DATE_IS_CUT_TO_SECONDS)  # younger than the restore is told by times in seconds
    assert broker.told(new_id(), None).outcome == IMPORTED
    site.emulator.clock.advance(EMBARGO_SECONDS - 30)
    assert broker.told(request_id, key_id).outcome == Reason.LEDGER_RESTORED
    site.emulator.clock.advance(31)
    told = told_once_settled(site, broker, request_id, key_id)
    assert told.outcome == IMPORTED
    check_true(told, site.emulator, key_id)


@pytest.mark.parametrize(("reimport", "outcome"), [(True, IMPORTED), (False, Reason.ENABLED_UNATTRIBUTED)])
def test_restored_to_before_the_send_of_what_is_bound_then_its_own_row_settles_it(
    nursery: Nursery, tmp_path: Path, *, reimport: bool, outcome: str
) -> None:
    with Site(nursery, tmp_path, same_material_reimport=reimport) as site:
        key_id, request_id = site.emulator.create_key(), new_id()
        site.broker(Stop("prepare: after")).told(request_id, key_id)
        copy = site.back_up()
        broker = site.broker()
        before = broker.repeated(request_id, key_id)
        assert before.outcome == IMPORTED
        broker.end()
        broker = restarted(site, copy)
        told = broker.repeated(request_id, key_id)
        assert told.outcome == outcome
        check_true(told, site.emulator, key_id)
        assert told.check_value in {before.check_value, b""}


def test_restored_to_a_send_that_never_landed_then_it_is_not_sent_again_and_ends_not_imported(site: Site) -> None:
    key_id, request_id = site.emulator.create_key(), new_id()
    site.broker(Stop("prepare: after")).told(request_id, key_id)
    copy = site.back_up()
    site.emulator.faults.add(NEVER_SENT)
    broker = site.broker()
    assert not broker.told(request_id, key_id, seconds=SHORT_SECONDS).is_final
    broker.kill()
    site.emulator.faults.clear()
    site.emulator.reset_calls()
    broker = restarted(site, copy)
    assert not broker.told(request_id, key_id, seconds=SHORT_SECONDS).is_final
    assert broker.told(new_id(), key_id).outcome in {Reason.IMPORT_IN_PROGRESS, Reason.LEDGER_RESTORED}
    site.emulator.clock.advance(EMBARGO_SECONDS + 1)
    told = told_once_settled(site, broker, request_id, key_id)
    assert told.outcome == Reason.NOT_IMPORTED
    check_true(told, site.emulator, key_id)
    assert site.emulator.calls["ImportKeyMaterial"] == 0
    assert told_once_settled(site, broker, new_id(), key_id).outcome == IMPORTED


def test_restored_and_the_row_there_then_the_same_is_told_again(site: Site) -> None:
    key_id, request_id = site.emulator.create_key(), new_id()
    broker = site.broker()
    before = broker.repeated(request_id, key_id)
    copy = site.back_up()
    broker.repeated(new_id(), None)
    broker.end()
    broker = restarted(site, copy)
    told = broker.told(request_id, key_id)
    assert told.content == before.content
    assert told.replayed
    assert broker.told(new_id(), key_id).outcome == Reason.ENABLED_UNATTRIBUTED


def test_not_recognised_and_the_row_of_an_import_lost_then_nobody_is_told_imported(unmarked: Site) -> None:
    key_id, request_id, copy = unmarked.emulator.create_key(), new_id(), copy_of_new_ledger(unmarked)
    broker = unmarked.broker()
    assert broker.repeated(request_id, key_id).outcome == IMPORTED
    broker.end()
    broker = restarted(unmarked, copy, recognised=False)
    assert broker.told(request_id, key_id).outcome == Reason.KEY_MATERIAL_ALREADY_BOUND  # false, as SECURITY.md says


@pytest.mark.parametrize("prove", [False, True], ids=["accepted", "proved"])
@pytest.mark.parametrize("reply_lost", [False, True], ids=["answered", "lost"])
@pytest.mark.parametrize("first", ["old", "new"])
def test_not_recognised_and_the_old_material_lands_beside_the_new_then_imported_is_never_false(
    nursery: Nursery, tmp_path: Path, first: str, *, prove: bool, reply_lost: bool
) -> None:
    """What was sent before lands just before the new material (`old`), or after it."""
    with Site(nursery, tmp_path, mark=False, prove=prove) as site:
        key_id, request_id, copy = site.emulator.create_key(), new_id(), copy_of_new_ledger(site)
        import_late(site, request_id, key_id)
        if first == "old":
            site.emulator.faults.add(Fault(operation="ImportKeyMaterial", when="before", action="hold"))
        if reply_lost:
            site.emulator.faults.add(Fault(operation="ImportKeyMaterial", when="after", action="drop"))
        broker = restarted(site, copy, recognised=False)
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(broker.told, request_id, key_id)
            if first == "old":
                site.emulator.wait_until_held()
                site.emulator.land_late()
                site.emulator.release_held()
            call.result()
        site.emulator.land_late()
        told = broker.repeated(request_id, key_id)
        assert told.is_final
        assert (told.outcome == IMPORTED) is (first == "new")
        if told.outcome == IMPORTED:
            assert told.check_value == check_value(site.emulator.bound_material(key_id) or b"")
        assert len(site.emulator.accepted_imports(key_id)) == 1

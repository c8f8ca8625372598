"""Rule R8: the ledger is an older copy. Nothing is begun for what may be under way, and nothing false is told."""

from datetime import timedelta
from pathlib import Path

import pytest

from keybroker.assembly import Choices
from keybroker.domain.attempt import Evidence, State
from keybroker.domain.errors import BrokerError, Reason
from keybroker.domain.external_key import KeyReference, NewKey
from keybroker.domain.key_spec import AES_256
from keybroker.usecases.asked import Asked
from tests.builders import World, lost_reply, refusal
from tests.unit.usecases.support import (
    REQUEST,
    FileLedger,
    Killed,
    error_of,
    known,
    lose_replies,
    parameters_for,
    reason_of,
    restart,
    run,
    stop_at,
)

EMBARGO_SECONDS = 24 * 3600 + 5 * 60


class Restored:
    """A world, and how its ledger is saved and put back."""

    def __init__(self, folder: Path) -> None:
        self.world = World()
        self.kms = self.world.kms
        self.files = FileLedger(self.world, folder)

    def put_back(self) -> None:
        self.files.put_back()
        assert self.world.ledger.restored() is not None
        self.kms.calls.clear()


@pytest.fixture
def case(tmp_path: Path) -> Restored:
    return Restored(tmp_path)


def embargoed(case: Restored, key_id: str) -> None:
    made = len(case.world.entropy.filled)
    assert reason_of(case.world, key_id) is Reason.LEDGER_RESTORED
    with pytest.raises(BrokerError) as caught:
        parameters_for(case.world, key_id)
    assert caught.value.reason is Reason.LEDGER_RESTORED
    assert set(case.kms.calls) == {"DescribeKey"}
    assert len(case.world.entropy.filled) == made


def test_existing_cmk_gets_no_pair_and_no_material_for_a_day_and_five_minutes(case: Restored) -> None:
    key_id = case.kms.add_key()
    case.files.back_up()
    case.put_back()
    error = error_of(case.world, key_id)
    assert error.reason is Reason.LEDGER_RESTORED
    assert error.retry_after_seconds == pytest.approx(EMBARGO_SECONDS, abs=70)
    for seconds in (0, 3600, EMBARGO_SECONDS - 3600 - 61, 60):
        case.world.clock.advance(seconds)
        embargoed(case, key_id)
    for seconds in (2, 1, 30):  # over, but not settled
        case.world.clock.advance(seconds)
        embargoed(case, key_id)
    case.world.clock.advance(120)
    assert run(case.world, key_id).evidence is Evidence.ACCEPTED


def test_local_clock_alone_does_not_end_it(case: Restored) -> None:
    key_id = case.kms.add_key()
    case.files.back_up()
    case.put_back()
    embargoed(case, key_id)
    for _ in range(4):
        now = case.world.clock.now()
        case.world.clock.advance(EMBARGO_SECONDS)
        case.kms.ahead -= case.world.clock.now() - now  # its Date stands still
        embargoed(case, key_id)


def test_material_under_way_whose_row_is_lost_meets_no_second_material(case: Restored) -> None:
    key_id = case.kms.add_key()
    case.files.back_up()
    lose_replies(case.world, "checked")
    assert reason_of(case.world, key_id, request_id=REQUEST) is Reason.IMPORT_UNRESOLVED
    case.put_back()
    assert case.world.row(REQUEST) is None
    embargoed(case, key_id)
    case.kms.land_late()
    assert reason_of(case.world, key_id, request_id=REQUEST) is Reason.ENABLED_UNATTRIBUTED
    assert len(set(case.kms.unwrapped)) == 1


def test_enabled_without_a_row_is_never_told_as_somebody_elses(case: Restored) -> None:
    key_id = case.kms.add_key()
    case.files.back_up()
    run(case.world, key_id, request_id=REQUEST)
    case.put_back()
    assert reason_of(case.world, key_id, request_id=REQUEST) is Reason.ENABLED_UNATTRIBUTED
    assert reason_of(case.world, key_id) is Reason.ENABLED_UNATTRIBUTED


def test_cmk_made_since_is_not_concerned(case: Restored) -> None:
    old = case.kms.add_key()
    case.files.back_up()
    case.put_back()
    embargoed(case, old)  # a reply of the KMS has dated the restore
    case.world.clock.advance(2)
    assert run(case.world, NewKey(AES_256)).evidence is Evidence.ACCEPTED
    assert run(case.world, case.kms.add_key()).evidence is Evidence.ACCEPTED


def test_cmk_made_by_the_first_call_after_the_restore_is_not_concerned(case: Restored) -> None:
    case.files.back_up()
    case.put_back()
    assert run(case.world, NewKey(AES_256)).evidence is Evidence.ACCEPTED  # nothing has dated the restore before


def test_embargo_outlives_the_process(case: Restored) -> None:
    key_id = case.kms.add_key()
    case.files.back_up()
    case.put_back()
    embargoed(case, key_id)
    case.world.clock.advance(3600)
    case.files.open()
    case.kms.calls.clear()
    assert case.world.ledger.restored() is not None
    embargoed(case, key_id)


def prepared_and_put_back(case: Restored) -> str:
    """A row that is PREPARED in the copy; what was sent since then is not known."""
    key_id = case.kms.add_key()
    stop_at(case.world, "send: before")
    with pytest.raises(Killed):
        run(case.world, key_id, request_id=REQUEST)
    restart(case.world)
    case.files.back_up()
    case.put_back()
    assert known(case.world).restored
    return key_id


def test_restored_blob_is_sent_again_only_once_the_cmk_is_bound(case: Restored) -> None:
    key_id = prepared_and_put_back(case)
    case.world.recovery.run_due()
    assert reason_of(case.world, key_id, request_id=REQUEST) is Reason.IMPORT_UNRESOLVED
    assert case.kms.calls["ImportKeyMaterial"] == 0


def test_restored_blob_of_the_bound_material_ends_imported_by_acceptance(case: Restored) -> None:
    key_id = case.kms.add_key()
    stop_at(case.world, "send: before")
    with pytest.raises(Killed):
        run(case.world, key_id, request_id=REQUEST)
    restart(case.world)
    case.files.back_up()
    first = run(case.world, key_id, request_id=REQUEST)
    case.put_back()
    again = run(case.world, key_id, request_id=REQUEST)
    assert (again.evidence, again.check_value) == (Evidence.ACCEPTED, first.check_value)


def test_restored_row_that_says_every_send_was_refused_is_not_believed(case: Restored) -> None:
    key_id = prepared_and_put_back(case)
    case.kms.bind_foreign(key_id)
    assert reason_of(case.world, key_id, request_id=REQUEST) is Reason.ENABLED_UNATTRIBUTED
    assert known(case.world).state is State.ENABLED_UNATTRIBUTED


def test_sole_importer_is_not_said_after_a_restore(tmp_path: Path) -> None:
    world = World(choices=Choices(sole_importer=True))
    files = FileLedger(world, tmp_path)
    old = world.kms.add_key()
    files.back_up()
    files.put_back()
    reason_of(world, old)
    world.clock.advance(2)
    world.kms.same_material_reimport = False
    key_id = world.kms.add_key()
    world.kms.fail_next("ImportKeyMaterial", lost_reply(), when="after")
    assert reason_of(world, key_id) is Reason.ENABLED_UNATTRIBUTED


def test_claimed_row_of_the_copy_starts_nothing(case: Restored) -> None:
    key_id = case.kms.add_key()
    stop_at(case.world, "pair: in hand")
    with pytest.raises(Killed):
        run(case.world, key_id, request_id=REQUEST)
    restart(case.world)
    case.files.back_up()
    case.put_back()
    assert reason_of(case.world, key_id, request_id=REQUEST) is Reason.LEDGER_RESTORED
    assert set(case.kms.calls) == {"DescribeKey"}


def test_claimed_row_of_the_copy_whose_cmk_is_bound_is_unattributed(case: Restored) -> None:
    key_id = case.kms.add_key()
    stop_at(case.world, "pair: in hand")
    with pytest.raises(Killed):
        run(case.world, key_id, request_id=REQUEST)
    restart(case.world)
    case.files.back_up()
    case.kms.bind_foreign(key_id)
    case.put_back()
    assert reason_of(case.world, key_id, request_id=REQUEST) is Reason.ENABLED_UNATTRIBUTED


def test_imported_row_of_the_copy_is_told_as_before(case: Restored) -> None:
    key_id = case.kms.add_key()
    first = run(case.world, key_id, request_id=REQUEST)
    case.files.back_up()
    case.put_back()
    assert run(case.world, key_id, request_id=REQUEST).check_value == first.check_value


def lost_creation(case: Restored, *, alias: str = "") -> NewKey:
    """A CMK whose request the copy knows nothing of: its import was throttled."""
    new_key = NewKey(AES_256, alias=alias)
    case.files.back_up()
    case.kms.fail_next("ImportKeyMaterial", refusal(Reason.KMS_THROTTLED), times=9)
    reason_of(case.world, new_key, request_id=REQUEST)
    case.kms._failures.clear()
    case.put_back()
    case.kms.calls.clear()
    return new_key


@pytest.mark.parametrize("alias", ["", "alias/of-the-request"])
def test_cmk_whose_row_is_lost_is_found_again_and_no_second_one_made(case: Restored, alias: str) -> None:
    new_key = lost_creation(case, alias=alias)
    assert reason_of(case.world, new_key, request_id=REQUEST) is Reason.LEDGER_RESTORED
    assert case.kms.calls["CreateKey"] == 0


def test_list_that_fails_or_ignores_the_filter_makes_no_second_cmk(case: Restored) -> None:
    new_key = lost_creation(case)
    case.kms.fail_next("ListKeys", lost_reply())
    assert reason_of(case.world, new_key, request_id=REQUEST) is Reason.KMS_UNAVAILABLE
    case.kms.tag_filters_ignored = True
    for _ in range(30):
        case.kms.add_key()
    assert reason_of(case.world, new_key, request_id=REQUEST) is Reason.CREATE_OUTCOME_UNKNOWN
    assert case.kms.calls["CreateKey"] == 0


def test_orphan_of_the_copy_may_be_imported_into_and_is_not_deleted(case: Restored) -> None:
    """What the lost ledger had sent for it is not known."""
    case.kms.fail_next("ImportKeyMaterial", refusal(Reason.KMS_THROTTLED), times=9)
    reason_of(case.world, NewKey(AES_256), request_id=REQUEST)
    case.kms._failures.clear()
    case.files.back_up()
    case.put_back()
    key_id = case.kms.key_ids[0]
    with pytest.raises(BrokerError) as caught:
        case.world.assembly.orphans.delete(
            case.kms,
            Asked("an operator", REQUEST),
            KeyReference(key_id),
            pending_window=timedelta(days=7),
            deadline=case.world.deadline(),
        )
    assert caught.value.reason is Reason.LEDGER_RESTORED
    assert case.kms.calls["ScheduleKeyDeletion"] == 0


def test_restored_row_waits_for_pairs_that_it_does_not_know_of(case: Restored) -> None:
    """The lost ledger may have wrapped again, up to the restore: the row's own expiry is not enough."""
    world, key_id = case.world, case.kms.add_key()
    stop_at(world, "send: before")
    with pytest.raises(Killed):
        run(world, key_id, request_id=REQUEST)
    restart(world)
    case.files.back_up()
    world.clock.advance(20 * 3600)
    case.put_back()
    world.recovery.run_due()  # dates the restore
    world.clock.advance(4 * 3600 + 400)
    for _ in range(4):
        world.recovery.run_due()
        world.clock.advance(62)
    assert known(world).state is State.PREPARED
    world.clock.advance(20 * 3600)
    for _ in range(4):
        world.recovery.run_due()
        world.clock.advance(62)
    assert known(world).state is State.NOT_IMPORTED

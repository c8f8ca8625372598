"""What every implementation of ports.Ledger does: SQLite in a file, and in memory."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from keybroker.adapters.ledger.sealing import random_keyring
from keybroker.adapters.ledger.sqlite import SqliteLedger
from keybroker.domain.attempt import HOLDS_CMK, TERMINAL, UNFINISHED, Creation, HandedOut, Kind, State
from keybroker.domain.audit import AuditEvent
from keybroker.domain.external_key import CmkName
from keybroker.domain.key_spec import AES_256
from keybroker.ports import CmkHeld, Ledger, RequestKnown, StaleVersion
from tests.unit.ledger.support import BLOB, DAY, EXPIRY, HOUR, PKCS1, TOKEN, StillClock, attempt, cmk, prepared


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture(params=["file", "file and mark", "memory"])
def ledger(request: pytest.FixtureRequest, clock: StillClock, tmp_path: Path) -> Iterator[SqliteLedger]:
    file = None if request.param == "memory" else tmp_path / "ledger.db"
    mark_file = tmp_path / "mark" if request.param == "file and mark" else None
    subject = SqliteLedger(keyring=random_keyring(), clock=clock, file=file, mark_file=mark_file)
    subject.connect()
    yield subject
    subject.close()


# Rows


def test_find_of_an_unknown_request_is_none(ledger: Ledger) -> None:
    ledger.insert(attempt())
    assert ledger.find("jwt:caller", "request-2") is None
    assert ledger.find("jwt:another", "request-1") is None


def test_insert_returns_the_row_with_its_version_and_dates(ledger: Ledger, clock: StillClock) -> None:
    written = ledger.insert(attempt())
    assert written.version > 0
    assert written.created_at == written.updated_at == clock.now()
    assert ledger.find("jwt:caller", "request-1") == written


def test_update_returns_the_row_with_another_version_and_date(ledger: Ledger, clock: StillClock) -> None:
    first = ledger.insert(attempt())
    clock.sleep(5)
    second = ledger.update(prepared(first))
    assert second.version > first.version
    assert (second.created_at, second.updated_at) == (first.created_at, clock.now())
    assert ledger.find("jwt:caller", "request-1") == second
    assert (second.import_token, second.wrapped_key_material) == (TOKEN, BLOB)


def test_one_request_id_of_two_callers_is_two_requests(ledger: Ledger) -> None:
    ledger.insert(attempt(1))
    ledger.insert(attempt(2, request_id="request-1", caller="jwt:another"))
    found = ledger.find("jwt:another", "request-1")
    assert found is not None
    assert found.record_id == "record-2"


@pytest.mark.parametrize("state", State)
def test_request_is_known_for_ever(ledger: Ledger, state: State) -> None:
    row = ledger.insert(attempt(1))
    ledger.update(replace(row, state=state))
    before = ledger.find("jwt:caller", "request-1")
    with pytest.raises(RequestKnown):
        ledger.insert(attempt(2, request_id="request-1"))
    assert ledger.find("jwt:caller", "request-1") == before
    assert ledger.holder(cmk("key-2")) is None


@pytest.mark.parametrize("state", State)
def test_cmk_is_held_in_the_states_that_hold_it(ledger: Ledger, state: State) -> None:
    row = ledger.insert(attempt(1, state=state))
    if state in HOLDS_CMK:
        assert ledger.holder(cmk("key-1")) == row
        with pytest.raises(CmkHeld):
            ledger.insert(attempt(2, cmk=cmk("key-1")))
        assert ledger.find("jwt:caller", "request-2") is None
    else:
        assert ledger.holder(cmk("key-1")) is None
        assert ledger.holder(cmk("key-1")) != ledger.insert(attempt(2, cmk=cmk("key-1")))


@pytest.mark.parametrize("other", [cmk("key-2"), cmk("key-1", account="2"), cmk("key-1", region="cn-beijing")], ids=str)
def test_cmk_of_another_name_is_another(ledger: Ledger, other: CmkName) -> None:
    ledger.insert(attempt(1))
    assert ledger.holder(other) is None
    assert not ledger.attempted(other)
    ledger.insert(attempt(2, cmk=other))


def test_request_without_a_cmk_holds_none(ledger: Ledger) -> None:
    ledger.insert(attempt(1, state=State.CREATING, cmk=None))
    ledger.insert(attempt(2, state=State.CREATING, cmk=None))
    ledger.insert(attempt(3, state=State.CLAIMED, cmk=None))
    ledger.insert(attempt(4, state=State.CLAIMED, cmk=None))


def test_update_that_takes_a_held_cmk_is_refused_and_changes_nothing(ledger: Ledger) -> None:
    ledger.insert(attempt(1))
    creating = ledger.insert(attempt(2, state=State.CREATING, cmk=None))
    with pytest.raises(CmkHeld):
        ledger.update(replace(creating, state=State.CLAIMED, cmk=cmk("key-1")))
    assert ledger.find("jwt:caller", "request-2") == creating
    taken = ledger.update(replace(creating, state=State.CLAIMED, cmk=cmk("key-3")))
    assert ledger.holder(cmk("key-3")) == taken


def test_known_request_goes_before_a_held_cmk(ledger: Ledger) -> None:
    ledger.insert(attempt(1))
    with pytest.raises(RequestKnown):
        ledger.insert(attempt(2, request_id="request-1", cmk=cmk("key-1")))


def test_cmk_that_was_let_go_can_be_taken(ledger: Ledger) -> None:
    row = ledger.insert(attempt(1))
    ledger.update(replace(row, state=State.NOT_IMPORTED))
    taken = ledger.insert(attempt(2, cmk=cmk("key-1")))
    assert ledger.holder(cmk("key-1")) == taken


# Compare and set


def test_update_of_a_row_that_changed_is_stale_and_changes_nothing(ledger: Ledger) -> None:
    first = ledger.insert(attempt())
    second = ledger.update(prepared(first))
    for stale in (first, replace(second, version=second.version + 1), replace(second, version=0)):
        with pytest.raises(StaleVersion):
            ledger.update(replace(stale, state=State.NOT_IMPORTED))
    assert ledger.find("jwt:caller", "request-1") == second


def test_update_of_a_row_that_is_not_there_is_stale(ledger: Ledger) -> None:
    with pytest.raises(StaleVersion):
        ledger.update(attempt(version=1))
    assert ledger.find("jwt:caller", "request-1") is None


def test_versions_are_the_ledgers_and_never_one_twice(ledger: Ledger) -> None:
    rows = [ledger.insert(attempt(number)) for number in range(3)]
    versions = [row.version for row in rows]
    for row in rows:
        changed = ledger.update(prepared(row))
        versions += [changed.version, ledger.update(replace(changed, sends=2)).version]
    assert len(set(versions)) == len(versions)
    assert versions == sorted(versions)


def test_of_many_threads_that_update_one_version_one_wins(ledger: Ledger) -> None:
    for _ in range(20):
        row = ledger.find("jwt:caller", "request-1") or ledger.insert(attempt())
        results = _at_once(8, lambda place, row=row: ledger.update(replace(row, sends=place)))
        assert Counter(results) == {"won": 1, "StaleVersion": 7}


def test_of_many_threads_that_claim_one_cmk_one_wins(ledger: Ledger) -> None:
    for turn in range(20):
        key = cmk(f"key-of-{turn}")
        results = _at_once(8, lambda place, key=key, turn=turn: ledger.insert(attempt(f"{turn}-{place}", cmk=key)))
        assert Counter(results) == {"won": 1, "CmkHeld": 7}


def test_of_many_threads_that_start_one_request_one_wins(ledger: Ledger) -> None:
    results = _at_once(8, lambda place: ledger.insert(attempt(place, request_id="request-x")))
    assert Counter(results) == {"won": 1, "RequestKnown": 7}


def test_increments_of_many_threads_are_all_there(ledger: Ledger) -> None:
    ledger.insert(attempt())

    def add_one(place: int) -> None:
        for _ in range(10):
            while True:
                row = ledger.find("jwt:caller", "request-1")
                assert row is not None
                try:
                    ledger.update(replace(row, sends=row.sends + 1))
                except StaleVersion:
                    continue
                break

    assert Counter(_at_once(4, add_one)) == {"won": 4}
    row = ledger.find("jwt:caller", "request-1")
    assert row is not None
    assert row.sends == 40


def _at_once(count: int, work: Callable[[int], object]) -> list[str]:
    gate = threading.Barrier(count)
    results: list[str] = []

    def run(place: int) -> None:
        gate.wait()
        try:
            work(place)
            results.append("won")
        except Exception as error:  # noqa: BLE001  # every outcome is counted
            results.append(type(error).__name__)

    threads = [threading.Thread(target=run, args=(place,)) for place in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


# What recovery looks at


def test_unfinished_are_all_of_those_states_oldest_change_first(ledger: Ledger) -> None:
    rows = {state: ledger.insert(attempt(number, state=state)) for number, state in enumerate(State)}
    again = ledger.update(replace(rows[State.CREATING], region="cn-beijing"))
    expected = [row for state, row in rows.items() if state in UNFINISHED and state is not State.CREATING]
    assert list(ledger.unfinished()) == [*expected, again]


@pytest.mark.parametrize("state", State)
def test_cmk_of_any_row_was_attempted(ledger: Ledger, state: State) -> None:
    assert not ledger.attempted(cmk("key-1"))
    ledger.insert(attempt(1, state=state))
    assert ledger.attempted(cmk("key-1"))


# What may be sent again


def test_token_and_blob_of_pkcs1_or_an_unknown_algorithm_are_not_kept(ledger: Ledger) -> None:
    for number, algorithm in enumerate((PKCS1, "", "RSAES_OAEP_SHA_1")):
        row = ledger.insert(attempt(number))
        written = ledger.update(prepared(row, algorithm=algorithm))
        assert (written.import_token, written.wrapped_key_material) == (TOKEN, BLOB)
        found = ledger.find("jwt:caller", f"request-{number}")
        assert found == replace(written, import_token="", wrapped_key_material=b"")
        assert ledger.holder(cmk(f"key-{number}")) == found


@pytest.mark.parametrize("state", sorted(TERMINAL | {State.RELEASED}))
def test_token_and_blob_are_dropped_at_the_end(ledger: Ledger, state: State) -> None:
    row = ledger.update(prepared(ledger.insert(attempt())))
    ledger.update(replace(row, state=state))
    found = ledger.find("jwt:caller", "request-1")
    assert found is not None
    assert (found.import_token, found.wrapped_key_material) == ("", b"")


@pytest.mark.parametrize("state", [State.PREPARED, State.ACCEPTED])
def test_token_and_blob_are_kept_until_the_end(ledger: Ledger, state: State) -> None:
    row = ledger.update(prepared(ledger.insert(attempt())))
    ledger.update(replace(row, state=state, sends=2))
    (found,) = ledger.unfinished()
    assert (found.import_token, found.wrapped_key_material) == (TOKEN, BLOB)


# New CMKs


def test_row_is_found_by_the_tag_of_its_creation(ledger: Ledger) -> None:
    tag = ledger.tag("jwt:caller", "request-1")
    row = ledger.insert(attempt(1, state=State.CREATING, cmk=None, creation=Creation(tag=tag, spec=AES_256)))
    ledger.insert(attempt(2))
    assert ledger.find_tag(tag) == row
    assert ledger.find_tag(tag[:-1]) is None
    assert ledger.find_tag("") is None


def test_tag_is_of_one_caller_and_request(ledger: Ledger) -> None:
    tags = [ledger.tag("a", "b"), ledger.tag("ab", ""), ledger.tag("", "ab"), ledger.tag("b", "a")]
    assert len(set(tags)) == 4
    assert all(len(tag) == 64 and int(tag, 16) for tag in tags)
    assert ledger.tag("a", "b") == tags[0]


# Pairs that were handed out


def handed_out(number: int = 1, **changes: object) -> HandedOut:
    return replace(HandedOut(bytes([number]) * 32, cmk(f"key-{number}"), PKCS1, EXPIRY), **changes)  # type: ignore[arg-type]


def test_pair_that_was_handed_out_is_known(ledger: Ledger) -> None:
    assert not ledger.handed_out(cmk("key-1"))
    ledger.hand_out(handed_out())
    assert ledger.find_handed_out(b"\1" * 32) == handed_out()
    assert ledger.find_handed_out(b"\2" * 32) is None
    assert ledger.handed_out(cmk("key-1"))
    assert not ledger.handed_out(cmk("key-2"))


def test_pair_that_is_handed_out_once_more_changes_nothing(ledger: Ledger) -> None:
    ledger.hand_out(handed_out())
    ledger.hand_out(handed_out(cmk=cmk("key-9")))
    assert ledger.find_handed_out(b"\1" * 32) == handed_out()


def test_pair_is_forgotten_an_hour_after_its_expiry(ledger: Ledger) -> None:
    ledger.hand_out(handed_out(1))
    ledger.hand_out(handed_out(2, expires_at=EXPIRY + HOUR))
    ledger.prune(EXPIRY + HOUR)
    assert ledger.find_handed_out(b"\1" * 32)
    ledger.prune(EXPIRY + 1.01 * HOUR)
    assert ledger.find_handed_out(b"\1" * 32) is None
    assert not ledger.handed_out(cmk("key-1"))
    assert ledger.find_handed_out(b"\2" * 32)


# What is forgotten


def test_tombstones_of_new_cmks_are_forgotten_and_nothing_else(ledger: Ledger, clock: StillClock) -> None:
    for number, (kind, state) in enumerate((kind, state) for kind in Kind for state in State):
        ledger.insert(attempt(number, kind=kind, state=state))
    ledger.prune(clock.now() + 400 * DAY)
    assert len(_left(ledger)) == len(Kind) * len(State)
    ledger.prune(clock.now() + 400 * DAY + HOUR)
    gone = {(kind, state) for kind in Kind for state in State} - _left(ledger)
    assert gone == {(Kind.CREATE, state) for state in TERMINAL}


def _left(ledger: Ledger) -> set[tuple[Kind, State]]:
    rows = [ledger.find("jwt:caller", f"request-{number}") for number in range(len(Kind) * len(State))]
    return {(row.kind, row.state) for row in rows if row}


def test_tombstone_is_as_old_as_its_last_change(ledger: Ledger, clock: StillClock) -> None:
    row = ledger.insert(attempt(kind=Kind.CREATE, state=State.CREATING))
    clock.sleep(300 * 86400)
    ledger.update(replace(row, state=State.CREATED))
    clock.sleep(300 * 86400)
    ledger.prune(clock.now())
    assert ledger.find("jwt:caller", "request-1")


# Restores


def test_ledger_is_not_restored_by_itself(ledger: Ledger, clock: StillClock) -> None:
    ledger.insert(attempt())
    assert ledger.restored() is None
    ledger.date_restore(clock.now())
    assert ledger.restored() is None


# Nothing secret in what is shown


def test_repr_of_a_row_shows_neither_token_nor_blob(ledger: Ledger) -> None:
    ledger.update(prepared(ledger.insert(attempt())))
    shown = repr(ledger.find("jwt:caller", "request-1")) + repr(ledger) + repr(ledger.unfinished())
    assert TOKEN not in shown
    assert "canary" not in shown


def event(event_id: str, **fields: str | int | bool) -> AuditEvent:
    return AuditEvent(event_id, {"event": "after", **fields})


def due_ids(ledger: Ledger, after: int = 0) -> list[str]:
    return [one.event.id for one in ledger.audit_due(after=after)]


def test_event_is_due_as_it_was_put_until_it_is_dropped(ledger: Ledger) -> None:
    first, second = event("first", outcome="DONE", sends=3, known=True), event("second")
    ledger.put_audit_due(first)
    ledger.put_audit_due(second)
    assert [one.event for one in ledger.audit_due()] == [first, second]
    ledger.drop_audit_due(["first", "never put"], head="ab" * 32)
    assert due_ids(ledger) == ["second"]
    assert ledger.audit_head() == "ab" * 32


def test_drop_leaves_what_became_of_an_event_later(ledger: Ledger) -> None:
    ledger.put_audit_due(event("first", outcome="UNKNOWN"))
    up_to = ledger.audit_due()[0].sequence
    ledger.put_audit_due(event("first", outcome="DONE"))
    ledger.drop_audit_due(["first"], head="", up_to=up_to)
    assert [one.event.fields["outcome"] for one in ledger.audit_due()] == ["DONE"]
    ledger.drop_audit_due(["first"], head="", up_to=ledger.audit_due()[0].sequence)
    assert due_ids(ledger) == []


def test_drop_without_a_head_keeps_the_one_that_is_known(ledger: Ledger) -> None:
    ledger.drop_audit_due([], head="ab" * 32)
    ledger.drop_audit_due([], head="")
    assert ledger.audit_head() == "ab" * 32


def test_events_that_are_due_can_be_asked_for_from_where_one_had_come(ledger: Ledger) -> None:
    for name in ("first", "second", "third"):
        ledger.put_audit_due(event(name))
    sequence = ledger.audit_due()[1].sequence
    assert due_ids(ledger, sequence) == ["third"]


def test_event_that_is_put_again_is_the_newer_and_comes_later(ledger: Ledger) -> None:
    ledger.put_audit_due(event("first", outcome="UNKNOWN"))
    ledger.put_audit_due(event("second"))
    ledger.put_audit_due(event("first", outcome="DONE"))
    assert due_ids(ledger) == ["second", "first"]
    assert ledger.audit_due()[1].event.fields["outcome"] == "DONE"


def test_held_event_is_due_once_it_is_released_or_put_anew(ledger: Ledger) -> None:
    ledger.put_audit_due(event("released"), held=True)
    ledger.put_audit_due(event("settled"), held=True)
    ledger.put_audit_due(event("settled"))
    assert due_ids(ledger) == ["settled"]
    sequence = ledger.audit_due()[-1].sequence
    ledger.release_held_audit()
    assert due_ids(ledger, sequence) == ["released"]

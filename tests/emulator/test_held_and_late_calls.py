"""Calls that are held, land late or are forestalled by another importer: what the client sees, what is true."""

import http.client
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from kms_emulator import AccessKey, Emulator, EmulatorSettings, Fault
from kms_emulator.held_calls import HeldCalls
from tests.emulator.builders import MATERIAL, OAEP, OTHER_MATERIAL, import_blob, import_material, wrapped_b64
from tests.emulator.client import DAY, Answer, Client, in_process, over_http
from tests.emulator.waiting import wait_until

IMPORT = "ImportKeyMaterial"


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def held_import(emulator: Emulator, pool: ThreadPoolExecutor, when: str) -> tuple[str, Future[Answer]]:
    key_id = emulator.create_key()
    emulator.faults.add(Fault(operation=IMPORT, when=when, action="hold"))
    answer = pool.submit(import_material, over_http(emulator), key_id)
    emulator.wait_until_held()
    return key_id, answer


@pytest.mark.parametrize(("when", "bound"), [("before", None), ("after", MATERIAL)])
def test_held_call_waits_for_its_release(
    listening: Emulator, pool: ThreadPoolExecutor, when: str, bound: bytes | None
) -> None:
    key_id, answer = held_import(listening, pool, when)
    assert listening.held == [IMPORT]
    assert not answer.done()
    assert listening.bound_material(key_id) == bound
    assert listening.release_held() == [IMPORT]
    assert answer.result(5).status == 200
    assert (listening.held, listening.bound_material(key_id)) == ([], MATERIAL)


def test_held_calls_are_listed_in_the_order_of_arrival(listening: Emulator, pool: ThreadPoolExecutor) -> None:
    listening.faults.add(Fault(action="hold", count=2))
    client = over_http(listening)
    answers = []
    for count, operation in enumerate(("ListKeys", "CreateKey"), start=1):
        answers.append(pool.submit(client.call, operation))
        listening.wait_until_held(count)
    assert listening.held == ["ListKeys", "CreateKey"]
    listening.release_held()
    assert [answer.result(5).status for answer in answers] == [200, 200]


def test_held_call_lands_after_its_client_was_killed(listening: Emulator) -> None:
    key_id = listening.create_key()
    listening.faults.add(Fault(operation=IMPORT, action="hold"))
    with pytest.raises(TimeoutError):
        import_material(over_http(listening, timeout=0.2), key_id)
    listening.wait_until_held()
    assert (listening.held, listening.bound_material(key_id)) == ([IMPORT], None)
    listening.release_held()
    wait_until(lambda: listening.bound_material(key_id) == MATERIAL)


def test_stop_lets_a_held_call_go_on(pool: ThreadPoolExecutor) -> None:
    with Emulator() as emulator:
        key_id, answer = held_import(emulator, pool, "before")
        started = time.perf_counter()
        emulator.stop()
        assert time.perf_counter() - started < 5
        assert emulator.held == []
        assert emulator.bound_material(key_id) == MATERIAL
        answer.exception(timeout=5)
        emulator.start()
        _, answer = held_import(emulator, pool, "before")
        emulator.release_held()
        assert answer.result(5).status == 200


def test_waiting_for_held_calls_that_do_not_come_times_out(emulator: Emulator) -> None:
    with pytest.raises(TimeoutError, match=r"\[\]"):
        emulator.wait_until_held(timeout_seconds=0.05)


def test_closed_dial_holds_nothing() -> None:
    held = HeldCalls()
    held.close()
    held.hold("ListKeys")
    assert held.operations() == []


def send_late(client: Client, **fault: object) -> str:
    """Send an import that is to land late; the id of its CMK."""
    key_id = client.emulator.create_key()
    client.emulator.faults.add(Fault(operation=IMPORT, action="late", **fault))
    with pytest.raises(ConnectionError):
        import_material(client, key_id)
    return key_id


def test_late_call_is_not_answered_and_lands_when_told(client: Client, emulator: Emulator) -> None:
    key_id = send_late(client)
    assert (emulator.under_way, emulator.bound_material(key_id)) == ([IMPORT], None)
    assert emulator.call_log == [(IMPORT, key_id, 0)]
    emulator.clock.advance(DAY / 2)
    assert emulator.bound_material(key_id) is None
    assert emulator.land_late() == [(IMPORT, key_id, 200)]
    assert (emulator.under_way, emulator.bound_material(key_id)) == ([], MATERIAL)
    assert emulator.landed == [(IMPORT, key_id, 200)]
    assert emulator.land_late() == []


def test_late_call_lands_by_itself(listening: Emulator, http_client: Client) -> None:
    key_id = listening.create_key()
    listening.faults.add(Fault(operation=IMPORT, action="late", late_seconds=0.3))
    started = time.perf_counter()
    with pytest.raises(http.client.RemoteDisconnected):
        import_material(http_client, key_id)
    wait_until(lambda: listening.bound_material(key_id) == MATERIAL)
    assert time.perf_counter() - started >= 0.3


def test_late_calls_land_in_the_order_they_fall_due(listening: Emulator, http_client: Client) -> None:
    for skip, seconds in enumerate((1.6, 0.2)):
        listening.faults.add(Fault(operation="CreateKey", action="late", late_seconds=seconds, skip=skip))
    for description in ("slow", "fast"):
        with pytest.raises(http.client.RemoteDisconnected):
            http_client.call("CreateKey", Description=description)
    wait_until(lambda: len(listening.created_key_ids) == 2)
    described = [http_client.ok("DescribeKey", KeyId=key_id) for key_id in listening.created_key_ids]
    assert [body["KeyMetadata"]["Description"] for body in described] == ["fast", "slow"]


def test_late_call_lands_when_the_clock_is_moved_past_it(client: Client, emulator: Emulator) -> None:
    key_id = send_late(client, late_seconds=600)
    emulator.clock.advance(590)
    assert emulator.bound_material(key_id) is None
    emulator.clock.advance(11)
    assert emulator.bound_material(key_id) == MATERIAL


def test_late_call_lands_in_real_time_though_the_clock_is_moved_back(listening: Emulator, http_client: Client) -> None:
    listening.faults.add(Fault(operation="CreateKey", action="late", late_seconds=0.2))
    with pytest.raises(http.client.RemoteDisconnected):
        http_client.call("CreateKey")
    listening.clock.advance(-DAY)
    wait_until(lambda: len(listening.created_key_ids) == 1)


def test_late_connection_is_held_before_it_closes(client: Client) -> None:
    started = time.perf_counter()
    key_id = send_late(client, delay_seconds=0.2)
    assert time.perf_counter() - started >= 0.2
    assert client.emulator.bound_material(key_id) is None


def test_late_call_is_checked_when_it_lands(client: Client, emulator: Emulator) -> None:
    key_id = send_late(client)
    emulator.clock.advance(DAY + 1)
    assert emulator.land_late() == [(IMPORT, key_id, 400)]
    assert emulator.accepted_imports(key_id) == []


def test_late_call_checked_first_binds_after_its_token_expired(client: Client, emulator: Emulator) -> None:
    key_id = send_late(client, checked_first=True)
    emulator.clock.advance(DAY + 1)
    assert emulator.key_state(key_id) == "PendingImport"
    assert emulator.land_late() == [(IMPORT, key_id, 200)]
    assert emulator.bound_material(key_id) == MATERIAL


def test_late_call_checked_first_binds_although_a_newer_pair_was_issued(client: Client, emulator: Emulator) -> None:
    emulator.set_readings(newest_token_only=True)
    first, second = send_late(client, checked_first=True), send_late(client)
    for key_id in (first, second):
        emulator.issue_parameters(key_id)
    assert [call.http_status for call in emulator.land_late()] == [200, 400]


def test_late_call_checked_first_stays_refused(client: Client, emulator: Emulator) -> None:
    key_id = emulator.create_key()
    emulator.faults.add(Fault(operation=IMPORT, action="late", checked_first=True))
    with pytest.raises(ConnectionError):
        import_blob(client, key_id, "no token", "AAAA")
    assert emulator.land_late() == [(IMPORT, key_id, 400)]
    assert emulator.key_state(key_id) == "PendingImport"


@pytest.mark.parametrize("fault", [{}, {"checked_first": True}], ids=["checked late", "checked first"])
def test_late_call_does_not_replace_material_bound_meanwhile(
    client: Client, emulator: Emulator, fault: dict[str, object]
) -> None:
    key_id = send_late(client, **fault)
    assert import_material(client, key_id, OTHER_MATERIAL).status == 200
    assert emulator.land_late() == [(IMPORT, key_id, 400)]
    assert emulator.accepted_imports(key_id) == [OTHER_MATERIAL]


def test_late_create_alias_and_stray_fetch_land(client: Client, emulator: Emulator) -> None:
    key_id = emulator.create_key()
    emulator.faults.add(Fault(action="late", count=2))
    with pytest.raises(ConnectionError):
        client.call("CreateAlias", KeyId=key_id, AliasName="alias/late")
    parameters = {"WrappingKeySpec": "RSA_2048", "WrappingAlgorithm": OAEP}
    with pytest.raises(ConnectionError):
        client.call("GetParametersForImport", KeyId=key_id, **parameters)
    assert (emulator.aliases, emulator.issued_pairs(key_id)) == ({}, [])
    emulator.land_late()
    assert emulator.aliases == {"alias/late": key_id}
    assert len(emulator.issued_pairs(key_id)) == 1


@pytest.mark.parametrize(("first", "under_way"), [("drop", []), ("late", ["CreateKey"])])
def test_call_that_another_fault_broke_is_not_sent_late(
    client: Client, emulator: Emulator, first: str, under_way: list[str]
) -> None:
    for action in (first, "late"):
        emulator.faults.add(Fault(action=action))
    with pytest.raises(ConnectionError):
        client.call("CreateKey")
    assert emulator.under_way == under_way
    assert emulator.faults.armed() == []


def test_late_call_outlives_a_stop_and_lands_after_the_next_start() -> None:
    emulator = Emulator(EmulatorSettings(faults=(Fault(operation="CreateKey", action="late", late_seconds=1.5),)))
    threads = set(threading.enumerate())
    with emulator, pytest.raises(http.client.RemoteDisconnected):
        over_http(emulator).call("CreateKey")
    assert set(threading.enumerate()) <= threads
    time.sleep(1.6)
    assert (emulator.under_way, emulator.created_key_ids) == (["CreateKey"], [])
    with emulator:
        wait_until(lambda: len(emulator.created_key_ids) == 1)


@pytest.mark.parametrize(("when", "operation"), [("before", IMPORT), ("after", "DescribeKey")])
def test_foreign_import_comes_before_ours(client: Client, emulator: Emulator, when: str, operation: str) -> None:
    key_id = emulator.create_key(key_spec="Aliyun_AES_192")
    emulator.faults.add(Fault(operation=operation, when=when, action="foreign_import"))
    assert client.state(key_id) == "PendingImport"
    assert import_material(client, key_id, bytes(24)).code == "InvalidKeyMaterial"
    foreign = emulator.bound_material(key_id)
    assert foreign is not None
    assert (len(foreign), foreign == bytes(24)) == (24, False)
    assert client.state(key_id) == "Enabled"
    assert (emulator.accepted_imports(key_id), emulator.successful_imports(key_id)) == ([foreign], 0)


def test_foreign_import_is_shown_as_late_as_the_readings_say(client: Client, emulator: Emulator) -> None:
    emulator.set_readings(enabled_lag_seconds=60)
    key_id = emulator.create_key()
    emulator.faults.add(Fault(operation="DescribeKey", action="foreign_import"))
    assert client.state(key_id) == "PendingImport"
    assert emulator.key_state(key_id) == "Enabled"


def test_foreign_import_leaves_other_cmks_alone(client: Client, emulator: Emulator) -> None:
    emulator.faults.add(Fault(action="foreign_import", count=0))
    bound = emulator.create_key(material=MATERIAL)
    going = emulator.create_key(state="PendingDeletion")
    assert client.state(bound) == "Enabled"
    assert client.state(going) == "PendingDeletion"
    assert client.call("DescribeKey", KeyId="key-nobody").status == 404
    assert client.call("ListKeys").status == 200
    assert emulator.bound_material(bound) == MATERIAL
    assert emulator.bound_material(going) is None


def test_foreign_import_does_not_replace_material_that_was_deleted(client: Client, emulator: Emulator) -> None:
    key_id = emulator.create_key(dkms_instance_id="", material=MATERIAL)
    client.ok("DeleteKeyMaterial", KeyId=key_id)
    emulator.faults.add(Fault(action="foreign_import"))
    assert client.state(key_id) == "PendingImport"
    assert emulator.accepted_imports(key_id) == [MATERIAL]


def test_parallel_imports_with_a_foreign_one_bind_exactly_one(listening: Emulator, pool: ThreadPoolExecutor) -> None:
    client = over_http(listening)
    key_id = listening.create_key()
    der, token = listening.issue_parameters(key_id, OAEP)
    listening.faults.add(Fault(operation=IMPORT, action="foreign_import", count=0, skip=3))
    blobs = [wrapped_b64(der, bytes([number]) * 32) for number in range(16)]
    answers = list(pool.map(lambda blob: import_blob(client, key_id, token, blob).status, blobs))
    assert len(listening.accepted_imports(key_id)) == 1
    assert answers.count(200) == listening.successful_imports(key_id) <= 1


def test_second_access_key_draws_on_the_same_quota() -> None:
    """One account: the quota is not an access key's own. Source: contract section 5."""
    keys = (AccessKey("LTAIone", "secret"), AccessKey("LTAIother", "secret"))
    emulator = Emulator(EmulatorSettings(access_keys=keys, quota_mode="sliding", quota_limits={"read": 4}))
    client = in_process(emulator)
    requests = [client.request("ListKeys", {}, access_key=key) for key in keys * 3]
    assert [client.send(request).status for request in requests] == [200] * 4 + [429] * 2

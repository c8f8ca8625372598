"""The fault dial: what strikes when, and what the client sees of it."""

import base64
import http.client
import json
import random
import time

import pytest
from cryptography.hazmat.primitives.serialization import load_der_public_key

from kms_emulator import Emulator, EmulatorSettings, Fault
from kms_emulator.fault_dial import FaultDial
from kms_emulator.faults import ACTION_MEANINGS
from tests.emulator.builders import MATERIAL, OAEP, PKCS1, import_blob, import_material, public_key, wrapped_b64
from tests.emulator.client import Client, in_process, over_http
from tests.emulator.waiting import wait_until


def strikes(dial: FaultDial, operation: str = "ImportKeyMaterial", when: str = "before") -> int:
    return len(dial.strike(operation, when))


def test_fault_strikes_count_times_after_skip() -> None:
    dial = FaultDial([Fault(action="drop", count=2, skip=3)])
    assert [strikes(dial) for _ in range(7)] == [0, 0, 0, 1, 1, 0, 0]
    assert dial.armed() == []


def test_fault_with_count_0_strikes_for_ever() -> None:
    dial = FaultDial([Fault(action="drop", count=0)])
    assert sum(strikes(dial) for _ in range(100)) == 100
    assert [struck for _, struck in dial.armed()] == [100]


def test_fault_strikes_its_operation_and_moment_only() -> None:
    dial = FaultDial([Fault(action="drop", operation="ImportKeyMaterial", when="after")])
    assert strikes(dial, "DescribeKey", "after") == 0
    assert strikes(dial, "ImportKeyMaterial", "before") == 0
    assert strikes(dial, "ImportKeyMaterial", "after") == 1


def test_fault_with_a_probability_strikes_about_as_often() -> None:
    dial = FaultDial([Fault(action="drop", count=0, probability=0.25)], seed=7)
    assert 200 < sum(strikes(dial) for _ in range(1000)) < 300


def test_fault_with_the_same_seed_strikes_the_same_calls() -> None:
    seed = random.randrange(1000)
    runs = []
    for _ in range(2):
        dial = FaultDial([Fault(action="drop", count=0, probability=0.5)], seed=seed)
        runs.append([strikes(dial) for _ in range(50)])
    assert runs[0] == runs[1]


def test_cleared_dial_strikes_no_more() -> None:
    dial = FaultDial([Fault(action="drop", count=0)])
    dial.clear()
    assert strikes(dial) == 0


BAD = {
    "unknown action": ({"action": "explode"}, ValueError, "action"),
    "unknown moment": ({"action": "drop", "when": "during"}, ValueError, "when"),
    "probability 2": ({"action": "drop", "probability": 2}, ValueError, "probability"),
    "negative count": ({"action": "drop", "count": -1}, ValueError, "count"),
    "count of text": ({"action": "drop", "count": "1"}, TypeError, "count"),
    "count true": ({"action": "drop", "count": True}, TypeError, "count"),
    "delay not a number": ({"action": "delay", "delay_seconds": float("nan")}, ValueError, "delay_seconds"),
    "operation of number": ({"action": "drop", "operation": 1}, TypeError, "operation"),
    "error without status": ({"action": "error", "code": "Brand.New"}, ValueError, "status"),
    "late after the commit": ({"action": "late", "when": "after"}, ValueError, "when"),
    "late_seconds negative": ({"action": "late", "late_seconds": -1}, ValueError, "late_seconds"),
    "checked_first of number": ({"action": "late", "checked_first": 1}, TypeError, "checked_first"),
    "checked_first of a drop": (
        {"operation": "ImportKeyMaterial", "action": "drop", "checked_first": True},
        ValueError,
        "checked_first",
    ),
    "checked_first of any": ({"action": "late", "checked_first": True}, ValueError, "checked_first"),
    "no action": ({"operation": "*"}, ValueError, "action"),
    "unknown field": ({"action": "drop", "colour": "red"}, ValueError, "colour"),
}


@pytest.mark.parametrize(("values", "kind", "message"), BAD.values(), ids=BAD)
def test_fault_that_does_not_fit_names_the_field(
    values: dict[str, object], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        Fault.from_mapping(values)


def test_fault_from_text_reads_assignments() -> None:
    text = "operation=ImportKeyMaterial,when=after,action=error,status=503,code=X,count=2,skip=1,probability=0.5"
    assert Fault.from_text(text) == Fault(
        operation="ImportKeyMaterial",
        when="after",
        action="error",
        status=503,
        code="X",
        count=2,
        skip=1,
        probability=0.5,
    )


def test_fault_from_text_reads_flags() -> None:
    text = "operation=ImportKeyMaterial,action=late,late_seconds=2,checked_first="
    assert Fault.from_text(f"{text}true").checked_first
    assert not Fault.from_text(f"{text}false").checked_first


TEXTS = ["", "action=drop,count=many", "drop", "action=drop,delay_seconds=soon", "action=late,checked_first=1"]


@pytest.mark.parametrize("text", TEXTS)
def test_fault_from_text_that_does_not_fit_raises(text: str) -> None:
    with pytest.raises(ValueError, match=r"count|delay_seconds|checked_first|field"):
        Fault.from_text(text)


def test_actions_are_all_described() -> None:
    described = {Fault(action=action, status=500).action for action in ACTION_MEANINGS}
    assert described == set(Fault.__annotations__["action"].__args__)


def test_error_before_leaves_the_operation_undone(client: Client, emulator: Emulator) -> None:
    key_id = emulator.create_key()
    emulator.faults.add(Fault(operation="ImportKeyMaterial", action="error", code="ServiceUnavailableTemporary"))
    answer = import_material(client, key_id)
    assert (answer.status, answer.code) == (503, "ServiceUnavailableTemporary")
    assert emulator.key_state(key_id) == "PendingImport"
    assert import_material(client, key_id).status == 200


def test_error_after_leaves_the_operation_done(client: Client, emulator: Emulator) -> None:
    key_id = emulator.create_key()
    fault = Fault(
        operation="*", when="after", action="error", status=418, code="Brand.New", message="hm", retry_after_ms=7
    )
    emulator.faults.add(fault)
    answer = import_material(client, key_id)
    assert (answer.status, answer.body["Code"], answer.body["Message"]) == (418, "Brand.New", "hm")
    assert answer.headers["x-acs-retry-after"] == "7"
    assert emulator.bound_material(key_id) == MATERIAL


@pytest.mark.parametrize(("when", "bound"), [("before", None), ("after", MATERIAL)])
def test_drop_closes_the_connection_without_an_answer(
    listening: Emulator, http_client: Client, when: str, bound: bytes | None
) -> None:
    key_id = listening.create_key()
    listening.faults.add(Fault(operation="ImportKeyMaterial", when=when, action="drop"))
    with pytest.raises(http.client.RemoteDisconnected):
        import_material(http_client, key_id)
    assert listening.bound_material(key_id) == bound
    assert listening.call_log == [("ImportKeyMaterial", key_id, 0)]


@pytest.mark.parametrize(("when", "bound"), [("before", None), ("after", MATERIAL)])
def test_reset_answers_rst(listening: Emulator, http_client: Client, when: str, bound: bytes | None) -> None:
    """A drop reads as RemoteDisconnected, which is a ConnectionResetError too: the type must be the reset itself."""
    key_id = listening.create_key()
    listening.faults.add(Fault(operation="ImportKeyMaterial", when=when, action="reset"))
    with pytest.raises(ConnectionResetError) as caught:
        import_material(http_client, key_id)
    assert type(caught.value) is ConnectionResetError
    assert listening.bound_material(key_id) == bound
    assert listening.call_log == [("ImportKeyMaterial", key_id, 0)]
    assert import_material(http_client, key_id).status == 200


def test_truncated_body_ends_half_way(listening: Emulator, http_client: Client) -> None:
    listening.faults.add(Fault(operation="CreateKey", when="after", action="truncated"))
    with pytest.raises(http.client.IncompleteRead) as caught:
        http_client.call("CreateKey")
    assert caught.value.expected is not None
    assert len(caught.value.partial) - caught.value.expected in {-1, 0, 1}
    assert http_client.ok("ListKeys")["TotalCount"] == 1


def test_garbage_body_is_no_json(listening: Emulator, http_client: Client) -> None:
    listening.faults.add(Fault(action="garbage"))
    with pytest.raises((json.JSONDecodeError, UnicodeDecodeError)):
        http_client.call("ListKeys")


def test_oversize_body_is_as_large_as_asked(listening: Emulator, http_client: Client) -> None:
    listening.faults.add(Fault(when="after", action="oversize", size_bytes=3_000_000))
    body = http_client.ok("ListKeys")
    assert len(body["Padding"]) == 3_000_000
    assert body["TotalCount"] == 0


def test_delay_holds_the_answer_back(client: Client, emulator: Emulator) -> None:
    emulator.faults.add(Fault(action="delay", delay_seconds=0.2))
    started = time.perf_counter()
    assert client.call("ListKeys").status == 200
    assert time.perf_counter() - started >= 0.2


def test_delay_before_lets_an_import_land_after_the_client_has_gone(listening: Emulator) -> None:
    key_id = listening.create_key()
    listening.faults.add(Fault(operation="ImportKeyMaterial", action="delay", delay_seconds=2.0))
    with pytest.raises(TimeoutError):
        import_material(over_http(listening, timeout=0.1), key_id)
    wait_until(lambda: listening.in_flight == 1)
    assert listening.key_state(key_id) == "PendingImport"
    wait_until(lambda: listening.in_flight == 0)
    assert listening.key_state(key_id) == "Enabled"


def test_delay_and_drop_together_do_both(client: Client, emulator: Emulator) -> None:
    emulator.faults.add(Fault(action="delay", delay_seconds=0.1))
    emulator.faults.add(Fault(action="drop"))
    started = time.perf_counter()
    with pytest.raises(ConnectionError, match="dropped"):
        client.call("ListKeys")
    assert time.perf_counter() - started >= 0.1


def test_fault_does_not_strike_an_unauthenticated_request(client: Client, emulator: Emulator) -> None:
    emulator.faults.add(Fault(action="drop"))
    assert client.send(client.request("ListKeys", {}, date="yesterday")).code == "IllegalTimestamp"
    assert len(emulator.faults.armed()) == 1


def parameters_with(client: Client, action: str, algorithm: str = OAEP) -> tuple[str, bytes, str]:
    emulator = client.emulator
    emulator.faults.add(Fault(operation="GetParametersForImport", action=action))
    key_id = emulator.create_key()
    body = client.ok("GetParametersForImport", KeyId=key_id, WrappingKeySpec="RSA_2048", WrappingAlgorithm=algorithm)
    return key_id, base64.b64decode(body["PublicKey"]), body["ImportToken"]


def test_public_key_unparsable_is_no_key(client: Client) -> None:
    with pytest.raises(ValueError, match=r"(?i)parse|deserialize"):
        load_der_public_key(parameters_with(client, "public_key_unparsable")[1])


def test_public_key_short_has_1024_bits(client: Client) -> None:
    assert public_key(parameters_with(client, "public_key_short")[1]).key_size == 1024


def test_public_key_exponent_3_has_it(client: Client) -> None:
    key = public_key(parameters_with(client, "public_key_exponent_3")[1])
    assert (key.key_size, key.public_numbers().e) == (2048, 3)


def test_public_key_tiny_factor_is_divisible_by_3(client: Client) -> None:
    for _ in range(20):
        key = public_key(parameters_with(client, "public_key_tiny_factor")[1])
        assert (key.key_size, key.public_numbers().e, key.public_numbers().n % 3) == (2048, 65537, 0)
        assert key.public_numbers().n % 2 == 1


def test_public_key_swapped_is_sound_and_does_not_fit_the_token(client: Client, emulator: Emulator) -> None:
    key_id, der, token = parameters_with(client, "public_key_swapped")
    key = public_key(der)
    assert (key.key_size, key.public_numbers().e) == (2048, 65537)
    assert import_blob(client, key_id, token, wrapped_b64(der, MATERIAL)).code == "InvalidKeyMaterial"
    assert emulator.faults.armed() == []


def test_public_key_fault_strikes_get_parameters_only_and_not_the_seeding(client: Client, emulator: Emulator) -> None:
    emulator.faults.add(Fault(action="public_key_short"))
    key_id = emulator.create_key()
    client.ok("DescribeKey", KeyId=key_id)
    der, _ = emulator.issue_parameters(key_id, PKCS1)
    assert public_key(der).key_size == 2048
    assert len(emulator.faults.armed()) == 1


def test_faults_come_with_the_settings() -> None:
    client = in_process(Emulator(EmulatorSettings(faults=(Fault(action="error", status=500, code="X"),))))
    assert [client.call("ListKeys").status for _ in range(2)] == [500, 200]

"""The admin API: who may use it, what it turns, and what it says to bad input."""

import http.client
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest

from kms_emulator import Emulator, EmulatorSettings, Fault
from tests.emulator.client import Client, over_http

TOKEN = "admin-token"


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator(EmulatorSettings(admin_port=0, admin_token=TOKEN)) as emulator:
        yield emulator


@pytest.fixture
def client(emulator: Emulator) -> Client:
    return over_http(emulator)


def ask(
    emulator: Emulator, method: str, path: str, body: object = None, *, authorization: str | None = f"Bearer {TOKEN}"
) -> tuple[int, Any]:
    address = urlsplit(emulator.admin_endpoint)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=10)
    headers = {} if authorization is None else {"Authorization": authorization}
    try:
        raw = body if isinstance(body, str | None) else json.dumps(body)
        connection.request(method, path, raw, headers)
        response = connection.getresponse()
        assert response.headers["x-kms-emulator"]
        return response.status, json.loads(response.read())
    finally:
        connection.close()


WRONG = [None, "", "Bearer", f"bearer {TOKEN}x", "Bearer other", f"Basic {TOKEN}"]
ROUTES = [
    ("GET", "/faults"),
    ("POST", "/faults"),
    ("DELETE", "/faults"),
    ("GET", "/clock"),
    ("POST", "/clock/advance"),
    ("GET", "/readings"),
    ("PATCH", "/readings"),
    ("GET", "/calls"),
    ("DELETE", "/calls"),
    ("GET", "/quotas"),
    ("PATCH", "/quotas"),
    ("GET", "/held"),
    ("POST", "/faults/release"),
    ("GET", "/late"),
    ("POST", "/faults/land"),
    ("POST", "/pause"),
    ("POST", "/resume"),
]


@pytest.mark.parametrize("authorization", WRONG, ids=repr)
def test_request_without_the_token_is_refused(emulator: Emulator, authorization: str | None) -> None:
    status, body = ask(emulator, "GET", "/faults", authorization=authorization)
    assert (status, list(body)) == (401, ["error"])


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_needs_the_token(emulator: Emulator, method: str, path: str) -> None:
    assert ask(emulator, method, path, {}, authorization="Bearer no")[0] == 401


def test_token_is_made_up_when_none_is_given() -> None:
    first, second = Emulator(), Emulator()
    assert len(first.admin_token) >= 32
    assert first.admin_token != second.admin_token


def test_faults_can_be_added_listed_and_cleared(emulator: Emulator, client: Client) -> None:
    fault = {"operation": "ListKeys", "action": "error", "status": 500, "code": "X", "count": 2}
    status, body = ask(emulator, "POST", "/faults", fault)
    assert status == 200
    assert body["faults"] == [{**Fault.from_mapping(fault).to_mapping(), "struck": 0}]
    assert client.call("ListKeys").status == 500
    assert ask(emulator, "GET", "/faults")[1]["faults"][0]["struck"] == 1
    assert ask(emulator, "DELETE", "/faults") == (200, {"faults": []})
    assert client.call("ListKeys").status == 200


def test_clock_can_be_read_and_moved(emulator: Emulator) -> None:
    assert ask(emulator, "GET", "/clock")[1]["offset_seconds"] == 0
    status, body = ask(emulator, "POST", "/clock/advance", {"seconds": 3600})
    assert (status, body["offset_seconds"]) == (200, 3600)
    assert emulator.clock.offset_seconds == 3600


def test_readings_can_be_read_and_changed(emulator: Emulator) -> None:
    assert ask(emulator, "GET", "/readings") == (200, emulator.readings.to_mapping())
    status, body = ask(emulator, "PATCH", "/readings", {"newest_token_only": True, "enabled_lag_seconds": 3})
    assert (status, body) == (200, emulator.readings.to_mapping())
    assert emulator.readings.newest_token_only
    assert emulator.readings.enabled_lag_seconds == 3


def test_calls_can_be_read_and_reset(emulator: Emulator, client: Client) -> None:
    client.ok("ListKeys")
    assert ask(emulator, "GET", "/calls") == (200, {"calls": {"ListKeys": 1}})
    assert ask(emulator, "DELETE", "/calls") == (200, {"calls": {}})
    assert emulator.call_log == []


def test_quotas_can_be_read_and_changed(emulator: Emulator, client: Client) -> None:
    assert ask(emulator, "GET", "/quotas")[1]["mode"] == "off"
    status, body = ask(emulator, "PATCH", "/quotas", {"mode": "sliding", "limits": {"read": 1}})
    assert (status, body["mode"], body["limits"]["read"]) == (200, "sliding", 1)
    assert [client.call("ListKeys").status for _ in range(2)] == [200, 429]
    assert ask(emulator, "PATCH", "/quotas", {"mode": "off"})[1]["limits"]["read"] == 1


def test_held_calls_can_be_seen_and_released(emulator: Emulator, client: Client) -> None:
    assert ask(emulator, "POST", "/faults", {"operation": "ListKeys", "action": "hold"})[0] == 200
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.call, "ListKeys")
        emulator.wait_until_held()
        assert ask(emulator, "GET", "/held") == (200, {"held": ["ListKeys"]})
        assert ask(emulator, "POST", "/faults/release") == (200, {"released": ["ListKeys"]})
        assert answer.result(5).status == 200
    assert ask(emulator, "GET", "/held") == (200, {"held": []})


def test_late_calls_can_be_seen_and_landed(emulator: Emulator, client: Client) -> None:
    assert ask(emulator, "POST", "/faults", {"operation": "CreateKey", "action": "late"})[0] == 200
    with pytest.raises(http.client.RemoteDisconnected):
        client.call("CreateKey")
    assert ask(emulator, "GET", "/late") == (200, {"under_way": ["CreateKey"], "landed": []})
    status, body = ask(emulator, "POST", "/faults/land")
    landed = {"operation": "CreateKey", "key_id": emulator.created_key_ids[0], "http_status": 200}
    assert (status, body) == (200, {"landed": [landed]})
    assert ask(emulator, "GET", "/late") == (200, {"under_way": [], "landed": [landed]})


def test_kms_can_be_paused_and_resumed(emulator: Emulator, client: Client) -> None:
    for _ in range(2):
        assert ask(emulator, "POST", "/pause") == (200, {"paused": True})
        with pytest.raises(ConnectionRefusedError):
            client.call("ListKeys")
    for _ in range(2):
        assert ask(emulator, "POST", "/resume") == (200, {"paused": False})
        assert client.call("ListKeys").status == 200


def test_resume_on_a_taken_port_is_a_409(emulator: Emulator) -> None:
    address = urlsplit(emulator.endpoint)
    ask(emulator, "POST", "/pause")
    with socket.create_server((address.hostname, address.port)):
        status, body = ask(emulator, "POST", "/resume")
    assert (status, "in use" in body["error"]) == (409, True)


BAD = {
    "fault without action": ("POST", "/faults", {}, "action"),
    "fault of an unknown kind": ("POST", "/faults", {"action": "explode"}, "action"),
    "fault with a wrong type": ("POST", "/faults", {"action": "drop", "count": "1"}, "count"),
    "clock without seconds": ("POST", "/clock/advance", {}, "seconds"),
    "clock by text": ("POST", "/clock/advance", {"seconds": "1"}, "seconds"),
    "clock beyond the calendar": ("POST", "/clock/advance", {"seconds": 1e15}, ""),
    "clock by nothing finite": ("POST", "/clock/advance", '{"seconds": NaN}', ""),
    "unknown reading": ("PATCH", "/readings", {"colour": 1}, "colour"),
    "unknown quota class": ("PATCH", "/quotas", {"limits": {"x": 1}}, "x"),
    "limits that are no object": ("PATCH", "/quotas", {"limits": 5}, "limits"),
    "unknown quota field": ("PATCH", "/quotas", {"window": 1}, "window"),
    "no JSON": ("POST", "/faults", "{", ""),
    "no object": ("POST", "/faults", "[]", "object"),
}


@pytest.mark.parametrize(("method", "path", "body", "text"), BAD.values(), ids=BAD)
def test_bad_input_is_a_400_that_names_it(emulator: Emulator, method: str, path: str, body: object, text: str) -> None:
    status, answer = ask(emulator, method, path, body)
    assert status == 400
    assert text in answer["error"]
    assert emulator.faults.armed() == []
    assert ask(emulator, "GET", "/clock")[0] == 200


def test_unknown_route_is_a_404(emulator: Emulator) -> None:
    assert ask(emulator, "GET", "/keys")[0] == 404
    assert ask(emulator, "PATCH", "/faults", {})[0] == 404


def test_admin_api_is_off_by_default(listening: Emulator) -> None:
    with pytest.raises(RuntimeError, match="admin_port"):
        _ = listening.admin_endpoint

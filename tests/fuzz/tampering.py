"""Somebody between the broker and an emulated KMS: lets pass, loses, changes and replaces replies by a plan.

Requests are delivered whole or not at all. No reply is made up that proves a refusal (rule R2) after the KMS has bound
material: a KMS that lies so is believed, by contract.
"""

import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

from hypothesis import strategies as st

from kms_emulator import Emulator
from tests.fuzz.replies import HEADERS, JSON, REQUEST_IDS, STATUSES, Made, any_reply, proves_it, reply
from tests.unit.adapters_kms.support import REQUEST_ID, ScriptedServer, key_body

FIELDS = ["KeyMetadata", "RequestId", "KeyId", "PublicKey", "ImportToken", "TokenExpireTime", "Code"]
INNER = ["KeyState", "Origin", "KeySpec", "KeyId", "Arn", "DKMSInstanceId", "CreationDate", "DeleteDate"]


@dataclass(frozen=True)
class Step:
    """What happens to one exchange. `how`: pass, lose the request, lose the reply, change it, replace it."""

    how: str
    made: Made
    fields: Mapping[str, Any]
    status: int
    headers: Mapping[str, str]


PASS = Step("pass", Made(b"", 0), {}, 200, {})


@st.composite
def steps(draw: Callable[[Any], Any]) -> Step:
    how = draw(st.sampled_from(["pass", "lose request", "lose reply", "change", "change", "replace"]))
    body = draw(st.sampled_from([key_body(), {"RequestId": REQUEST_ID}]))
    any_fields = st.dictionaries(st.sampled_from(FIELDS + INNER), JSON, max_size=2)
    fields = draw(st.one_of(any_fields, REQUEST_IDS.map(lambda request_id: {"RequestId": request_id})))
    status = draw(st.one_of(st.just(200), st.just(200), STATUSES))
    return Step(how, draw(any_reply(body)), fields, status, draw(st.one_of(st.just({}), HEADERS)))


@st.composite
def plans(draw: Callable[[Any], Any]) -> dict[str, list[Step]]:
    """What happens to the exchanges of each operation, in turn. Most go well, or the import is never reached."""
    few = st.lists(steps(), max_size=2)
    return {
        "DescribeKey": draw(st.one_of(st.just([]), few.map(lambda later: [PASS, *later]), few)),
        "GetParametersForImport": draw(st.one_of(st.just([]), st.just([]), few)),
        "ImportKeyMaterial": draw(st.one_of(few, steps().map(lambda step: [step] * 100))),
    }


class Tamperer:
    """The script of a ScriptedServer. Past its plan it lets everything pass. `delivered`: what the broker was given."""

    def __init__(self, emulator: Emulator, server: ScriptedServer, plan: dict[str, list[Step]]) -> None:
        parts = urlsplit(emulator.endpoint)
        self._address = (parts.hostname, parts.port)
        self._server = server
        self._plan = {action: list(planned) for action, planned in plan.items()}
        self.delivered: list[tuple[str, Made]] = []

    def give_up(self) -> None:
        """From now on everything passes."""
        self._plan.clear()

    def __call__(self, connection: socket.socket) -> None:
        request = self._server.request
        action = header(request, b"x-acs-action")
        planned = self._plan.get(action)
        step = planned.pop(0) if planned else PASS
        if step.how == "lose request":
            return
        made = self._forwarded(request)
        if step.how != "pass":
            made = self._tampered(step, action, made)
        self.delivered.append((action, made))
        connection.sendall(made.sent)

    def _forwarded(self, request: bytes) -> Made:
        with socket.create_connection(self._address, timeout=5) as upstream:
            upstream.sendall(request)
            response = HTTPResponse(upstream)
            response.begin()
            body = response.read()
        headers = {name: value for name, value in response.getheaders() if name.lower() != "content-length"}
        return _made(response.status, headers, body)

    def _tampered(self, step: Step, action: str, true: Made) -> Made:
        made = (
            Made(b"", 0) if step.how == "lose reply" else step.made if step.how == "replace" else _changed(true, step)
        )
        lies = action == "ImportKeyMaterial" and proves_it(made)
        return Made(b"", 0) if lies else made


def tells_success(made: Made) -> bool:
    """Whether a reply is a whole 200 with an object that has a RequestId and no Code."""
    head, _, body = made.sent.partition(b"\r\n\r\n")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return False
    whole = made.whole and head.startswith(b"HTTP/1.1 200 ") and isinstance(value, dict)
    return whole and "Code" not in value and isinstance(value.get("RequestId"), str) and value["RequestId"] != ""


def header(request: bytes, name: bytes) -> str:
    """A header of a request."""
    for line in request.split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.lower() == name:
            return value.strip().decode()
    raise HTTPException(name)


def _made(status: int, headers: Mapping[str, str], body: bytes) -> Made:
    value = json.loads(body)
    return Made(reply(status, headers, body), status, value.get("Code") if isinstance(value, dict) else None)


def _changed(true: Made, step: Step) -> Made:
    """The KMS's own reply with fields, status and headers changed."""
    body = json.loads(true.sent.partition(b"\r\n\r\n")[2])
    inner = body.get("KeyMetadata")
    for name, value in step.fields.items():
        node = inner if isinstance(inner, dict) and name in INNER else body
        node[name] = value
    return _made(step.status, {"X-Kms-Emulator": "1"} | dict(step.headers), json.dumps(body).encode())

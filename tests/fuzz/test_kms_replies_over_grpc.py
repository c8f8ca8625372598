"""Any reply of the KMS, seen by the caller: an answer, or an error of ours without a word of the reply."""

import base64
import itertools
import json
from collections.abc import Iterator, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any, cast
from uuid import uuid4

import grpc
import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import rsa
from google.protobuf.duration_pb2 import Duration
from hypothesis import given

from keybroker.adapters.kms.credentials import Credentials
from keybroker.app import App
from keybroker.background import BackgroundApp
from keybroker.settings import parse_settings
from keymaterial.v1 import key_broker_service_pb2 as pb
from keymaterial.v1 import types_pb2
from keymaterial.v1.key_broker_service_pb2_grpc import KeyBrokerServiceStub
from tests.contract.kms_state import spki_der
from tests.fuzz.clocks import SleeplessClock
from tests.fuzz.examples import fuzzed
from tests.fuzz.judging import judge
from tests.fuzz.replies import Made, any_reply, reply
from tests.fuzz.tampering import header
from tests.fuzz.test_kms_replies import OPERATIONS
from tests.unit.adapters_kms.support import KEY_ID, REGION, ScriptedServer, key_body, sends, serving

NEW_KEY = types_pb2.NewKey(key_spec=types_pb2.KEY_SPEC_AES_256, alias="alias/a")
CLOSES = {"Connection": "close"}
"""As the server does: unsaid, it would be chance whether the next request goes into a connection that is closing."""

WINDOW = Duration(seconds=7 * 86400)
PUBLIC_KEY = base64.b64encode(spki_der(rsa.generate_private_key(65537, 2048))).decode()
ASKED_BY: Mapping[str, str] = MappingProxyType(
    {
        "CreateKey": "CreateExternalKey",
        "CreateAlias": "CreateExternalKey",
        "DescribeKey": "DescribeKey",
        "GetParametersForImport": "GetImportParameters",
        "ImportKeyMaterial": "ImportExternalKey",
        "ScheduleKeyDeletion": "ScheduleKeyDeletion",
        "CancelKeyDeletion": "CancelKeyDeletion",
        "ListKeys": "ListOrphanedKeys",
        "ListResourceTags": "ListOrphanedKeys",
    }
)


def request_for(rpc: str, key_id: str) -> Any:
    """A good request of this RPC: whatever of these its message has."""
    kind: Any = getattr(pb, f"{rpc}Request")
    fields = {
        "request_id": str(uuid4()),
        "pending_window": WINDOW,
        **({"new_key": NEW_KEY} if rpc == "CreateExternalKey" else {"key_id": key_id}),
    }
    return kind(**{name: value for name, value in fields.items() if name in kind.DESCRIPTOR.fields_by_name})


class Site:
    """A broker before a KMS that says what it is told to say. Each call is about a CMK of its own."""

    def __init__(self, server: ScriptedServer, address: str, clock: SleeplessClock, log: list[Any]) -> None:
        self._server = server
        self._clock = clock
        self._log = log
        self._numbers = itertools.count()
        self._before = 0
        self._channel = grpc.insecure_channel(address)
        self._stub = KeyBrokerServiceStub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def call(self, operation: str, made: Made) -> grpc.Call:
        """The RPC that asks for `operation`, to which the KMS says `made`, and what is good to all others."""
        key_id = f"{KEY_ID[:-6]}{next(self._numbers):06}"
        self._before = len(self._server.requests)
        self._clock.sleep(120)  # a circuit that is open has closed
        self._server.script = lambda connection: connection.sendall(
            (made.sent if self._action() == operation else self._good(self._action())).replace(
                KEY_ID.encode(), key_id.encode()
            )
        )
        rpc = ASKED_BY[operation]
        try:
            _, ended = getattr(self._stub, rpc).with_call(request_for(rpc, key_id), timeout=10)
        except grpc.RpcError as error:
            return cast("grpc.Call", error)
        return cast("grpc.Call", ended)

    def is_well(self) -> bool:
        """Whether a good call is answered: nothing that was said before may be in the way."""
        good = Made(reply(200, CLOSES, json.dumps(key_body()).encode()), 200)
        return self.call("DescribeKey", good).code() is grpc.StatusCode.OK

    def unforeseen(self) -> list[Any]:
        return [line for line in self._log if line["event"] == "unforeseen"]

    def _action(self) -> str:
        return header(self._server.request, b"x-acs-action")

    def _good(self, action: str) -> bytes:
        body = OPERATIONS[action][1]
        if action == "GetParametersForImport":
            expires = (self._clock.now() + timedelta(hours=23)).strftime("%Y-%m-%dT%H:%M:%SZ")
            body = body | {"PublicKey": PUBLIC_KEY, "TokenExpireTime": expires}
        if action == "DescribeKey" and b"alias%2F" in self._server.request:
            return reply(404, CLOSES, json.dumps({"Code": "Forbidden.AliasNotFound", "RequestId": "a"}).encode())
        if action == "DescribeKey":
            since = self._server.requests[self._before :]
            imported = any(header(each, b"x-acs-action") == "ImportKeyMaterial" for each in since)
            body = key_body(KeyState="Enabled" if imported else "PendingImport")
        return reply(200, CLOSES, json.dumps(body).encode())


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    clock = SleeplessClock()
    with structlog.testing.capture_logs() as log, serving(sends(b"")) as server:
        instance = {"region": REGION, "endpoint": f"http://{server.address}", "dkms_instance_id": "kst-example"}
        kms = {"default_instance": "main", "instances": {"main": instance}, "pacing": {"enabled": False}}
        local = {"grpc_address": "127.0.0.1:0", "http_address": "127.0.0.1:0"}
        app = App(
            parse_settings({"server": local, "kms": kms}),
            clock=clock,
            credentials=lambda: Credentials("LTAIexample", "secret"),
        )
        with BackgroundApp(app) as background:
            site = Site(server, background.grpc_address, clock, log)
            yield site
            site.close()


@pytest.mark.parametrize("operation", ASKED_BY)
def test_caller_sees_an_answer_or_an_error_in_our_words(site: Site, operation: str) -> None:
    body = OPERATIONS[operation][1]
    met: set[str] = set()

    @fuzzed(0.5)
    @given(made=any_reply(body))
    def prop(made: Made) -> None:
        ended = site.call(operation, made)
        if ended.code() is grpc.StatusCode.OK:
            met.add("OK")
            return
        info = judge(ended)
        assert info is not None
        met.add(info.reason)

    prop()
    assert site.is_well()
    assert site.unforeseen() == []
    assert len(met) > 1, met

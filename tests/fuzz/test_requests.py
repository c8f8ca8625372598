"""Any message to any RPC: an answer or an error of ours, nothing of the message in it, and the broker goes on."""

from typing import Any, cast
from uuid import uuid4

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

from keybroker.rpc.server import MAX_REQUEST_BYTES
from keymaterial.v1 import key_broker_service_pb2 as pb
from tests.fuzz.conftest import Target
from tests.fuzz.examples import MARK, fuzzed
from tests.fuzz.judging import judge
from tests.fuzz.messages import messages, request_ids

SERVICE = pb.DESCRIPTOR.services_by_name["KeyBrokerService"]
METHODS = {method.name: method for method in SERVICE.methods}

NAMES = [
    f"key-hzz{MARK}".encode(),
    f"acs:kms:cn-hangzhou:1540355698840000:key/key-hzz{MARK}".encode(),
    f"acs:kms:cn-elsewhere:1540355698840000:key/key-hzz{MARK}".encode(),
    f"alias/{MARK}".encode(),
    f"alias/{MARK}?".encode(),
]
"""Of CMKs that are not there, in every form that is looked at by itself."""


def call(target: Target, method: MethodDescriptor, request: bytes) -> grpc.Call:
    rpc: Any = target.channel.unary_unary(f"/{SERVICE.full_name}/{method.name}")
    try:
        _, ended = rpc.with_call(request, timeout=10)
    except grpc.RpcError as error:
        return cast("grpc.Call", error)
    return cast("grpc.Call", ended)


def judge_call(target: Target, method: MethodDescriptor, request: bytes) -> str:
    """The reason of the error; empty for an answer, or for an error of grpc's own."""
    ended = call(target, method, request)
    if ended.code() is grpc.StatusCode.OK:
        return ""
    info = judge(ended)
    if info is None:
        assert len(request) > MAX_REQUEST_BYTES, ended
        return ""
    assert (info.metadata.get("field") == "request") == (not is_message(method, request))
    return str(info.reason)


def is_message(method: MethodDescriptor, request: bytes) -> bool:
    try:
        GetMessageClass(method.input_type).FromString(request)
    except DecodeError:
        return False
    return True


@pytest.mark.parametrize("name", METHODS)
def test_rpc_with_any_message_answers_or_errs_in_our_words(target: Target, name: str) -> None:
    method = METHODS[name]
    states = [None, "Enabled", "Disabled", "PendingDeletion"]
    key_ids = [target.emulator.create_key(state=state) for state in states for _ in range(3)]
    good = {
        "request_id": request_ids(),
        "instance": st.sampled_from([b"", b"main"]),
        "key_id": st.one_of(st.sampled_from(NAMES), st.sampled_from([each.encode() for each in key_ids])),
        "wrapped_key_material": st.binary(min_size=256, max_size=256),
        "import_token": st.just(f"{MARK}+/==".encode()),
        "page_token": st.sampled_from([b"", b"2"]),
        "alias": st.integers(0, 30).map(lambda number: f"alias/{MARK}/{number}".encode()),
        "description": st.just(MARK.encode()),
        "key": st.just(MARK.encode()),
        "value": st.just(MARK.encode()),
    }

    met = set()

    @fuzzed(0.5)
    @given(request=messages(method.input_type, good))
    def prop(request: bytes) -> None:
        met.add(judge_call(target, method, request))

    prop()
    assert target.is_well()
    assert "INVALID_FIELD" in met
    assert met - {"INVALID_FIELD"}, "nothing that was made up got past the fields"


@pytest.mark.parametrize("name", [name for name, each in METHODS.items() if "key_id" in each.input_type.fields_by_name])
def test_rpc_with_any_form_of_a_name_errs_in_our_words(target: Target, name: str) -> None:
    kind: Any = GetMessageClass(METHODS[name].input_type)
    for key_id in NAMES:
        request = kind(key_id=key_id.decode())
        if "request_id" in kind.DESCRIPTOR.fields_by_name:
            request.request_id = str(uuid4())
        assert judge_call(target, METHODS[name], request.SerializeToString())
    assert target.is_well()


@pytest.mark.parametrize("name", METHODS)
def test_rpc_with_any_bytes_answers_or_errs_in_our_words(target: Target, name: str) -> None:
    @fuzzed(0.3)
    @given(request=st.binary(max_size=200))
    def prop(request: bytes) -> None:
        judge_call(target, METHODS[name], request)

    prop()
    assert target.is_well()

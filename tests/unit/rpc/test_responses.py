from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keybroker.domain.attempt import Attempt, Creation, Evidence, Failure, Kind, State
from keybroker.domain.external_key import CmkName, ExternalKey, KeyState, NewKey
from keybroker.domain.key_check_value import KeyCheckValue
from keybroker.domain.key_spec import KEY_SPECS
from keybroker.domain.wrapping import WRAPPING_ALGORITHMS, WrappingAlgorithm
from keybroker.rpc import requests, responses
from keybroker.usecases.obtain_import_parameters import ParametersSource
from keybroker.usecases.orphans import Orphan
from keymaterial.v1 import types_pb2


@dataclass(frozen=True)
class Instance:
    """What a response takes from a KMS instance."""

    name: str = "main"
    dkms_instance_id: str = "kst-example"


NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ROW = Attempt(
    record_id="8a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4e",
    caller="a caller",
    request_id="8a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d",
    kind=Kind.IMPORT,
    request_digest=b"",
    region="cn-hangzhou",
    dkms_instance_id="kst-example",
    state=State.IMPORTED,
    cmk=CmkName("1", "cn-hangzhou", "key-1"),
    creation=Creation("tag", KEY_SPECS["Aliyun_AES_256"], key_id="key-1"),
    algorithm="RSAES_OAEP_SHA_256",
    parameters="cached",
    sends=2,
    check_value=b"abc",
    kms_request_id="a-request",
    accepted_at=NOW,
    evidence=Evidence.ACCEPTED,
    entropy_source="pkcs11",
    receipt="a-receipt",
    key=ExternalKey(
        CmkName("1", "cn-hangzhou", "key-1"),
        "arn",
        "kst-example",
        KEY_SPECS["Aliyun_AES_256"],
        KeyState.ENABLED,
        "EXTERNAL",
        NOW,
    ),
    created_at=NOW,
    updated_at=NOW + timedelta(seconds=1),
)
STATES = {
    KeyState.PENDING_IMPORT: "KEY_STATE_PENDING_IMPORT",
    KeyState.ENABLED: "KEY_STATE_ENABLED",
    KeyState.DISABLED: "KEY_STATE_DISABLED",
    KeyState.PENDING_DELETION: "KEY_STATE_PENDING_DELETION",
    KeyState.UNKNOWN: "KEY_STATE_UNSPECIFIED",
}
ORIGINS = {
    "EXTERNAL": "KEY_ORIGIN_EXTERNAL",
    "Aliyun_KMS": "KEY_ORIGIN_ALIYUN_KMS",
    "": "KEY_ORIGIN_UNSPECIFIED",
    "EXTERNAL_KEY_STORE": "KEY_ORIGIN_UNSPECIFIED",
}
SPECS = {spec: name.replace("Aliyun", "KEY_SPEC") for name, spec in KEY_SPECS.items()} | {None: "KEY_SPEC_UNSPECIFIED"}

words = st.text(alphabet="abcdefghij-0123456789", min_size=1, max_size=20)
instants = st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(9999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001  # Hypothesis wants them naive
keys = st.builds(
    ExternalKey,
    name=st.builds(CmkName, words, words, words),
    arn=words,
    dkms_instance_id=words,
    spec=st.sampled_from(list(SPECS)),
    state=st.sampled_from(KeyState),
    origin=st.sampled_from(list(ORIGINS)),
    created_at=st.none() | instants,
    delete_at=st.none() | instants,
)


def test_names_of_the_proto_are_all_in_use() -> None:
    assert set(STATES.values()) == set(types_pb2.KeyState.keys())
    assert set(ORIGINS.values()) == set(types_pb2.KeyOrigin.keys())
    assert set(SPECS.values()) == set(types_pb2.KeySpec.keys())


@given(key=keys, name=words)
def test_external_key_keeps_every_field(key: ExternalKey, name: str) -> None:
    message = responses.external_key(Instance(name), key)
    assert (message.key_id, message.arn, message.instance) == (key.name.key_id, key.arn, name)
    assert message.dkms_instance_id == key.dkms_instance_id
    assert types_pb2.KeySpec.Name(message.key_spec) == SPECS[key.spec]
    assert types_pb2.KeyState.Name(message.state) == STATES[key.state]
    assert types_pb2.KeyOrigin.Name(message.origin) == ORIGINS[key.origin]
    for field, instant in (("create_time", key.created_at), ("delete_time", key.delete_at)):
        given_time = getattr(message, field).ToDatetime(UTC) if message.HasField(field) else None
        assert given_time == instant


@given(key=keys)
def test_external_key_goes_over_the_wire_unchanged(key: ExternalKey) -> None:
    message = responses.external_key(Instance(), key)
    assert types_pb2.ExternalKey.FromString(message.SerializeToString()) == message


def test_external_key_fills_every_field_of_the_proto() -> None:
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    key = ExternalKey(
        CmkName("1", "r", "k"), "arn", "kst-1", KEY_SPECS["Aliyun_AES_128"], KeyState.ENABLED, "EXTERNAL", now, now
    )
    assert {field.name for field, _ in responses.external_key(Instance(), key).ListFields()} == set(
        types_pb2.ExternalKey.DESCRIPTOR.fields_by_name
    )


@pytest.mark.parametrize("value", [value for value in types_pb2.KeySpec.values() if value])
def test_key_spec_of_a_request_comes_back_in_the_response(value: types_pb2.KeySpec) -> None:
    new_key = requests.new_key(types_pb2.NewKey(key_spec=value))
    assert responses.key_to_be(Instance(), new_key).key_spec == value


def test_key_to_be_has_instance_spec_and_origin_and_no_more() -> None:
    message = responses.key_to_be(Instance(), NewKey(KEY_SPECS["Aliyun_AES_256"], "text", "alias/a", {"k": "v"}))
    assert message == types_pb2.ExternalKey(
        instance="main",
        dkms_instance_id="kst-example",
        key_spec=types_pb2.KEY_SPEC_AES_256,
        origin=types_pb2.KEY_ORIGIN_EXTERNAL,
    )


@pytest.mark.parametrize("value", [value for value in types_pb2.WrappingAlgorithm.values() if value])
def test_wrapping_algorithm_of_a_request_comes_back_in_the_response(value: types_pb2.WrappingAlgorithm) -> None:
    assert responses.wrapping_algorithm(requests.wrapping_algorithm(value)) == value


@pytest.mark.parametrize("algorithm", WRAPPING_ALGORITHMS.values(), ids=WRAPPING_ALGORITHMS.keys())
def test_wrapping_algorithm_has_the_name_of_the_kms(algorithm: WrappingAlgorithm) -> None:
    name = types_pb2.WrappingAlgorithm.Name(responses.wrapping_algorithm(algorithm))
    assert name == f"WRAPPING_ALGORITHM_{algorithm.kms_name}"


@pytest.mark.parametrize("source", ParametersSource)
def test_parameters_source_of_an_import_has_its_name(source: ParametersSource) -> None:
    message = responses.imported(Instance(), replace(ROW, parameters=source.value), replayed=False)
    assert types_pb2.ParametersSource.Name(message.parameters_source) == f"PARAMETERS_SOURCE_{source.name}"


def test_parameters_sources_are_those_of_the_proto() -> None:
    assert len(ParametersSource) == len(types_pb2.ParametersSource.keys()) - 1


@given(value=st.binary(min_size=3, max_size=3))
def test_key_check_value_keeps_value_and_says_its_method(value: bytes) -> None:
    assert responses.key_check_value(KeyCheckValue(value)) == types_pb2.KeyCheckValue(
        method=types_pb2.KEY_CHECK_VALUE_METHOD_CMAC_AES, value=value
    )


@given(instant=instants)
def test_timestamp_goes_there_and_back(instant: datetime) -> None:
    message = responses.timestamp(instant)
    assert message is not None
    assert message.ToDatetime(UTC) == instant


def test_timestamp_of_no_instant_is_none() -> None:
    assert responses.timestamp(None) is None


def test_imported_fills_every_field_of_the_proto() -> None:
    message = responses.imported(Instance(), ROW, replayed=True)
    assert {field.name for field, _ in message.ListFields()} == set(message.DESCRIPTOR.fields_by_name)
    assert message.key_check_value.value == b"abc"
    assert message.import_time.ToDatetime(UTC) == NOW


def test_imported_wrapped_fills_every_field_of_the_proto() -> None:
    message = responses.imported_wrapped(Instance(), ROW, replayed=True)
    assert {field.name for field, _ in message.ListFields()} == set(message.DESCRIPTOR.fields_by_name)


@pytest.mark.parametrize("value", Evidence)
def test_evidence_has_its_name(value: Evidence) -> None:
    assert types_pb2.ImportEvidence.Name(responses.evidence(value)) == f"IMPORT_EVIDENCE_{value.value}"


def test_evidence_of_the_proto_is_all_in_use() -> None:
    assert len(Evidence) == len(types_pb2.ImportEvidence.keys()) - 1


@pytest.mark.parametrize("state", State)
def test_recorded_state_has_its_name(state: State) -> None:
    message = responses.recorded(replace(ROW, state=state))
    assert types_pb2.RequestState.Name(message.state) == f"REQUEST_STATE_{state.value}"


def test_recorded_states_of_the_proto_are_all_in_use() -> None:
    assert len(State) == len(types_pb2.RequestState.keys()) - 1


@pytest.mark.parametrize(("source", "name"), [("os", "OS"), ("pkcs11", "PKCS11"), ("", "UNSPECIFIED")])
def test_recorded_entropy_source_has_its_name(source: str, name: str) -> None:
    message = responses.recorded(replace(ROW, entropy_source=source))
    assert types_pb2.EntropySource.Name(message.entropy_source) == f"ENTROPY_SOURCE_{name}"


def test_recorded_import_fills_every_field_but_the_reason() -> None:
    message = responses.recorded(ROW)
    assert {field.name for field, _ in message.ListFields()} == set(message.DESCRIPTOR.fields_by_name) - {"reason"}


@pytest.mark.parametrize("state", [state for state in State if state is not State.IMPORTED])
def test_recorded_has_no_check_value_without_evidence(state: State) -> None:
    assert not responses.recorded(replace(ROW, state=state)).HasField("key_check_value")


def test_recorded_wrapped_import_has_no_check_value_for_the_broker_never_held_the_material() -> None:
    assert not responses.recorded(replace(ROW, check_value=b"")).HasField("key_check_value")


@pytest.mark.parametrize(
    ("state", "failure", "reason"),
    [
        (State.NOT_IMPORTED, Failure("KMS_ACCESS_DENIED", "Denied."), "KMS_ACCESS_DENIED"),
        (State.NOT_IMPORTED, None, "NOT_IMPORTED"),
        (State.ENABLED_UNATTRIBUTED, None, "ENABLED_UNATTRIBUTED"),
        (State.ALREADY_BOUND, None, "KEY_MATERIAL_ALREADY_BOUND"),
        (State.RELEASED, Failure("KMS_THROTTLED", "Slow down."), ""),
        (State.PREPARED, None, ""),
        (State.ACCEPTED, None, ""),
    ],
)
def test_recorded_reason_is_what_a_repeat_gets(state: State, failure: Failure | None, reason: str) -> None:
    assert responses.recorded(replace(ROW, state=state, failure=failure)).reason == reason


def test_recorded_request_for_a_cmk_that_has_one_names_it() -> None:
    message = responses.recorded(replace(ROW, state=State.RELEASED, cmk=None))
    assert (message.key_id, message.created_key_id) == ("key-1", "key-1")


def test_orphan_names_the_request_that_it_was_made_for() -> None:
    assert ROW.key is not None
    message = responses.orphaned_key(Instance(), Orphan(ROW.key, ROW, timedelta(hours=3), deletable=True))
    assert {field.name for field, _ in message.ListFields()} == set(message.DESCRIPTOR.fields_by_name)
    assert message.age.ToTimedelta() == timedelta(hours=3)


def test_orphan_without_a_record_names_nobody() -> None:
    assert ROW.key is not None
    message = responses.orphaned_key(Instance(), Orphan(ROW.key, None, None, deletable=False))
    assert {field.name for field, _ in message.ListFields()} == {"key"}

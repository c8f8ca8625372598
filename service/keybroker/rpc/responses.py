"""Turns domain values into response messages."""

from collections.abc import Mapping
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from keybroker.domain.external_key import ORIGIN_EXTERNAL, ExternalKey, KeyState, NewKey
from keybroker.domain.key_check_value import KeyCheckValue
from keybroker.domain.key_spec import AES_128, AES_192, AES_256, KeySpec
from keybroker.domain.wrapping import RSAES_OAEP_SHA_256, RSAES_PKCS1_V1_5, WrappingAlgorithm
from keybroker.ports import Kms
from keybroker.usecases.obtain_import_parameters import ParametersSource
from keymaterial.v1 import types_pb2

_KEY_SPECS: Mapping[KeySpec, types_pb2.KeySpec] = {
    AES_128: types_pb2.KEY_SPEC_AES_128,
    AES_192: types_pb2.KEY_SPEC_AES_192,
    AES_256: types_pb2.KEY_SPEC_AES_256,
}
_STATES: Mapping[KeyState, types_pb2.KeyState] = {
    KeyState.PENDING_IMPORT: types_pb2.KEY_STATE_PENDING_IMPORT,
    KeyState.ENABLED: types_pb2.KEY_STATE_ENABLED,
    KeyState.DISABLED: types_pb2.KEY_STATE_DISABLED,
    KeyState.PENDING_DELETION: types_pb2.KEY_STATE_PENDING_DELETION,
}
_ORIGINS: Mapping[str, types_pb2.KeyOrigin] = {
    ORIGIN_EXTERNAL: types_pb2.KEY_ORIGIN_EXTERNAL,
    "Aliyun_KMS": types_pb2.KEY_ORIGIN_ALIYUN_KMS,
}
_WRAPPING_ALGORITHMS: Mapping[WrappingAlgorithm, types_pb2.WrappingAlgorithm] = {
    RSAES_OAEP_SHA_256: types_pb2.WRAPPING_ALGORITHM_RSAES_OAEP_SHA_256,
    RSAES_PKCS1_V1_5: types_pb2.WRAPPING_ALGORITHM_RSAES_PKCS1_V1_5,
}
_SOURCES: Mapping[ParametersSource, types_pb2.ParametersSource] = {
    ParametersSource.CACHED: types_pb2.PARAMETERS_SOURCE_CACHED,
    ParametersSource.FETCHED: types_pb2.PARAMETERS_SOURCE_FETCHED,
}


def external_key(kms: Kms, key: ExternalKey) -> types_pb2.ExternalKey:
    """The CMK as read through `kms`."""
    return types_pb2.ExternalKey(
        key_id=key.name.key_id,
        arn=key.arn,
        instance=kms.name,
        dkms_instance_id=key.dkms_instance_id,
        key_spec=_KEY_SPECS[key.spec] if key.spec else types_pb2.KEY_SPEC_UNSPECIFIED,
        state=_STATES.get(key.state, types_pb2.KEY_STATE_UNSPECIFIED),
        origin=_ORIGINS.get(key.origin, types_pb2.KEY_ORIGIN_UNSPECIFIED),
        create_time=timestamp(key.created_at),
        delete_time=timestamp(key.delete_at),
    )


def key_to_be(kms: Kms, new_key: NewKey) -> types_pb2.ExternalKey:
    """The CMK that would be created: it has no id, state or time yet."""
    return types_pb2.ExternalKey(
        instance=kms.name,
        dkms_instance_id=kms.dkms_instance_id,
        key_spec=_KEY_SPECS[new_key.spec],
        origin=types_pb2.KEY_ORIGIN_EXTERNAL,
    )


def key_check_value(value: KeyCheckValue) -> types_pb2.KeyCheckValue:
    """The check value with its method."""
    return types_pb2.KeyCheckValue(method=types_pb2.KEY_CHECK_VALUE_METHOD_CMAC_AES, value=value.value)


def wrapping_algorithm(algorithm: WrappingAlgorithm) -> types_pb2.WrappingAlgorithm:
    """The algorithm's enum value."""
    return _WRAPPING_ALGORITHMS[algorithm]


def parameters_source(source: ParametersSource) -> types_pb2.ParametersSource:
    """The source's enum value."""
    return _SOURCES[source]


def timestamp(at: datetime | None) -> Timestamp | None:
    """A UTC-aware instant as a Timestamp."""
    if at is None:
        return None
    message = Timestamp()
    message.FromDatetime(at)
    return message

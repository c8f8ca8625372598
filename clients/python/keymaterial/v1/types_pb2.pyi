import datetime

from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class KeySpec(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KEY_SPEC_UNSPECIFIED: _ClassVar[KeySpec]
    KEY_SPEC_AES_128: _ClassVar[KeySpec]
    KEY_SPEC_AES_192: _ClassVar[KeySpec]
    KEY_SPEC_AES_256: _ClassVar[KeySpec]

class KeyOrigin(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KEY_ORIGIN_UNSPECIFIED: _ClassVar[KeyOrigin]
    KEY_ORIGIN_EXTERNAL: _ClassVar[KeyOrigin]
    KEY_ORIGIN_ALIYUN_KMS: _ClassVar[KeyOrigin]

class KeyState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KEY_STATE_UNSPECIFIED: _ClassVar[KeyState]
    KEY_STATE_PENDING_IMPORT: _ClassVar[KeyState]
    KEY_STATE_ENABLED: _ClassVar[KeyState]
    KEY_STATE_DISABLED: _ClassVar[KeyState]
    KEY_STATE_PENDING_DELETION: _ClassVar[KeyState]

class WrappingAlgorithm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WRAPPING_ALGORITHM_UNSPECIFIED: _ClassVar[WrappingAlgorithm]
    WRAPPING_ALGORITHM_RSAES_OAEP_SHA_256: _ClassVar[WrappingAlgorithm]
    WRAPPING_ALGORITHM_RSAES_PKCS1_V1_5: _ClassVar[WrappingAlgorithm]

class ImportEvidence(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IMPORT_EVIDENCE_UNSPECIFIED: _ClassVar[ImportEvidence]
    IMPORT_EVIDENCE_ACCEPTED: _ClassVar[ImportEvidence]
    IMPORT_EVIDENCE_PROVED: _ClassVar[ImportEvidence]
    IMPORT_EVIDENCE_SOLE_IMPORTER: _ClassVar[ImportEvidence]

class EntropySource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENTROPY_SOURCE_UNSPECIFIED: _ClassVar[EntropySource]
    ENTROPY_SOURCE_OS: _ClassVar[EntropySource]
    ENTROPY_SOURCE_PKCS11: _ClassVar[EntropySource]

class RequestState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REQUEST_STATE_UNSPECIFIED: _ClassVar[RequestState]
    REQUEST_STATE_CREATING: _ClassVar[RequestState]
    REQUEST_STATE_RELEASED: _ClassVar[RequestState]
    REQUEST_STATE_CLAIMED: _ClassVar[RequestState]
    REQUEST_STATE_PREPARED: _ClassVar[RequestState]
    REQUEST_STATE_ACCEPTED: _ClassVar[RequestState]
    REQUEST_STATE_IMPORTED: _ClassVar[RequestState]
    REQUEST_STATE_ENABLED_UNATTRIBUTED: _ClassVar[RequestState]
    REQUEST_STATE_NOT_IMPORTED: _ClassVar[RequestState]
    REQUEST_STATE_ALREADY_BOUND: _ClassVar[RequestState]
    REQUEST_STATE_CREATED: _ClassVar[RequestState]

class ParametersSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PARAMETERS_SOURCE_UNSPECIFIED: _ClassVar[ParametersSource]
    PARAMETERS_SOURCE_CACHED: _ClassVar[ParametersSource]
    PARAMETERS_SOURCE_FETCHED: _ClassVar[ParametersSource]

class KeyCheckValueMethod(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KEY_CHECK_VALUE_METHOD_UNSPECIFIED: _ClassVar[KeyCheckValueMethod]
    KEY_CHECK_VALUE_METHOD_CMAC_AES: _ClassVar[KeyCheckValueMethod]
KEY_SPEC_UNSPECIFIED: KeySpec
KEY_SPEC_AES_128: KeySpec
KEY_SPEC_AES_192: KeySpec
KEY_SPEC_AES_256: KeySpec
KEY_ORIGIN_UNSPECIFIED: KeyOrigin
KEY_ORIGIN_EXTERNAL: KeyOrigin
KEY_ORIGIN_ALIYUN_KMS: KeyOrigin
KEY_STATE_UNSPECIFIED: KeyState
KEY_STATE_PENDING_IMPORT: KeyState
KEY_STATE_ENABLED: KeyState
KEY_STATE_DISABLED: KeyState
KEY_STATE_PENDING_DELETION: KeyState
WRAPPING_ALGORITHM_UNSPECIFIED: WrappingAlgorithm
WRAPPING_ALGORITHM_RSAES_OAEP_SHA_256: WrappingAlgorithm
WRAPPING_ALGORITHM_RSAES_PKCS1_V1_5: WrappingAlgorithm
IMPORT_EVIDENCE_UNSPECIFIED: ImportEvidence
IMPORT_EVIDENCE_ACCEPTED: ImportEvidence
IMPORT_EVIDENCE_PROVED: ImportEvidence
IMPORT_EVIDENCE_SOLE_IMPORTER: ImportEvidence
ENTROPY_SOURCE_UNSPECIFIED: EntropySource
ENTROPY_SOURCE_OS: EntropySource
ENTROPY_SOURCE_PKCS11: EntropySource
REQUEST_STATE_UNSPECIFIED: RequestState
REQUEST_STATE_CREATING: RequestState
REQUEST_STATE_RELEASED: RequestState
REQUEST_STATE_CLAIMED: RequestState
REQUEST_STATE_PREPARED: RequestState
REQUEST_STATE_ACCEPTED: RequestState
REQUEST_STATE_IMPORTED: RequestState
REQUEST_STATE_ENABLED_UNATTRIBUTED: RequestState
REQUEST_STATE_NOT_IMPORTED: RequestState
REQUEST_STATE_ALREADY_BOUND: RequestState
REQUEST_STATE_CREATED: RequestState
PARAMETERS_SOURCE_UNSPECIFIED: ParametersSource
PARAMETERS_SOURCE_CACHED: ParametersSource
PARAMETERS_SOURCE_FETCHED: ParametersSource
KEY_CHECK_VALUE_METHOD_UNSPECIFIED: KeyCheckValueMethod
KEY_CHECK_VALUE_METHOD_CMAC_AES: KeyCheckValueMethod

class KeyCheckValue(_message.Message):
    __slots__ = ("method", "value")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    method: KeyCheckValueMethod
    value: bytes
    def __init__(self, method: _Optional[_Union[KeyCheckValueMethod, str]] = ..., value: _Optional[bytes] = ...) -> None: ...

class ExternalKey(_message.Message):
    __slots__ = ("key_id", "arn", "instance", "dkms_instance_id", "key_spec", "state", "origin", "create_time", "delete_time")
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    ARN_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    DKMS_INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_SPEC_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    DELETE_TIME_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    arn: str
    instance: str
    dkms_instance_id: str
    key_spec: KeySpec
    state: KeyState
    origin: KeyOrigin
    create_time: _timestamp_pb2.Timestamp
    delete_time: _timestamp_pb2.Timestamp
    def __init__(self, key_id: _Optional[str] = ..., arn: _Optional[str] = ..., instance: _Optional[str] = ..., dkms_instance_id: _Optional[str] = ..., key_spec: _Optional[_Union[KeySpec, str]] = ..., state: _Optional[_Union[KeyState, str]] = ..., origin: _Optional[_Union[KeyOrigin, str]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., delete_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class NewKey(_message.Message):
    __slots__ = ("key_spec", "description", "alias", "tags")
    class TagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    KEY_SPEC_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    key_spec: KeySpec
    description: str
    alias: str
    tags: _containers.ScalarMap[str, str]
    def __init__(self, key_spec: _Optional[_Union[KeySpec, str]] = ..., description: _Optional[str] = ..., alias: _Optional[str] = ..., tags: _Optional[_Mapping[str, str]] = ...) -> None: ...

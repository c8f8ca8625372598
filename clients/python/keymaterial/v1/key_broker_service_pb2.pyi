import datetime

from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from keymaterial.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ImportExternalKeyRequest(_message.Message):
    __slots__ = ("request_id", "instance", "key_id", "new_key", "wrapping_algorithm", "validate_only", "allow_second_key")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    NEW_KEY_FIELD_NUMBER: _ClassVar[int]
    WRAPPING_ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    ALLOW_SECOND_KEY_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    instance: str
    key_id: str
    new_key: _types_pb2.NewKey
    wrapping_algorithm: _types_pb2.WrappingAlgorithm
    validate_only: bool
    allow_second_key: bool
    def __init__(self, request_id: _Optional[str] = ..., instance: _Optional[str] = ..., key_id: _Optional[str] = ..., new_key: _Optional[_Union[_types_pb2.NewKey, _Mapping]] = ..., wrapping_algorithm: _Optional[_Union[_types_pb2.WrappingAlgorithm, str]] = ..., validate_only: _Optional[bool] = ..., allow_second_key: _Optional[bool] = ...) -> None: ...

class ImportExternalKeyResponse(_message.Message):
    __slots__ = ("key", "key_check_value", "wrapping_algorithm", "evidence", "parameters_source", "import_time", "kms_request_id", "replayed", "receipt")
    KEY_FIELD_NUMBER: _ClassVar[int]
    KEY_CHECK_VALUE_FIELD_NUMBER: _ClassVar[int]
    WRAPPING_ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_SOURCE_FIELD_NUMBER: _ClassVar[int]
    IMPORT_TIME_FIELD_NUMBER: _ClassVar[int]
    KMS_REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    key: _types_pb2.ExternalKey
    key_check_value: _types_pb2.KeyCheckValue
    wrapping_algorithm: _types_pb2.WrappingAlgorithm
    evidence: _types_pb2.ImportEvidence
    parameters_source: _types_pb2.ParametersSource
    import_time: _timestamp_pb2.Timestamp
    kms_request_id: str
    replayed: bool
    receipt: str
    def __init__(self, key: _Optional[_Union[_types_pb2.ExternalKey, _Mapping]] = ..., key_check_value: _Optional[_Union[_types_pb2.KeyCheckValue, _Mapping]] = ..., wrapping_algorithm: _Optional[_Union[_types_pb2.WrappingAlgorithm, str]] = ..., evidence: _Optional[_Union[_types_pb2.ImportEvidence, str]] = ..., parameters_source: _Optional[_Union[_types_pb2.ParametersSource, str]] = ..., import_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., kms_request_id: _Optional[str] = ..., replayed: _Optional[bool] = ..., receipt: _Optional[str] = ...) -> None: ...

class CreateExternalKeyRequest(_message.Message):
    __slots__ = ("request_id", "instance", "new_key", "allow_second_key")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    NEW_KEY_FIELD_NUMBER: _ClassVar[int]
    ALLOW_SECOND_KEY_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    instance: str
    new_key: _types_pb2.NewKey
    allow_second_key: bool
    def __init__(self, request_id: _Optional[str] = ..., instance: _Optional[str] = ..., new_key: _Optional[_Union[_types_pb2.NewKey, _Mapping]] = ..., allow_second_key: _Optional[bool] = ...) -> None: ...

class CreateExternalKeyResponse(_message.Message):
    __slots__ = ("key", "kms_request_id", "replayed")
    KEY_FIELD_NUMBER: _ClassVar[int]
    KMS_REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    key: _types_pb2.ExternalKey
    kms_request_id: str
    replayed: bool
    def __init__(self, key: _Optional[_Union[_types_pb2.ExternalKey, _Mapping]] = ..., kms_request_id: _Optional[str] = ..., replayed: _Optional[bool] = ...) -> None: ...

class GetImportParametersRequest(_message.Message):
    __slots__ = ("instance", "key_id", "wrapping_algorithm")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    WRAPPING_ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    instance: str
    key_id: str
    wrapping_algorithm: _types_pb2.WrappingAlgorithm
    def __init__(self, instance: _Optional[str] = ..., key_id: _Optional[str] = ..., wrapping_algorithm: _Optional[_Union[_types_pb2.WrappingAlgorithm, str]] = ...) -> None: ...

class GetImportParametersResponse(_message.Message):
    __slots__ = ("key_id", "wrapping_public_key", "import_token", "wrapping_algorithm", "expire_time")
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    WRAPPING_PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    IMPORT_TOKEN_FIELD_NUMBER: _ClassVar[int]
    WRAPPING_ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    wrapping_public_key: bytes
    import_token: str
    wrapping_algorithm: _types_pb2.WrappingAlgorithm
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, key_id: _Optional[str] = ..., wrapping_public_key: _Optional[bytes] = ..., import_token: _Optional[str] = ..., wrapping_algorithm: _Optional[_Union[_types_pb2.WrappingAlgorithm, str]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ImportWrappedKeyMaterialRequest(_message.Message):
    __slots__ = ("request_id", "instance", "key_id", "wrapped_key_material", "import_token", "validate_only")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    WRAPPED_KEY_MATERIAL_FIELD_NUMBER: _ClassVar[int]
    IMPORT_TOKEN_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    instance: str
    key_id: str
    wrapped_key_material: bytes
    import_token: str
    validate_only: bool
    def __init__(self, request_id: _Optional[str] = ..., instance: _Optional[str] = ..., key_id: _Optional[str] = ..., wrapped_key_material: _Optional[bytes] = ..., import_token: _Optional[str] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class ImportWrappedKeyMaterialResponse(_message.Message):
    __slots__ = ("key", "import_time", "kms_request_id", "replayed", "receipt")
    KEY_FIELD_NUMBER: _ClassVar[int]
    IMPORT_TIME_FIELD_NUMBER: _ClassVar[int]
    KMS_REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    key: _types_pb2.ExternalKey
    import_time: _timestamp_pb2.Timestamp
    kms_request_id: str
    replayed: bool
    receipt: str
    def __init__(self, key: _Optional[_Union[_types_pb2.ExternalKey, _Mapping]] = ..., import_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., kms_request_id: _Optional[str] = ..., replayed: _Optional[bool] = ..., receipt: _Optional[str] = ...) -> None: ...

class GetImportRequest(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    def __init__(self, request_id: _Optional[str] = ...) -> None: ...

class GetImportResponse(_message.Message):
    __slots__ = ("request_id", "state", "key_id", "created_key_id", "evidence", "key_check_value", "wrapping_algorithm", "kms_request_id", "import_time", "reason", "sends", "create_time", "update_time", "entropy_source", "receipt")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    CREATED_KEY_ID_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    KEY_CHECK_VALUE_FIELD_NUMBER: _ClassVar[int]
    WRAPPING_ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    KMS_REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    IMPORT_TIME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SENDS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    ENTROPY_SOURCE_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    state: _types_pb2.RequestState
    key_id: str
    created_key_id: str
    evidence: _types_pb2.ImportEvidence
    key_check_value: _types_pb2.KeyCheckValue
    wrapping_algorithm: _types_pb2.WrappingAlgorithm
    kms_request_id: str
    import_time: _timestamp_pb2.Timestamp
    reason: str
    sends: int
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    entropy_source: _types_pb2.EntropySource
    receipt: str
    def __init__(self, request_id: _Optional[str] = ..., state: _Optional[_Union[_types_pb2.RequestState, str]] = ..., key_id: _Optional[str] = ..., created_key_id: _Optional[str] = ..., evidence: _Optional[_Union[_types_pb2.ImportEvidence, str]] = ..., key_check_value: _Optional[_Union[_types_pb2.KeyCheckValue, _Mapping]] = ..., wrapping_algorithm: _Optional[_Union[_types_pb2.WrappingAlgorithm, str]] = ..., kms_request_id: _Optional[str] = ..., import_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reason: _Optional[str] = ..., sends: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., entropy_source: _Optional[_Union[_types_pb2.EntropySource, str]] = ..., receipt: _Optional[str] = ...) -> None: ...

class ListOrphanedKeysRequest(_message.Message):
    __slots__ = ("instance", "page_token")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    instance: str
    page_token: str
    def __init__(self, instance: _Optional[str] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListOrphanedKeysResponse(_message.Message):
    __slots__ = ("keys", "next_page_token")
    KEYS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedCompositeFieldContainer[OrphanedKey]
    next_page_token: str
    def __init__(self, keys: _Optional[_Iterable[_Union[OrphanedKey, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class OrphanedKey(_message.Message):
    __slots__ = ("key", "request_id", "caller", "state", "age", "deletable")
    KEY_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    DELETABLE_FIELD_NUMBER: _ClassVar[int]
    key: _types_pb2.ExternalKey
    request_id: str
    caller: str
    state: _types_pb2.RequestState
    age: _duration_pb2.Duration
    deletable: bool
    def __init__(self, key: _Optional[_Union[_types_pb2.ExternalKey, _Mapping]] = ..., request_id: _Optional[str] = ..., caller: _Optional[str] = ..., state: _Optional[_Union[_types_pb2.RequestState, str]] = ..., age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., deletable: _Optional[bool] = ...) -> None: ...

class DeleteOrphanedKeyRequest(_message.Message):
    __slots__ = ("request_id", "instance", "key_id", "pending_window")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    PENDING_WINDOW_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    instance: str
    key_id: str
    pending_window: _duration_pb2.Duration
    def __init__(self, request_id: _Optional[str] = ..., instance: _Optional[str] = ..., key_id: _Optional[str] = ..., pending_window: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class DeleteOrphanedKeyResponse(_message.Message):
    __slots__ = ("key", "kms_request_id")
    KEY_FIELD_NUMBER: _ClassVar[int]
    KMS_REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    key: _types_pb2.ExternalKey
    kms_request_id: str
    def __init__(self, key: _Optional[_Union[_types_pb2.ExternalKey, _Mapping]] = ..., kms_request_id: _Optional[str] = ...) -> None: ...

class DescribeKeyRequest(_message.Message):
    __slots__ = ("instance", "key_id")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    instance: str
    key_id: str
    def __init__(self, instance: _Optional[str] = ..., key_id: _Optional[str] = ...) -> None: ...

class DescribeKeyResponse(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: _types_pb2.ExternalKey
    def __init__(self, key: _Optional[_Union[_types_pb2.ExternalKey, _Mapping]] = ...) -> None: ...

class ScheduleKeyDeletionRequest(_message.Message):
    __slots__ = ("request_id", "instance", "key_id", "pending_window")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    PENDING_WINDOW_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    instance: str
    key_id: str
    pending_window: _duration_pb2.Duration
    def __init__(self, request_id: _Optional[str] = ..., instance: _Optional[str] = ..., key_id: _Optional[str] = ..., pending_window: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ScheduleKeyDeletionResponse(_message.Message):
    __slots__ = ("key", "kms_request_id")
    KEY_FIELD_NUMBER: _ClassVar[int]
    KMS_REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    key: _types_pb2.ExternalKey
    kms_request_id: str
    def __init__(self, key: _Optional[_Union[_types_pb2.ExternalKey, _Mapping]] = ..., kms_request_id: _Optional[str] = ...) -> None: ...

class CancelKeyDeletionRequest(_message.Message):
    __slots__ = ("request_id", "instance", "key_id")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    instance: str
    key_id: str
    def __init__(self, request_id: _Optional[str] = ..., instance: _Optional[str] = ..., key_id: _Optional[str] = ...) -> None: ...

class CancelKeyDeletionResponse(_message.Message):
    __slots__ = ("key", "kms_request_id")
    KEY_FIELD_NUMBER: _ClassVar[int]
    KMS_REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    key: _types_pb2.ExternalKey
    kms_request_id: str
    def __init__(self, key: _Optional[_Union[_types_pb2.ExternalKey, _Mapping]] = ..., kms_request_id: _Optional[str] = ...) -> None: ...

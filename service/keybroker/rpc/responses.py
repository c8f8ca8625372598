"""Turns domain values into response messages."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from keybroker.domain.attempt import Attempt, Evidence, State
from keybroker.domain.external_key import ORIGIN_EXTERNAL, ExternalKey, KeyState, NewKey
from keybroker.domain.key_check_value import KeyCheckValue
from keybroker.domain.key_spec import AES_128, AES_192, AES_256, KeySpec
from keybroker.domain.wrapping import (
    RSAES_OAEP_SHA_256,
    RSAES_PKCS1_V1_5,
    WRAPPING_ALGORITHMS,
    WrappingAlgorithm,
)
from keybroker.ports import Kms
from keybroker.usecases.answers import error_of
from keybroker.usecases.obtain_import_parameters import ParametersSource
from keybroker.usecases.orphans import Orphan
from keymaterial.v1 import key_broker_service_pb2 as pb
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
_SOURCES: Mapping[str, types_pb2.ParametersSource] = {
    ParametersSource.CACHED: types_pb2.PARAMETERS_SOURCE_CACHED,
    ParametersSource.FETCHED: types_pb2.PARAMETERS_SOURCE_FETCHED,
}
_EVIDENCE: Mapping[Evidence, types_pb2.ImportEvidence] = {
    Evidence.ACCEPTED: types_pb2.IMPORT_EVIDENCE_ACCEPTED,
    Evidence.PROVED: types_pb2.IMPORT_EVIDENCE_PROVED,
    Evidence.SOLE_IMPORTER: types_pb2.IMPORT_EVIDENCE_SOLE_IMPORTER,
}
_ENTROPY_SOURCES: Mapping[str, types_pb2.EntropySource] = {
    "os": types_pb2.ENTROPY_SOURCE_OS,
    "pkcs11": types_pb2.ENTROPY_SOURCE_PKCS11,
}
_REQUEST_STATES: Mapping[State, types_pb2.RequestState] = {
    state: getattr(types_pb2, f"REQUEST_STATE_{state}") for state in State
}
_ENDED_BADLY = frozenset({State.NOT_IMPORTED, State.ENABLED_UNATTRIBUTED, State.ALREADY_BOUND})


def imported(kms: Kms, row: Attempt, *, replayed: bool) -> pb.ImportExternalKeyResponse:
    """An IMPORTED row of material that the broker generated."""
    return pb.ImportExternalKeyResponse(
        key=external_key(kms, row.key) if row.key else None,
        key_check_value=key_check_value(KeyCheckValue(row.check_value)),
        wrapping_algorithm=_algorithm_named(row.algorithm),
        evidence=evidence(row.evidence),
        parameters_source=_SOURCES.get(row.parameters, types_pb2.PARAMETERS_SOURCE_UNSPECIFIED),
        import_time=timestamp(row.accepted_at),
        kms_request_id=row.kms_request_id,
        replayed=replayed,
        receipt=row.receipt,
    )


def imported_wrapped(kms: Kms, row: Attempt, *, replayed: bool) -> pb.ImportWrappedKeyMaterialResponse:
    """An IMPORTED row of material that the caller wrapped."""
    return pb.ImportWrappedKeyMaterialResponse(
        key=external_key(kms, row.key) if row.key else None,
        import_time=timestamp(row.accepted_at),
        kms_request_id=row.kms_request_id,
        replayed=replayed,
        receipt=row.receipt,
    )


def recorded(row: Attempt) -> pb.GetImportResponse:
    """A row as its caller may see it. The check value only with evidence."""
    known = row.state is State.IMPORTED and row.check_value
    return pb.GetImportResponse(
        request_id=row.request_id,
        state=_REQUEST_STATES[row.state],
        key_id=row.cmk.key_id if row.cmk else row.creation.key_id if row.creation else "",
        created_key_id=row.creation.key_id if row.creation else "",
        evidence=evidence(row.evidence),
        key_check_value=key_check_value(KeyCheckValue(row.check_value)) if known else None,
        wrapping_algorithm=_algorithm_named(row.algorithm),
        kms_request_id=row.kms_request_id,
        import_time=timestamp(row.accepted_at),
        reason=error_of(row).reason.value if row.state in _ENDED_BADLY else "",
        sends=row.sends,
        create_time=timestamp(row.created_at),
        update_time=timestamp(row.updated_at),
        entropy_source=_ENTROPY_SOURCES.get(row.entropy_source, types_pb2.ENTROPY_SOURCE_UNSPECIFIED),
        receipt=row.receipt,
    )


def orphaned_key(kms: Kms, orphan: Orphan) -> pb.OrphanedKey:
    """A CMK that waits for material, with the request that it was made for."""
    origin = orphan.origin
    return pb.OrphanedKey(
        key=external_key(kms, orphan.key),
        request_id=origin.request_id if origin else "",
        caller=origin.caller if origin else "",
        state=_REQUEST_STATES[origin.state] if origin else types_pb2.REQUEST_STATE_UNSPECIFIED,
        age=_duration(orphan.age),
        deletable=orphan.deletable,
    )


def evidence(value: Evidence | None) -> types_pb2.ImportEvidence:
    """The evidence's enum value."""
    return _EVIDENCE[value] if value else types_pb2.IMPORT_EVIDENCE_UNSPECIFIED


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


def timestamp(at: datetime | None) -> Timestamp | None:
    """A UTC-aware instant as a Timestamp."""
    if at is None:
        return None
    message = Timestamp()
    message.FromDatetime(at)
    return message


def _duration(span: timedelta | None) -> Duration | None:
    if span is None:
        return None
    message = Duration()
    message.FromTimedelta(span)
    return message


def _algorithm_named(name: str) -> types_pb2.WrappingAlgorithm:
    algorithm = WRAPPING_ALGORITHMS.get(name)
    return _WRAPPING_ALGORITHMS[algorithm] if algorithm else types_pb2.WRAPPING_ALGORITHM_UNSPECIFIED

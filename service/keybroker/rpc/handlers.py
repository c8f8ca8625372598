"""The seven RPCs as blocking functions: check the request, run the use case, build the response."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from keybroker.domain.errors import BrokerError, InvalidField, Reason
from keybroker.domain.external_key import KeyReference, NewKey
from keybroker.domain.policy import Access
from keybroker.domain.wrapping import RSAES_PKCS1_V1_5, WRAPPING_ALGORITHMS, WrappingAlgorithm
from keybroker.ports import Kms
from keybroker.rpc import requests, responses
from keybroker.rpc.access import AccessControl, rpc_name
from keybroker.rpc.call import Call
from keybroker.rpc.import_meter import ImportMeter, Measured
from keybroker.usecases.hand_out_import_parameters import HandOutImportParameters
from keybroker.usecases.import_external_key import ImportExternalKey
from keybroker.usecases.import_wrapped_key_material import ImportWrappedKeyMaterial
from keybroker.usecases.manage_keys import ManageKeys
from keybroker.usecases.progress import Progress
from keymaterial.v1 import key_broker_service_pb2 as pb
from keymaterial.v1 import types_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class UseCases:
    """What the handlers call."""

    import_external_key: ImportExternalKey
    import_wrapped_key_material: ImportWrappedKeyMaterial
    hand_out_import_parameters: HandOutImportParameters
    manage_keys: ManageKeys


class Handlers:
    """One method an RPC. Each raises BrokerError, and notes in the Call what may be logged."""

    def __init__(  # noqa: PLR0913  # what the seven RPCs need
        self,
        *,
        instances: Mapping[str, Kms],
        default_instance: str,
        use_cases: UseCases,
        meter: ImportMeter,
        access: AccessControl | None,
        forbid_pkcs1_v1_5: bool,
    ) -> None:
        self._instances = instances
        self._default_instance = default_instance
        self._use_cases = use_cases
        self._meter = meter
        self._access = access
        self._forbid_pkcs1_v1_5 = forbid_pkcs1_v1_5

    def import_external_key(self, request: pb.ImportExternalKeyRequest, call: Call) -> pb.ImportExternalKeyResponse:
        """ImportExternalKey."""
        with self._meter.measure() as measured, _created_key_named(measured.progress, call):
            kms = self._open(request.request_id, request.instance, call)
            target = self._target(request, kms, call)
            algorithm = self._algorithm(request.wrapping_algorithm, call)
            measured.wrapping_algorithm = algorithm.kms_name
            self._check(call, kms, target, algorithm)
            if request.validate_only:
                return self._validate_import(kms, target, algorithm, measured, call)
            imported = self._use_cases.import_external_key.run(
                kms, target, algorithm, progress=measured.progress, deadline=call.deadline
            )
            call.noted.key_id = imported.delivered.key.name.key_id
            call.noted.parameters = imported.parameters.value
            call.noted.kms_request_id = imported.delivered.sent.kms_request_id
            call.noted.evidence = "ACCEPTED"
            return pb.ImportExternalKeyResponse(
                key=responses.external_key(kms, imported.delivered.key),
                key_check_value=responses.key_check_value(imported.check_value),
                wrapping_algorithm=responses.wrapping_algorithm(algorithm),
                evidence=types_pb2.IMPORT_EVIDENCE_ACCEPTED,
                parameters_source=responses.parameters_source(imported.parameters),
                import_time=responses.timestamp(imported.delivered.sent.accepted_at),
                kms_request_id=imported.delivered.sent.kms_request_id,
            )

    def create_external_key(self, request: pb.CreateExternalKeyRequest, call: Call) -> pb.CreateExternalKeyResponse:
        """CreateExternalKey."""
        progress = Progress()
        with _created_key_named(progress, call):
            kms = self._open(request.request_id, request.instance, call)
            new_key = requests.new_key(request.new_key)
            self._check(call, kms, new_key)
            key, reply = self._use_cases.manage_keys.create(kms, new_key, progress=progress, deadline=call.deadline)
        call.noted.kms_request_id = reply.request_id
        return pb.CreateExternalKeyResponse(
            key=responses.external_key(kms, key),
            kms_request_id=reply.request_id,
        )

    def get_import_parameters(
        self, request: pb.GetImportParametersRequest, call: Call
    ) -> pb.GetImportParametersResponse:
        """GetImportParameters."""
        kms = self._instance(request.instance, call)
        reference = self._reference(request.key_id, kms, call)
        algorithm = self._algorithm(request.wrapping_algorithm, call)
        self._check(call, kms, reference, algorithm)
        parameters = self._use_cases.hand_out_import_parameters.run(kms, reference, algorithm, deadline=call.deadline)
        return pb.GetImportParametersResponse(
            key_id=parameters.cmk.key_id,
            wrapping_public_key=parameters.wrapping_public_key_der,
            import_token=parameters.import_token,
            wrapping_algorithm=responses.wrapping_algorithm(algorithm),
            expire_time=responses.timestamp(parameters.expires_at),
        )

    def import_wrapped_key_material(
        self, request: pb.ImportWrappedKeyMaterialRequest, call: Call
    ) -> pb.ImportWrappedKeyMaterialResponse:
        """ImportWrappedKeyMaterial."""
        use_case = self._use_cases.import_wrapped_key_material
        with self._meter.measure() as measured:
            kms = self._open(request.request_id, request.instance, call)
            reference = self._reference(request.key_id, kms, call)
            wrapped = requests.wrapped_key_material(request.wrapped_key_material)
            token = requests.import_token(request.import_token)
            algorithm = use_case.algorithm_of(token)
            if algorithm is not None:
                measured.wrapping_algorithm = call.noted.wrapping_algorithm = algorithm.kms_name
            self._check(call, kms, reference, *((algorithm,) if algorithm else WRAPPING_ALGORITHMS.values()))
            if request.validate_only:
                measured.outcome, call.noted.validate_only = "validated", True
                key = use_case.validate(
                    kms, reference, wrapped_key_material=wrapped, import_token=token, deadline=call.deadline
                )
                return pb.ImportWrappedKeyMaterialResponse(key=responses.external_key(kms, key))
            delivered = use_case.run(
                kms, reference, wrapped_key_material=wrapped, import_token=token, deadline=call.deadline
            )
            call.noted.kms_request_id = delivered.sent.kms_request_id
            return pb.ImportWrappedKeyMaterialResponse(
                key=responses.external_key(kms, delivered.key),
                import_time=responses.timestamp(delivered.sent.accepted_at),
                kms_request_id=delivered.sent.kms_request_id,
            )

    def describe_key(self, request: pb.DescribeKeyRequest, call: Call) -> pb.DescribeKeyResponse:
        """DescribeKey."""
        kms = self._instance(request.instance, call)
        reference = self._reference(request.key_id, kms, call, alias_allowed=True)
        self._check(call, kms, reference)
        key = self._use_cases.manage_keys.describe(kms, reference, deadline=call.deadline)
        return pb.DescribeKeyResponse(key=responses.external_key(kms, key))

    def schedule_key_deletion(
        self, request: pb.ScheduleKeyDeletionRequest, call: Call
    ) -> pb.ScheduleKeyDeletionResponse:
        """ScheduleKeyDeletion."""
        kms = self._open(request.request_id, request.instance, call)
        reference = self._reference(request.key_id, kms, call)
        window = requests.pending_window(request.pending_window)
        self._check(call, kms, reference)
        key, reply = self._use_cases.manage_keys.schedule_deletion(
            kms, reference, pending_window=window, deadline=call.deadline
        )
        call.noted.kms_request_id = reply.request_id
        return pb.ScheduleKeyDeletionResponse(key=responses.external_key(kms, key), kms_request_id=reply.request_id)

    def cancel_key_deletion(self, request: pb.CancelKeyDeletionRequest, call: Call) -> pb.CancelKeyDeletionResponse:
        """CancelKeyDeletion."""
        kms = self._open(request.request_id, request.instance, call)
        reference = self._reference(request.key_id, kms, call)
        self._check(call, kms, reference)
        key, reply = self._use_cases.manage_keys.cancel_deletion(kms, reference, deadline=call.deadline)
        call.noted.kms_request_id = reply.request_id
        return pb.CancelKeyDeletionResponse(key=responses.external_key(kms, key), kms_request_id=reply.request_id)

    def _validate_import(
        self,
        kms: Kms,
        target: KeyReference | NewKey,
        algorithm: WrappingAlgorithm,
        measured: Measured,
        call: Call,
    ) -> pb.ImportExternalKeyResponse:
        measured.outcome, call.noted.validate_only = "validated", True
        use_case = self._use_cases.import_external_key
        if isinstance(target, NewKey):
            use_case.validate_new(kms, target, deadline=call.deadline)
            key = responses.key_to_be(kms, target)
        else:
            key = responses.external_key(kms, use_case.validate_existing(kms, target, deadline=call.deadline))
        return pb.ImportExternalKeyResponse(key=key, wrapping_algorithm=responses.wrapping_algorithm(algorithm))

    def _check(self, call: Call, kms: Kms, target: KeyReference | NewKey, *algorithms: WrappingAlgorithm) -> None:
        """Asks the policy about the whole call, now that it is known what it wants."""
        if self._access is None:
            return
        access = Access(
            caller=call.noted.caller,
            rpc=rpc_name(call.method),
            instance=kms.name,
            key_id=target.key_id if isinstance(target, KeyReference) else None,
            new_key=target if isinstance(target, NewKey) else None,
            wrapping_algorithms=frozenset(algorithms),
        )
        call.noted.rule = self._access.check(access).name

    def _open(self, request_id: str, instance: str, call: Call) -> Kms:
        call.noted.request_id = requests.request_id(request_id)
        return self._instance(instance, call)

    def _instance(self, name: str, call: Call) -> Kms:
        kms = self._instances.get(name or self._default_instance)
        if kms is None:
            raise InvalidField(
                "instance", "no KMS instance of this name is configured; leave it empty for the default."
            )
        call.noted.instance = kms.name
        return kms

    def _reference(self, key_id: str, kms: Kms, call: Call, *, alias_allowed: bool = False) -> KeyReference:
        reference = requests.key_reference(key_id, region=kms.region, alias_allowed=alias_allowed)
        call.noted.key_id = reference.key_id
        return reference

    def _target(self, request: pb.ImportExternalKeyRequest, kms: Kms, call: Call) -> KeyReference | NewKey:
        match request.WhichOneof("target"):
            case "key_id":
                return self._reference(request.key_id, kms, call)
            case "new_key":
                return requests.new_key(request.new_key)
        raise InvalidField("target", "set key_id for an existing CMK or new_key for one to create.")

    def _algorithm(self, value: int, call: Call) -> WrappingAlgorithm:
        algorithm = requests.wrapping_algorithm(value)
        call.noted.wrapping_algorithm = algorithm.kms_name
        if algorithm is RSAES_PKCS1_V1_5 and self._forbid_pkcs1_v1_5:
            raise BrokerError(Reason.WRAPPING_ALGORITHM_FORBIDDEN, "The operator forbids RSAES_PKCS1_V1_5.")
        return algorithm


@contextmanager
def _created_key_named(progress: Progress, call: Call) -> Iterator[None]:
    """Names a CMK that was created in the log and in the error, whatever failed afterwards."""
    try:
        yield
    except BrokerError as error:
        if progress.created_key_id:
            error.metadata["created_key_id"] = progress.created_key_id
            error.message += f" The CMK {progress.created_key_id} was created: go on with it, or delete it."
        raise
    finally:
        call.noted.created_key_id = progress.created_key_id

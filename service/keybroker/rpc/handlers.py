"""The RPCs as blocking functions: check the request, run the use case, build the response."""

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
from keybroker.usecases.answers import REPLAYED, Answer
from keybroker.usecases.asked import Asked
from keybroker.usecases.create_external_key import CreateExternalKey
from keybroker.usecases.get_import import GetImport
from keybroker.usecases.hand_out_import_parameters import HandOutImportParameters
from keybroker.usecases.import_external_key import ImportExternalKey
from keybroker.usecases.import_wrapped_key_material import Given, ImportWrappedKeyMaterial
from keybroker.usecases.manage_keys import ManageKeys
from keybroker.usecases.orphans import Orphans
from keybroker.usecases.progress import Progress
from keymaterial.v1 import key_broker_service_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class UseCases:
    """What the handlers call."""

    import_external_key: ImportExternalKey
    import_wrapped_key_material: ImportWrappedKeyMaterial
    hand_out_import_parameters: HandOutImportParameters
    create_external_key: CreateExternalKey
    manage_keys: ManageKeys
    get_import: GetImport
    orphans: Orphans


class Handlers:
    """One method an RPC. Each raises BrokerError, and notes in the Call what may be logged."""

    def __init__(  # noqa: PLR0913  # what the RPCs need
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
            answer = self._use_cases.import_external_key.run(
                kms,
                _asked(call),
                target,
                algorithm,
                allow_second_key=request.allow_second_key,
                progress=measured.progress,
                deadline=call.deadline,
            )
            _note(answer, call, measured)
            return responses.imported(kms, answer.attempt, replayed=answer.replayed)

    def create_external_key(self, request: pb.CreateExternalKeyRequest, call: Call) -> pb.CreateExternalKeyResponse:
        """CreateExternalKey."""
        progress = Progress()
        with _created_key_named(progress, call):
            kms = self._open(request.request_id, request.instance, call)
            new_key = requests.new_key(request.new_key)
            self._check(call, kms, new_key)
            answer = self._use_cases.create_external_key.run(
                kms,
                _asked(call),
                new_key,
                allow_second_key=request.allow_second_key,
                progress=progress,
                deadline=call.deadline,
            )
        _note(answer, call, None)
        key = answer.attempt.key
        return pb.CreateExternalKeyResponse(
            key=responses.external_key(kms, key) if key else None,
            kms_request_id=answer.attempt.kms_request_id,
            replayed=answer.replayed,
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
            given = Given(wrapped, token)
            if request.validate_only:
                measured.outcome, call.noted.validate_only = "validated", True
                key = use_case.validate(kms, reference, given, deadline=call.deadline)
                return pb.ImportWrappedKeyMaterialResponse(key=responses.external_key(kms, key))
            answer = use_case.run(kms, _asked(call), reference, given, deadline=call.deadline)
            _note(answer, call, measured)
            return responses.imported_wrapped(kms, answer.attempt, replayed=answer.replayed)

    def get_import(self, request: pb.GetImportRequest, call: Call) -> pb.GetImportResponse:
        """GetImport."""
        call.noted.request_id = requests.request_id(request.request_id)
        self._check_call(call, Access(caller=call.noted.caller, rpc=rpc_name(call.method)))
        return responses.recorded(self._use_cases.get_import.run(_asked(call)))

    def list_orphaned_keys(self, request: pb.ListOrphanedKeysRequest, call: Call) -> pb.ListOrphanedKeysResponse:
        """ListOrphanedKeys."""
        kms = self._instance(request.instance, call)
        page = requests.page(request.page_token)
        self._check_call(call, Access(caller=call.noted.caller, rpc=rpc_name(call.method), instance=kms.name))
        orphans, more = self._use_cases.orphans.page(kms, page, deadline=call.deadline)
        return pb.ListOrphanedKeysResponse(
            keys=[responses.orphaned_key(kms, orphan) for orphan in orphans],
            next_page_token=str(page + 1) if more else "",
        )

    def delete_orphaned_key(self, request: pb.DeleteOrphanedKeyRequest, call: Call) -> pb.DeleteOrphanedKeyResponse:
        """DeleteOrphanedKey."""
        kms = self._open(request.request_id, request.instance, call)
        reference = self._reference(request.key_id, kms, call)
        window = requests.pending_window(request.pending_window)
        self._check(call, kms, reference)
        key, reply = self._use_cases.orphans.delete(
            kms, _asked(call), reference, pending_window=window, deadline=call.deadline
        )
        call.noted.kms_request_id = reply.request_id
        return pb.DeleteOrphanedKeyResponse(key=responses.external_key(kms, key), kms_request_id=reply.request_id)

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
            kms, _asked(call), reference, pending_window=window, deadline=call.deadline
        )
        call.noted.kms_request_id = reply.request_id
        return pb.ScheduleKeyDeletionResponse(key=responses.external_key(kms, key), kms_request_id=reply.request_id)

    def cancel_key_deletion(self, request: pb.CancelKeyDeletionRequest, call: Call) -> pb.CancelKeyDeletionResponse:
        """CancelKeyDeletion."""
        kms = self._open(request.request_id, request.instance, call)
        reference = self._reference(request.key_id, kms, call)
        self._check(call, kms, reference)
        key, reply = self._use_cases.manage_keys.cancel_deletion(kms, _asked(call), reference, deadline=call.deadline)
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
        """Asks the policy about the whole call, now that it is known what it wants; of a replay too."""
        access = Access(
            caller=call.noted.caller,
            rpc=rpc_name(call.method),
            instance=kms.name,
            key_id=target.key_id if isinstance(target, KeyReference) else None,
            new_key=target if isinstance(target, NewKey) else None,
            wrapping_algorithms=frozenset(algorithms),
        )
        self._check_call(call, access)

    def _check_call(self, call: Call, access: Access) -> None:
        if self._access is not None:
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


def _asked(call: Call) -> Asked:
    return Asked(call.noted.caller, call.noted.request_id)


def _note(answer: Answer, call: Call, measured: Measured | None) -> None:
    """What the log and the metrics say of a call that ended well."""
    row = answer.attempt
    call.noted.replayed = answer.replayed
    call.noted.kms_request_id = row.kms_request_id
    if measured is not None and answer.replayed:
        measured.outcome = REPLAYED
    if row.cmk is not None:
        call.noted.key_id = row.cmk.key_id
        call.noted.parameters = row.parameters
        call.noted.evidence = row.evidence.value if row.evidence else ""


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

"""The main job: a CMK gets material that was generated, wrapped and wiped here.

Steps of the seed: 1 create the CMK (or read an existing one), 2 obtain the import parameters, 3 generate and wrap,
4 import, then see that it is Enabled. Origin, spec, state and a vetted public key are at hand before a byte is made.
"""

from dataclasses import dataclass

from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import BrokerError, KmsError, Reason
from keybroker.domain.external_key import ExternalKey, KeyReference, NewKey
from keybroker.domain.import_parameters import ImportParameters
from keybroker.domain.key_check_value import KeyCheckValue
from keybroker.domain.key_material import KeyMaterial, generate
from keybroker.domain.wrapping import WrappingAlgorithm
from keybroker.ports import EntropySource, Kms
from keybroker.usecases.claims import Claim, ImportClaims
from keybroker.usecases.deliver import Deliver, Delivered, Sent, is_token_refusal
from keybroker.usecases.keys import Keys
from keybroker.usecases.manage_keys import ManageKeys
from keybroker.usecases.obtain_import_parameters import (
    ImportParametersCache,
    ObtainImportParameters,
    ParametersSource,
)
from keybroker.usecases.progress import Progress


@dataclass(frozen=True, slots=True)
class Imported:
    """The CMK is Enabled with the material that this import generated: evidence ACCEPTED."""

    delivered: Delivered
    check_value: KeyCheckValue
    parameters: ParametersSource


class ImportExternalKey:
    """Imports material that it generates, into an existing CMK or a new one."""

    def __init__(  # noqa: PLR0913  # the collaborators of the main job
        self,
        *,
        keys: Keys,
        manage: ManageKeys,
        obtain: ObtainImportParameters,
        cache: ImportParametersCache,
        claims: ImportClaims,
        deliver: Deliver,
        entropy: EntropySource,
    ) -> None:
        self._keys = keys
        self._manage = manage
        self._obtain = obtain
        self._cache = cache
        self._claims = claims
        self._deliver = deliver
        self._entropy = entropy

    def validate_existing(self, kms: Kms, reference: KeyReference, *, deadline: Deadline) -> ExternalKey:
        """Every check of `run` for an existing CMK, and no change. Reasons: as `run`, as far as they can be known."""
        key = self._existing(kms, reference, deadline)
        self._claims.check_free(key.name)
        return key

    def validate_new(self, kms: Kms, new_key: NewKey, *, deadline: Deadline) -> None:
        """Every check of `run` for a CMK to create, and no change. Reasons: as above."""
        self._manage.check_alias_free(kms, new_key, deadline=deadline)

    def run(
        self,
        kms: Kms,
        target: KeyReference | NewKey,
        algorithm: WrappingAlgorithm,
        *,
        progress: Progress,
        deadline: Deadline,
    ) -> Imported:
        """Does the whole import and returns when the CMK is Enabled.

        Reasons: see ImportExternalKey in key_broker_service.proto.
        """
        if isinstance(target, NewKey):
            key, _ = self._manage.create(kms, target, progress=progress, deadline=deadline)
        else:
            key = self._existing(kms, target, deadline)
        spec = self._obtain.check(kms, key)
        with self._claims.hold(key.name, deadline=deadline) as claim:
            parameters, progress.parameters = self._obtain.obtain(kms, key.name, algorithm, deadline=deadline)
            with generate(spec.length_bytes, fill=self._entropy.fill) as material:
                check_value = material.check_value()
                sent = self._send_with_one_refresh(kms, material, parameters, claim, deadline)
            delivered = self._deliver.confirm(kms, key.name, sent, deadline=deadline)
            claim.settle()
        self._cache.drop_all(key.name)
        return Imported(delivered, check_value, progress.parameters)

    def _existing(self, kms: Kms, reference: KeyReference, deadline: Deadline) -> ExternalKey:
        key = self._keys.describe(kms, reference, deadline=deadline)
        self._obtain.check(kms, key)
        return key

    def _send_with_one_refresh(
        self, kms: Kms, material: KeyMaterial, parameters: ImportParameters, claim: Claim, deadline: Deadline
    ) -> Sent:
        """Sends the material; if the KMS refuses the token, once more, the same material under a new pair."""
        try:
            return self._send(kms, material, parameters, claim, deadline)
        except KmsError as refusal:
            if not is_token_refusal(refusal):
                raise self._explained(kms, parameters, refusal, deadline) from refusal
        fresh = self._obtain.replace(kms, parameters, deadline=deadline)
        try:
            return self._send(kms, material, fresh, claim, deadline)
        except KmsError as refusal:
            raise self._explained(kms, fresh, refusal, deadline) from refusal

    def _send(
        self, kms: Kms, material: KeyMaterial, parameters: ImportParameters, claim: Claim, deadline: Deadline
    ) -> Sent:
        wrapped = material.wrap(parameters)
        with claim.sending(token_expires_at=parameters.expires_at):
            return self._deliver.send(
                kms,
                parameters.cmk,
                wrapped_key_material=wrapped,
                import_token=parameters.import_token,
                deadline=deadline,
            )

    def _explained(self, kms: Kms, parameters: ImportParameters, refusal: KmsError, deadline: Deadline) -> BrokerError:
        if is_token_refusal(refusal):
            self._cache.drop(parameters)
        error = self._deliver.explain(kms, parameters.cmk, refusal, deadline=deadline)
        if error.reason is not Reason.WRAPPED_KEY_MATERIAL_REFUSED:
            return error
        self._cache.drop(parameters)
        return BrokerError(
            Reason.GENERATED_MATERIAL_REFUSED,
            "The KMS refused material that the broker generated and wrapped; the CMK is still without material.",
            metadata=error.metadata | {"key_id": parameters.cmk.key_id},
        )

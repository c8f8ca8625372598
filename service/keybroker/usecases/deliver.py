"""Sends wrapped key material and says the truth about what came of it.

Three ends: the KMS accepted this ciphertext and the CMK is Enabled; the KMS provably took nothing; or nobody knows yet,
which is IMPORT_UNRESOLVED and never a failure. Nothing is sent twice from here.
"""

from dataclasses import dataclass
from datetime import datetime

from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import BrokerError, KmsError, Reason
from keybroker.domain.external_key import CmkName, ExternalKey, KeyReference, KeyState, check_importable
from keybroker.ports import Clock, Kms
from keybroker.usecases.keys import Keys

_TIME_TO_SEND_SECONDS = 0.25
_TIME_TO_READ_SECONDS = 0.15
_FIRST_WAIT_SECONDS = 0.1
_LONGEST_WAIT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Sent:
    """The KMS accepted the material at `accepted_at` (the broker's clock) with its answer `kms_request_id`."""

    accepted_at: datetime
    kms_request_id: str


@dataclass(frozen=True, slots=True)
class Delivered:
    """What was sent is in the CMK, and `key` is Enabled."""

    key: ExternalKey
    sent: Sent


class Deliver:
    """ImportKeyMaterial and what follows it."""

    def __init__(self, *, keys: Keys, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock

    def send(
        self, kms: Kms, cmk: CmkName, *, wrapped_key_material: bytes, import_token: str, deadline: Deadline
    ) -> Sent:
        """One ImportKeyMaterial.

        Raises KmsError only when the KMS provably took nothing. Reasons: IMPORT_UNRESOLVED, DEADLINE_TOO_SHORT, what
        the KMS refused it with.
        """
        deadline.require(_TIME_TO_SEND_SECONDS, step="sending the key material")
        try:
            reply = kms.import_key_material(
                cmk, wrapped_key_material=wrapped_key_material, import_token=import_token, deadline=deadline
            )
        except KmsError as error:
            if error.committed_nothing:
                raise
            raise unresolved(cmk, "no answer settled whether the KMS took it", error.metadata) from error
        except BrokerError:
            raise  # the deadline: nothing was sent
        except Exception as error:
            raise unresolved(cmk, "the broker failed while it was sent", {}) from error
        self._keys.forget(cmk)
        return Sent(self._clock.now(), reply.request_id)

    def confirm(self, kms: Kms, cmk: CmkName, sent: Sent, *, deadline: Deadline) -> Delivered:
        """Reads the CMK until it is Enabled, inside the deadline. A read that fails is read again.

        Reasons: IMPORT_UNRESOLVED.
        """
        accepted = {"kms_request_id": sent.kms_request_id}
        wait = _FIRST_WAIT_SECONDS
        while True:
            key = self._try_describe(kms, cmk, deadline)
            if key is not None and key.state is KeyState.ENABLED:
                return Delivered(key, sent)
            if key is not None and key.state is not KeyState.PENDING_IMPORT:
                raise unresolved(cmk, f"the KMS accepted it, and the CMK is now {key.state.value}", accepted)
            spare = deadline.remaining_seconds() - _TIME_TO_READ_SECONDS
            if spare <= 0:
                raise unresolved(cmk, "the KMS accepted it, and the CMK was not seen Enabled in time", accepted)
            self._clock.sleep(min(wait, spare))
            wait = min(2 * wait, _LONGEST_WAIT_SECONDS)

    def explain(self, kms: Kms, cmk: CmkName, refusal: KmsError, *, deadline: Deadline) -> BrokerError:
        """The reason to tell after a refusal: the CMK's state if that is in the way, otherwise the refusal.

        Costs one read, and only where the refusal can be about the CMK's state.
        """
        if refusal.reason not in {Reason.WRAPPED_KEY_MATERIAL_REFUSED, Reason.KEY_STATE_CONFLICT}:
            return refusal
        key = self._try_describe(kms, cmk, deadline)
        if key is None:
            return refusal
        try:
            check_importable(key, dkms_instance_id=kms.dkms_instance_id)
        except BrokerError as obstacle:
            obstacle.metadata.update(refusal.metadata)
            return obstacle
        return refusal

    def _try_describe(self, kms: Kms, cmk: CmkName, deadline: Deadline) -> ExternalKey | None:
        try:
            return self._keys.describe(kms, KeyReference(cmk.key_id), deadline=deadline)
        except BrokerError:
            return None


def is_token_refusal(error: KmsError) -> bool:
    """Whether the KMS refused the import token, and not the material."""
    return error.reason in {Reason.IMPORT_TOKEN_INVALID, Reason.IMPORT_TOKEN_EXPIRED}


def unresolved(cmk: CmkName, why: str, metadata: dict[str, str]) -> BrokerError:
    """The answer when key material was sent and it is not known what came of it."""
    return BrokerError(
        Reason.IMPORT_UNRESOLVED,
        f"The key material was sent, and {why}. It may be bound to the CMK, now or later.",
        metadata=metadata | {"key_id": cmk.key_id},
    )

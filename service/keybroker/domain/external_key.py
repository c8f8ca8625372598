"""The CMK: how it is named, what the KMS says of it, and when it can take key material.

Source: contract 1.1, 1.2 and 6; the seed's notes on external CMKs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from keybroker.domain.errors import BrokerError, Reason
from keybroker.domain.key_spec import KeySpec

ORIGIN_EXTERNAL = "EXTERNAL"


class KeyState(StrEnum):
    """States of a CMK, by the KMS's words. UNKNOWN is any other."""

    PENDING_IMPORT = "PendingImport"
    ENABLED = "Enabled"
    DISABLED = "Disabled"
    PENDING_DELETION = "PendingDeletion"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class CmkName:
    """Names a CMK for ever: cache, claims and counts hang on it, whatever the caller called the key."""

    account: str
    region: str
    key_id: str


@dataclass(frozen=True, slots=True)
class KeyReference:
    """How a caller named a CMK: a key id, or an alias where one is allowed. `account` is set if an ARN named it."""

    key_id: str
    account: str = ""


@dataclass(frozen=True, slots=True)
class ExternalKey:
    """A CMK as the KMS described it. `spec` is None for one that takes no AES material from outside."""

    name: CmkName
    arn: str
    dkms_instance_id: str
    spec: KeySpec | None
    state: KeyState
    origin: str
    created_at: datetime | None = None
    delete_at: datetime | None = None
    as_of: datetime | None = field(default=None, compare=False)  # the Date of the reply that says so


@dataclass(frozen=True, slots=True)
class NewKey:
    """A CMK to create with Origin EXTERNAL. Limits: 1.1 and 1.8 of the contract, checked where a request comes in."""

    spec: KeySpec
    description: str = ""
    alias: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


def check_external(key: ExternalKey, *, dkms_instance_id: str) -> None:
    """Raises unless `key` is an external CMK of this Dedicated KMS instance.

    Reasons: KEY_NOT_ON_INSTANCE, KEY_ORIGIN_NOT_EXTERNAL.
    """
    if key.dkms_instance_id != dkms_instance_id:
        raise _unfit(key, Reason.KEY_NOT_ON_INSTANCE, "The CMK is not on the Dedicated KMS instance configured here.")
    if key.origin != ORIGIN_EXTERNAL:
        raise _unfit(
            key, Reason.KEY_ORIGIN_NOT_EXTERNAL, "The CMK's key material is not imported: Origin must be EXTERNAL."
        )


def check_importable(key: ExternalKey, *, dkms_instance_id: str) -> KeySpec:
    """Returns the spec of a CMK that can take key material now, otherwise raises.

    Reasons: those of check_external, KEY_SPEC_UNSUPPORTED, KEY_PENDING_DELETION, KEY_DISABLED,
    KEY_MATERIAL_ALREADY_BOUND, KEY_STATE_CONFLICT.
    """
    check_external(key, dkms_instance_id=dkms_instance_id)
    if key.spec is None:
        raise _unfit(key, Reason.KEY_SPEC_UNSUPPORTED, "The CMK's spec is not AES with 128, 192 or 256 bits.")
    if key.state is not KeyState.PENDING_IMPORT:
        reason, message = _UNFIT_STATES[key.state]
        raise _unfit(key, reason, message)
    return key.spec


_UNFIT_STATES: Mapping[KeyState, tuple[Reason, str]] = {
    KeyState.ENABLED: (
        Reason.KEY_MATERIAL_ALREADY_BOUND,
        "The CMK is Enabled: it has key material already.",
    ),
    KeyState.DISABLED: (Reason.KEY_DISABLED, "The CMK is Disabled."),
    KeyState.PENDING_DELETION: (Reason.KEY_PENDING_DELETION, "The CMK is scheduled for deletion."),
    KeyState.UNKNOWN: (Reason.KEY_STATE_CONFLICT, "The CMK is in a state that the broker does not know."),
}


def _unfit(key: ExternalKey, reason: Reason, message: str) -> BrokerError:
    return BrokerError(reason, message, metadata={"key_id": key.name.key_id})

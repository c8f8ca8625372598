"""CreateKey. Source: contract section 1.1, and section 2 for CMKs of an instance."""

from kms_emulator.errors import KmsError, invalid_parameter
from kms_emulator.keys import (
    ALIYUN_KMS,
    DEFAULT_KEY_SPECS,
    EXTERNAL,
    KEY_USAGE,
    MATERIAL_LENGTH_BYTES,
    ORIGINS,
    Key,
    KeyState,
    Tag,
)
from kms_emulator.kms import Kms, new_key_id, new_material
from kms_emulator.operation import Call, Operation, Parameter
from kms_emulator.operations.metadata import key_metadata
from kms_emulator.operations.tags import MAX_TAGS_PER_KEY, tags_from_json
from kms_emulator.standing import Standing

MAX_DESCRIPTION_LENGTH = 8192
MAX_POLICY_BYTES = 32_768

_MECHANISMS = ("HsmInternal", "HsmEncryptedDatabase")


def _create_key(kms: Kms, call: Call) -> dict[str, object]:
    now = kms.clock.now()
    origin = call.choice("Origin", ORIGINS, ALIYUN_KMS)
    instance_id = _instance_id(kms, call)
    key = Key(
        key_id=new_key_id(dedicated=bool(instance_id)),
        key_spec=call.choice("KeySpec", _key_specs(instance_id), "Aliyun_AES_256"),
        origin=origin,
        dkms_instance_id=instance_id,
        protection_level=_protection_level(call, instance_id),
        created_at=now,
        state=KeyState.PENDING_IMPORT,
        description=_description(call),
        tags={name: Tag(value, now) for name, value in tags_from_json(call, MAX_TAGS_PER_KEY).items()},
    )
    _check_unused_parameters(call, instance_id)
    if origin == ALIYUN_KMS:
        key.bind(new_material(key.key_spec))
    kms.add_key(key)
    kms.created_key_ids.append(key.key_id)
    call.key_id = key.key_id
    return {"KeyMetadata": key_metadata(kms, key)}


def _instance_id(kms: Kms, call: Call) -> str:
    instance_id = call.text("DKMSInstanceId")
    if instance_id and instance_id not in kms.settings.dkms_instance_ids:
        raise KmsError("Forbidden.ResourceNotFound")
    return instance_id


def _key_specs(instance_id: str) -> tuple[str, ...]:
    return tuple(MATERIAL_LENGTH_BYTES) if instance_id else DEFAULT_KEY_SPECS


def _protection_level(call: Call, instance_id: str) -> str:
    """HSM in an instance, whatever was asked for. Source: contract section 1.1."""
    asked = call.choice("ProtectionLevel", ("SOFTWARE", "HSM"), "SOFTWARE")
    return "HSM" if instance_id else asked


def _description(call: Call) -> str:
    description = call.text("Description")
    if len(description) > MAX_DESCRIPTION_LENGTH:
        raise invalid_parameter("Description")
    return description


def _check_unused_parameters(call: Call, instance_id: str) -> None:
    """Parameters that are checked and then have no effect here."""
    call.choice("KeyUsage", (KEY_USAGE,), KEY_USAGE)
    call.choice("KeyStorageMechanism", _MECHANISMS, _MECHANISMS[0])
    policy = call.text("Policy")
    if policy and (not instance_id or len(policy.encode()) > MAX_POLICY_BYTES):
        raise invalid_parameter("Policy")
    call.json_value("Policy")
    if call.flag("EnableAutomaticRotation"):
        external = call.text("Origin") == EXTERNAL
        raise KmsError("Unsupported.Origin" if external else "UnsupportedOperation")


CREATE_KEY = Operation(
    name="CreateKey",
    handler=_create_key,
    quota="create",
    source="1.1",
    parameters=(
        Parameter("Origin", note="Aliyun_KMS (default) or EXTERNAL"),
        Parameter(
            "KeySpec",
            note="Aliyun_AES_256 (default), _192 and _128 in an instance; Aliyun_SM4 and asymmetric specs are refused",
        ),
        Parameter("KeyUsage", note="ENCRYPT/DECRYPT only"),
        Parameter("DKMSInstanceId", note="one of the configured instances; the answer to another id is inferred"),
        Parameter("ProtectionLevel", note="SOFTWARE (default) or HSM; ignored in an instance"),
        Parameter("KeyStorageMechanism", note="checked, no effect"),
        Parameter("Description", note=f"at most {MAX_DESCRIPTION_LENGTH} characters"),
        Parameter("Tags", note=f"JSON, at most {MAX_TAGS_PER_KEY} tags of at most 128 characters"),
        Parameter("Policy", note=f"JSON of at most {MAX_POLICY_BYTES} bytes, instance keys only; never evaluated"),
        Parameter("EnableAutomaticRotation", note="true is refused: no rotation", standing=Standing.NOT_IMPLEMENTED),
        Parameter("RotationInterval", note="ignored", standing=Standing.NOT_IMPLEMENTED),
    ),
    note="Any number of CMKs outside an instance, where the service allows one.",
)

"""KeyMetadata as CreateKey and DescribeKey give it. Source: contract sections 1.1 and 1.2."""

from kms_emulator.clock import utc_text
from kms_emulator.keys import KEY_USAGE, Key
from kms_emulator.kms import Kms


def key_metadata(kms: Kms, key: Key) -> dict[str, object]:
    """The fields common to both replies; absent instants are empty text, not null."""
    return {
        "KeyId": key.key_id,
        "Arn": f"{kms.arn_prefix}key/{key.key_id}",
        "Creator": kms.settings.account_id,
        "CreationDate": utc_text(key.created_at),
        "Description": key.description,
        "KeyState": str(key.shown_state(kms.clock.now())),
        "KeyUsage": KEY_USAGE,
        "KeySpec": key.key_spec,
        "Origin": key.origin,
        "ProtectionLevel": key.protection_level,
        "DKMSInstanceId": key.dkms_instance_id,
        "PrimaryKeyVersion": key.version_id,
        "AutomaticRotation": "Disabled",
        "LastRotationDate": utc_text(key.created_at),
        "DeleteDate": utc_text(key.delete_at),
        "MaterialExpireTime": utc_text(key.material_expires_at),
    }

"""GetParametersForImport, ImportKeyMaterial and DeleteKeyMaterial. Source: contract sections 1.3 to 1.5 and 6."""

import base64
import binascii
import hmac
from datetime import UTC, datetime, timedelta

from kms_emulator.clock import utc_text
from kms_emulator.errors import KmsError, invalid_parameter
from kms_emulator.import_pairs import ImportPair
from kms_emulator.keys import MATERIAL_LENGTH_BYTES, Key, KeyState
from kms_emulator.kms import Kms
from kms_emulator.operation import Call, Commit, KeyReference, Operation, Parameter
from kms_emulator.standing import Standing
from kms_emulator.wrapping import (
    DEDICATED_ALGORITHMS,
    PADDINGS,
    WRAPPING_KEY_SPEC,
    faulty_public_key_der,
    public_key_der,
    unwrap,
)

_LATEST_UNIX = int(datetime.max.replace(tzinfo=UTC, microsecond=0).timestamp())


def _get_parameters_for_import(kms: Kms, call: Call) -> dict[str, object]:
    call.choice("WrappingKeySpec", (WRAPPING_KEY_SPEC,))
    algorithm = call.choice("WrappingAlgorithm", tuple(PADDINGS))
    with kms.target(call) as key:
        if key.dedicated and algorithm not in DEDICATED_ALGORITHMS:
            raise invalid_parameter("WrappingAlgorithm")
    pair = issue_pair(kms, key, algorithm)
    fault = kms.faults.strike_public_key(call.operation.name)
    published = faulty_public_key_der(fault.action) if fault else public_key_der(pair.private_key.public_key())
    return {
        "KeyId": key.key_id,
        "PublicKey": base64.b64encode(published).decode(),
        "ImportToken": pair.import_token,
        "TokenExpireTime": utc_text(pair.expires_at),
    }


def issue_pair(kms: Kms, key: Key, wrapping_algorithm: str) -> ImportPair:
    """A pair for this CMK, which is the newest from now on; the slow key generation happens outside the lock."""
    private_key = kms.pair_source.next_pair()
    with kms.keyring.lock:
        pair = kms.import_pairs.issue(key.key_id, private_key, wrapping_algorithm, kms.clock.now())
        key.newest_pair_id = pair.pair_id
    return pair


def _import_key_material(kms: Kms, call: Call) -> dict[str, object]:
    with kms.keyring.lock:
        return _checked_import(kms, call)()


def _checked_import(kms: Kms, call: Call) -> Commit:
    """The checks, in the order that the end of contract section 6 suggests, and the commit.

    What a commit that comes later asks again is the binding alone: the token was valid when it was checked.
    """
    with kms.target(call) as key:
        now = kms.clock.now()
        pair = kms.import_pairs.redeem(call.text("ImportToken"), key.key_id, now)
        if kms.readings.newest_token_only and pair.pair_id != key.newest_pair_id:
            raise KmsError("InvalidImportToken")
        material = _unwrapped(pair, call.text("EncryptedKeyMaterial"))
        if len(material) != MATERIAL_LENGTH_BYTES[key.key_spec]:
            raise KmsError("InvalidKeyMaterial")
        _check_binding(kms, key, material)
        expires_at = _expiry(call, now)

    def commit() -> dict[str, object]:
        with kms.keyring.lock:
            _check_binding(kms, key, material)
            bind_material(kms, key, material)
            key.material_expires_at = expires_at
            key.successful_imports += 1
        return {}

    return commit


def _unwrapped(pair: ImportPair, wrapped_key_material_b64: str) -> bytes:
    try:
        wrapped_key_material = base64.b64decode(wrapped_key_material_b64, validate=True)
        return unwrap(pair.private_key, pair.wrapping_algorithm, wrapped_key_material)
    except (binascii.Error, ValueError) as error:
        raise KmsError("InvalidKeyMaterial") from error


def _check_binding(kms: Kms, key: Key, material: bytes) -> None:
    """A CMK is bound to its first material for ever; whether that may come again is a reading."""
    if key.bound_material is None:
        return
    same = hmac.compare_digest(key.bound_material, material)
    if not same or not kms.readings.same_material_reimport:
        raise KmsError("InvalidKeyMaterial")


def _expiry(call: Call, now: datetime) -> datetime | None:
    """Absent or 0 is never; a time before now is refused."""
    expires_unix = call.integer("KeyMaterialExpireUnix", 0, high=_LATEST_UNIX)
    if expires_unix == 0:
        return None
    expires_at = datetime.fromtimestamp(expires_unix, UTC)
    if expires_at < now:
        raise invalid_parameter("KeyMaterialExpireUnix")
    return expires_at


def bind_material(kms: Kms, key: Key, material: bytes) -> None:
    """Bind, and let Enabled show as late as the readings say. The caller holds the keyring's lock."""
    if key.state is KeyState.PENDING_IMPORT:
        key.enabled_shown_at = kms.clock.now() + timedelta(seconds=kms.readings.enabled_lag_seconds)
        key.describes_before_enabled = kms.readings.enabled_lag_describes
    key.bind(material)


def _delete_key_material(kms: Kms, call: Call) -> dict[str, object]:
    with kms.target(call) as key:
        if key.dedicated:
            raise KmsError("Rejected.UnsupportedOperation")
        key.lose_material()
    return {}


IMPORT_OPERATIONS = (
    Operation(
        name="GetParametersForImport",
        handler=_get_parameters_for_import,
        quota="read",
        source="1.3",
        key_reference=KeyReference.ID_ONLY,
        external_only=True,
        parameters=(
            Parameter("KeyId", required=True),
            Parameter("WrappingKeySpec", required=True, note=f"{WRAPPING_KEY_SPEC}; EC_SM2 is refused"),
            Parameter(
                "WrappingAlgorithm",
                required=True,
                note=f"{', '.join(PADDINGS)}; in an instance {' and '.join(DEDICATED_ALGORITHMS)} only",
            ),
        ),
        note="A fresh RSA-2048 pair per call, unless the setting rsa_key_pool makes calls share pairs.",
    ),
    Operation(
        name="ImportKeyMaterial",
        handler=_import_key_material,
        check=_checked_import,
        quota="write",
        source="1.4",
        key_reference=KeyReference.ID_ONLY,
        external_only=True,
        parameters=(
            Parameter("KeyId", required=True),
            Parameter("EncryptedKeyMaterial", required=True, note="base64 of 256 bytes"),
            Parameter("ImportToken", required=True, note="opaque"),
            Parameter(
                "KeyMaterialExpireUnix",
                note="absent or 0 is never; accepted in an instance too, where the documentation is silent",
                standing=Standing.INFERRED,
            ),
        ),
        note="The order of checks is inferred (section 6). A Disabled CMK stays Disabled (inferred).",
    ),
    Operation(
        name="DeleteKeyMaterial",
        handler=_delete_key_material,
        quota="write",
        source="1.5",
        key_reference=KeyReference.ID_ONLY,
        external_only=True,
        parameters=(Parameter("KeyId", required=True),),
        note="Refused in an instance; the code of that refusal is inferred.",
    ),
)

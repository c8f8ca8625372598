"""Encrypt and Decrypt. Source: contract section 1.10.

A ciphertext blob is base64 of: key version id (36 ASCII bytes), IV (12 bytes), AES-GCM ciphertext and tag (16 bytes).
"""

import base64
import binascii
import json
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kms_emulator.errors import KmsError, invalid_parameter
from kms_emulator.keys import Key
from kms_emulator.kms import Kms
from kms_emulator.operation import Call, KeyReference, Operation, Parameter
from kms_emulator.standing import Standing
from kms_emulator.state_rules import check_state

MAX_PLAINTEXT_BYTES = 6 * 1024
VERSION_ID_LENGTH = 36
IV_LENGTH_BYTES = 12
TAG_LENGTH_BYTES = 16

_CONTEXT = Parameter("EncryptionContext", note="JSON object of strings; associated data, independent of key order")
_DRY_RUN = Parameter("DryRun", note="true never performs anything", standing=Standing.INFERRED)


def _encrypt(kms: Kms, call: Call) -> dict[str, object]:
    plaintext = _decoded(call, "Plaintext")
    if len(plaintext) > MAX_PLAINTEXT_BYTES:
        raise invalid_parameter("Plaintext")
    associated_data = _associated_data(call)
    with kms.target(call) as key:
        cipher = AESGCM(_material(key))
    _end_dry_run(call)
    iv = secrets.token_bytes(IV_LENGTH_BYTES)
    blob = key.version_id.encode() + iv + cipher.encrypt(iv, plaintext, associated_data)
    return {
        "KeyId": key.key_id,
        "KeyVersionId": key.version_id,
        "CiphertextBlob": base64.b64encode(blob).decode(),
    }


def _decrypt(kms: Kms, call: Call) -> dict[str, object]:
    blob = _decoded(call, "CiphertextBlob")
    associated_data = _associated_data(call)
    if len(blob) < VERSION_ID_LENGTH + IV_LENGTH_BYTES + TAG_LENGTH_BYTES:
        raise invalid_parameter("CiphertextBlob")
    version_id = blob[:VERSION_ID_LENGTH].decode("ascii", errors="replace")
    iv, ciphertext = blob[VERSION_ID_LENGTH:][:IV_LENGTH_BYTES], blob[VERSION_ID_LENGTH + IV_LENGTH_BYTES :]
    with kms.keyring.lock:
        key = kms.keyring.find_version(version_id, kms.clock.now())
        call.key_id = key.key_id
        check_state(call.operation.name, key.state)
        cipher = AESGCM(_material(key))
    try:
        plaintext = cipher.decrypt(iv, ciphertext, associated_data)
    except InvalidTag as error:
        raise invalid_parameter("CiphertextBlob") from error
    _end_dry_run(call)
    return {
        "KeyId": key.key_id,
        "KeyVersionId": key.version_id,
        "Plaintext": base64.b64encode(plaintext).decode(),
    }


def _decoded(call: Call, name: str) -> bytes:
    try:
        return base64.b64decode(call.text(name), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid_parameter(name) from error


def _associated_data(call: Call) -> bytes | None:
    context = call.json_value("EncryptionContext")
    if context is None:
        return None
    if not isinstance(context, dict) or not all(isinstance(value, str) for value in context.values()):
        raise invalid_parameter("EncryptionContext")
    return json.dumps(context, sort_keys=True, separators=(",", ":")).encode()


def _material(key: Key) -> bytes:
    """The material; a CMK can be Enabled without any under the reading cancel_empty_key_state=Enabled."""
    if key.material is None:
        raise KmsError("Rejected.PendingImport")
    return key.material


def _end_dry_run(call: Call) -> None:
    if call.flag("DryRun"):
        raise KmsError("DryRunOperationError")


CRYPTOGRAPHY_OPERATIONS = (
    Operation(
        name="Encrypt",
        handler=_encrypt,
        quota="crypto",
        source="1.10",
        key_reference=KeyReference.ANY,
        parameters=(
            Parameter("KeyId", required=True),
            Parameter("Plaintext", required=True, note=f"base64 of at most {MAX_PLAINTEXT_BYTES} bytes"),
            _CONTEXT,
            _DRY_RUN,
        ),
        note="Works for CMKs of an instance too, as if Internet access to it was switched on.",
    ),
    Operation(
        name="Decrypt",
        handler=_decrypt,
        quota="crypto",
        source="1.10",
        parameters=(
            Parameter("CiphertextBlob", required=True),
            _CONTEXT,
            _DRY_RUN,
            Parameter("Recipient", note="ignored", standing=Standing.NOT_IMPLEMENTED),
        ),
    ),
)

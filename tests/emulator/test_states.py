"""Every cell of the state by operation table of contract section 6."""

import base64

import pytest

from kms_emulator import Emulator
from tests.emulator.builders import MATERIAL, OAEP, import_blob, tags_json, wrapped_b64
from tests.emulator.client import Answer, Client

OK = ""
DISABLED, DELETION, IMPORT = "Rejected.Disabled", "Rejected.PendingDeletion", "Rejected.PendingImport"
MODIFIED = "Rejected.StateModifiedFailed"
STATES = ("Enabled", "Disabled", "PendingDeletion", "PendingImport")

# fmt: off
TABLE = {
    #                          Enabled   Disabled  PendingDeletion PendingImport
    "Encrypt":                (OK,       DISABLED, DELETION,       IMPORT),
    "Decrypt":                (OK,       DISABLED, DELETION,       IMPORT),
    "DescribeKey":            (OK,       OK,       OK,             OK),
    "ListKeys":               (OK,       OK,       OK,             OK),
    "ListAliases":            (OK,       OK,       OK,             OK),
    "ListAliasesByKeyId":     (OK,       OK,       OK,             OK),
    "DeleteAlias":            (OK,       OK,       OK,             OK),
    "ListResourceTags":       (OK,       OK,       OK,             OK),
    "EnableKey":              (OK,       OK,       MODIFIED,       MODIFIED),
    "DisableKey":             (OK,       OK,       MODIFIED,       MODIFIED),
    "ScheduleKeyDeletion":    (OK,       OK,       MODIFIED,       OK),
    "CancelKeyDeletion":      (MODIFIED, MODIFIED, OK,             MODIFIED),
    "CreateAlias":            (OK,       OK,       MODIFIED,       OK),
    "UpdateAlias":            (OK,       OK,       DELETION,       OK),
    "TagResource":            (OK,       OK,       DELETION,       OK),
    "TagResources":           (OK,       OK,       DELETION,       OK),
    "GetParametersForImport": (OK,       OK,       OK,             OK),
    "ImportKeyMaterial":      (OK,       OK,       MODIFIED,       OK),
    "DeleteKeyMaterial":      (OK,       OK,       OK,             OK),
}
# fmt: on

CELLS = [(operation, state, code) for operation, row in TABLE.items() for state, code in zip(STATES, row, strict=True)]

AFTER = {
    "EnableKey": "Enabled",
    "DisableKey": "Disabled",
    "ScheduleKeyDeletion": "PendingDeletion",
    "CancelKeyDeletion": "Enabled",
}


def perform(client: Client, operation: str, key_id: str) -> Answer:
    emulator = client.emulator
    if operation == "ImportKeyMaterial":
        der, token = emulator.issue_parameters(key_id, OAEP)
        return import_blob(client, key_id, token, wrapped_b64(der, MATERIAL))
    key = {"KeyId": key_id}
    tag = {
        "RegionId": "cn-hangzhou",
        "ResourceType": "key",
        "ResourceId.1": key_id,
        "Tag.1.Key": "k",
        "Tag.1.Value": "v",
    }
    parameters: dict[str, dict[str, object]] = {
        "Encrypt": {**key, "Plaintext": base64.b64encode(b"hello").decode()},
        "Decrypt": {"CiphertextBlob": blob_of(emulator, client, key_id)} if operation == "Decrypt" else {},
        "ListKeys": {},
        "ListAliases": {},
        "DeleteAlias": {"AliasName": "alias/one"},
        "ScheduleKeyDeletion": {**key, "PendingWindowInDays": 7},
        "CreateAlias": {**key, "AliasName": "alias/two"},
        "UpdateAlias": {**key, "AliasName": "alias/one"},
        "TagResource": {**key, "Tags": tags_json({"k": "v"})},
        "TagResources": tag,
        "GetParametersForImport": {**key, "WrappingKeySpec": "RSA_2048", "WrappingAlgorithm": OAEP},
    }
    return client.call(operation, **parameters.get(operation, key))


def blob_of(emulator: Emulator, client: Client, key_id: str) -> str:
    """Encrypted while the CMK was Enabled."""
    state = emulator.key_state(key_id)
    emulator.set_state(key_id, "Enabled")
    blob: str = client.ok("Encrypt", KeyId=key_id, Plaintext=base64.b64encode(b"hello").decode())["CiphertextBlob"]
    emulator.set_state(key_id, state)
    return blob


@pytest.mark.parametrize(("operation", "state", "code"), CELLS)
def test_operation_in_a_state_answers_as_the_table_says(
    client: Client, emulator: Emulator, operation: str, state: str, code: str
) -> None:
    key_id = emulator.create_key(dkms_instance_id="", material=MATERIAL, state=state, alias="alias/one")
    answer = perform(client, operation, key_id)
    assert (answer.status, answer.code) == ((409, code) if code else (200, ""))
    if code:
        assert emulator.key_state(key_id) == state
    elif operation in AFTER:
        assert emulator.key_state(key_id) == AFTER[operation]


def test_import_key_material_into_a_pending_import_key_enables_it(client: Client, emulator: Emulator) -> None:
    key_id = emulator.create_key()
    perform(client, "ImportKeyMaterial", key_id)
    assert client.state(key_id) == "Enabled"


def test_import_key_material_into_a_disabled_key_leaves_it_disabled(client: Client, emulator: Emulator) -> None:
    key_id = emulator.create_key(state="Disabled", material=MATERIAL)
    perform(client, "ImportKeyMaterial", key_id)
    assert client.state(key_id) == "Disabled"


def test_delete_key_material_outside_an_instance_empties_the_key(client: Client, emulator: Emulator) -> None:
    key_id = emulator.create_key(dkms_instance_id="", state="Enabled")
    client.ok("DeleteKeyMaterial", KeyId=key_id)
    assert client.state(key_id) == "PendingImport"


def test_delete_key_material_while_deletion_is_pending_leaves_state_and_date(
    client: Client, emulator: Emulator
) -> None:
    key_id = emulator.create_key(dkms_instance_id="", state="Enabled")
    client.ok("ScheduleKeyDeletion", KeyId=key_id, PendingWindowInDays=7)
    before = client.ok("DescribeKey", KeyId=key_id)["KeyMetadata"]
    client.ok("DeleteKeyMaterial", KeyId=key_id)
    assert client.ok("DescribeKey", KeyId=key_id)["KeyMetadata"] == before


@pytest.mark.parametrize("state", STATES)
def test_delete_key_material_in_an_instance_is_refused_in_every_state(
    client: Client, emulator: Emulator, state: str
) -> None:
    key_id = emulator.create_key(state=state)
    answer = client.call("DeleteKeyMaterial", KeyId=key_id)
    assert (answer.status, answer.code) == (400, "Rejected.UnsupportedOperation")
    assert emulator.key_state(key_id) == state

"""Encrypt and Decrypt: contract section 1.10."""

import base64
import json
import uuid

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kms_emulator import Emulator
from tests.emulator.builders import MATERIAL, filters_json
from tests.emulator.client import Client

CONTEXT = json.dumps({"purpose": "proof", "tenant": "7"})
HELLO_B64 = base64.b64encode(b"hello").decode()


@pytest.fixture
def key_id(emulator: Emulator) -> str:
    return emulator.create_key(state="Enabled", material=MATERIAL, alias="alias/crypto")


def test_encrypt_gives_the_documented_blob(client: Client, key_id: str) -> None:
    body = client.ok("Encrypt", KeyId="alias/crypto", Plaintext=HELLO_B64)
    blob = base64.b64decode(body["CiphertextBlob"])
    version_id, iv, ciphertext = blob[:36].decode(), blob[36:48], blob[48:]
    assert body["KeyId"] == key_id
    assert str(uuid.UUID(version_id)) == body["KeyVersionId"] == version_id
    assert version_id == client.ok("DescribeKey", KeyId=key_id)["KeyMetadata"]["PrimaryKeyVersion"]
    assert AESGCM(MATERIAL).decrypt(iv, ciphertext, None) == b"hello"


@pytest.mark.parametrize("spec", ["Aliyun_AES_128", "Aliyun_AES_192", "Aliyun_AES_256"])
@pytest.mark.parametrize("plaintext", [b"x", bytes(6144)], ids=["1 byte", "6144 bytes"])
def test_decrypt_of_what_was_encrypted_gives_the_plaintext(
    client: Client, emulator: Emulator, spec: str, plaintext: bytes
) -> None:
    key_id = emulator.create_key(key_spec=spec, state="Enabled")
    plaintext_b64 = base64.b64encode(plaintext).decode()
    blob = client.ok("Encrypt", KeyId=key_id, Plaintext=plaintext_b64, EncryptionContext=CONTEXT)["CiphertextBlob"]
    reordered = json.dumps({"tenant": "7", "purpose": "proof"})
    body = client.ok("Decrypt", CiphertextBlob=blob, EncryptionContext=reordered)
    assert (body["Plaintext"], body["KeyId"]) == (plaintext_b64, key_id)


def test_decrypt_by_another_key_with_the_same_material_is_not_possible(
    client: Client, emulator: Emulator, key_id: str
) -> None:
    twin = emulator.create_key(state="Enabled", material=MATERIAL)
    blob = client.ok("Encrypt", KeyId=key_id, Plaintext=HELLO_B64)["CiphertextBlob"]
    emulator.set_state(key_id, "Disabled")
    assert client.call("Decrypt", CiphertextBlob=blob).code == "Rejected.Disabled"
    assert client.state(twin) == "Enabled"


def decoded(blob_b64: str) -> bytearray:
    return bytearray(base64.b64decode(blob_b64))


DAMAGE = {
    "no base64": (lambda blob: "?" + blob, "InvalidParameter"),
    "too short": (lambda blob: base64.b64encode(decoded(blob)[:63]).decode(), "InvalidParameter"),
    "another version": (
        lambda blob: base64.b64encode(str(uuid.uuid4()).encode() + decoded(blob)[36:]).decode(),
        "Forbidden.KeyVersionNotFound",
    ),
    "version that is no text": (
        lambda blob: base64.b64encode(b"\xff" * 36 + decoded(blob)[36:]).decode(),
        "Forbidden.KeyVersionNotFound",
    ),
    "tag flipped": (
        lambda blob: base64.b64encode(decoded(blob)[:-1] + bytes([decoded(blob)[-1] ^ 1])).decode(),
        "InvalidParameter",
    ),
}


@pytest.mark.parametrize(("damage", "code"), DAMAGE.values(), ids=DAMAGE)
def test_decrypt_of_a_damaged_blob_is_refused(client: Client, key_id: str, damage, code: str) -> None:  # noqa: ANN001
    blob = client.ok("Encrypt", KeyId=key_id, Plaintext=HELLO_B64)["CiphertextBlob"]
    assert client.call("Decrypt", CiphertextBlob=damage(blob)).code == code


def test_decrypt_with_another_context_is_refused(client: Client, key_id: str) -> None:
    blob = client.ok("Encrypt", KeyId=key_id, Plaintext=HELLO_B64, EncryptionContext=CONTEXT)["CiphertextBlob"]
    assert client.call("Decrypt", CiphertextBlob=blob).code == "InvalidParameter"
    other = json.dumps({"purpose": "proof", "tenant": "8"})
    assert client.call("Decrypt", CiphertextBlob=blob, EncryptionContext=other).code == "InvalidParameter"


BAD_INPUT = {
    "plaintext of 6145 bytes": {"Plaintext": base64.b64encode(bytes(6145)).decode()},
    "plaintext that is no base64": {"Plaintext": "?"},
    "context that is no JSON": {"Plaintext": HELLO_B64, "EncryptionContext": "{"},
    "context that is no object": {"Plaintext": HELLO_B64, "EncryptionContext": "[]"},
    "context of numbers": {"Plaintext": HELLO_B64, "EncryptionContext": '{"a":1}'},
    "dry run neither true nor false": {"Plaintext": HELLO_B64, "DryRun": "perhaps"},
}


@pytest.mark.parametrize("parameters", BAD_INPUT.values(), ids=BAD_INPUT)
def test_encrypt_with_bad_input_is_refused(client: Client, key_id: str, parameters: dict[str, str]) -> None:
    assert client.call("Encrypt", KeyId=key_id, **parameters).code == "InvalidParameter"


def test_dry_run_of_what_would_work_never_performs_it(client: Client, key_id: str) -> None:
    dry = {"KeyId": key_id, "Plaintext": HELLO_B64, "DryRun": "true"}
    assert client.call("Encrypt", **dry).code == "DryRunOperationError"
    blob = client.ok("Encrypt", KeyId=key_id, Plaintext=HELLO_B64, DryRun="false")["CiphertextBlob"]
    assert client.call("Decrypt", CiphertextBlob=blob, DryRun="true").code == "DryRunOperationError"


def test_encrypt_with_a_key_of_the_kms_own_origin_works(client: Client) -> None:
    key_id = client.ok("CreateKey")["KeyMetadata"]["KeyId"]
    blob = client.ok("Encrypt", KeyId=key_id, Plaintext=HELLO_B64)["CiphertextBlob"]
    assert client.ok("Decrypt", CiphertextBlob=blob)["Plaintext"] == HELLO_B64
    assert client.ok("ListKeys", Filters=filters_json(KeyState=["Enabled"]))["TotalCount"] == 1

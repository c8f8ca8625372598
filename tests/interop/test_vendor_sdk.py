"""The vendor's SDK, unmodified, runs the seed's flow against the emulator; OpenSSL makes and wraps the material."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from alibabacloud_kms20160120 import models
from alibabacloud_kms20160120.client import Client
from alibabacloud_tea_openapi.exceptions import ClientException, ThrottlingException
from alibabacloud_tea_openapi.models import Config

from kms_emulator import AccessKey, Emulator, EmulatorSettings, Fault
from tests.interop.vendor_openssl import random_material, wrapped_b64

ACCESS_KEY = AccessKey("LTAIvendor", "vendor-secret")
STS_KEY = AccessKey("STS.vendor", "vendor-sts-secret", "vendor-security-token")
SPECS = {"Aliyun_AES_128": 16, "Aliyun_AES_192": 24, "Aliyun_AES_256": 32}
ALGORITHMS = ("RSAES_OAEP_SHA_256", "RSAES_PKCS1_V1_5")


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator(EmulatorSettings(access_keys=(ACCESS_KEY, STS_KEY))) as emulator:
        yield emulator


def sdk(emulator: Emulator, access_key: AccessKey = ACCESS_KEY) -> Client:
    return Client(
        Config(
            access_key_id=access_key.access_key_id,
            access_key_secret=access_key.access_key_secret,
            security_token=access_key.security_token or None,
            endpoint=urlsplit(emulator.endpoint).netloc,
            protocol="HTTP",
            region_id="cn-hangzhou",
        )
    )


@pytest.fixture
def client(emulator: Emulator) -> Client:
    return sdk(emulator)


def create_external_key(client: Client, key_spec: str = "Aliyun_AES_256") -> str:
    request = models.CreateKeyRequest(
        origin="EXTERNAL",
        key_spec=key_spec,
        dkmsinstance_id="kst-example",
        description="a description with ~ * + / = & and ümläut",
        tags=json.dumps([{"TagKey": "request", "TagValue": "4 2"}]),
    )
    metadata = client.create_key(request).body.key_metadata
    assert metadata.key_state == "PendingImport"
    assert metadata.dkmsinstance_id == "kst-example"
    assert metadata.description == request.description
    key_id: str = metadata.key_id
    return key_id


def state(client: Client, key_id: str) -> str:
    key_state: str = client.describe_key(models.DescribeKeyRequest(key_id=key_id)).body.key_metadata.key_state
    return key_state


def import_by_openssl(client: Client, key_id: str, material: Path, algorithm: str) -> None:
    """Steps 2 to 4 of the seed."""
    parameters = client.get_parameters_for_import(
        models.GetParametersForImportRequest(key_id=key_id, wrapping_key_spec="RSA_2048", wrapping_algorithm=algorithm)
    ).body
    client.import_key_material(
        models.ImportKeyMaterialRequest(
            key_id=key_id,
            encrypted_key_material=wrapped_b64(material.parent, parameters.public_key, material, algorithm),
            import_token=parameters.import_token,
            key_material_expire_unix=0,
        )
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("key_spec", "length"), SPECS.items())
def test_seed_flow_ends_with_an_enabled_key_that_holds_the_material(
    emulator: Emulator, client: Client, tmp_path: Path, key_spec: str, length: int, algorithm: str
) -> None:
    key_id = create_external_key(client, key_spec)
    material = random_material(tmp_path, length)
    import_by_openssl(client, key_id, material, algorithm)
    assert state(client, key_id) == "Enabled"
    assert emulator.bound_material(key_id) == material.read_bytes()
    assert material.stat().st_size == length


def test_key_after_import_encrypts_and_decrypts(client: Client, tmp_path: Path) -> None:
    key_id = create_external_key(client)
    import_by_openssl(client, key_id, random_material(tmp_path, 32), "RSAES_OAEP_SHA_256")
    plaintext, context = base64.b64encode(b"proof").decode(), {"purpose": "proof of import"}
    encrypted = client.encrypt(
        models.EncryptRequest(key_id=key_id, plaintext=plaintext, encryption_context=context)
    ).body
    decrypted = client.decrypt(
        models.DecryptRequest(ciphertext_blob=encrypted.ciphertext_blob, encryption_context=context)
    ).body
    assert (decrypted.plaintext, decrypted.key_id) == (plaintext, key_id)
    assert decrypted.key_version_id == encrypted.key_version_id


def test_deletion_can_be_scheduled_and_cancelled(emulator: Emulator, client: Client) -> None:
    key_id = create_external_key(client)
    emulator.import_material(key_id, bytes(32))
    client.schedule_key_deletion(models.ScheduleKeyDeletionRequest(key_id=key_id, pending_window_in_days=7))
    metadata = client.describe_key(models.DescribeKeyRequest(key_id=key_id)).body.key_metadata
    assert metadata.key_state == "PendingDeletion"
    assert metadata.delete_date
    client.cancel_key_deletion(models.CancelKeyDeletionRequest(key_id=key_id))
    assert state(client, key_id) == "Enabled"


def test_other_operations_are_understood(client: Client) -> None:
    key_id = create_external_key(client)
    client.create_alias(models.CreateAliasRequest(key_id=key_id, alias_name="alias/vendor sdk"))
    assert state(client, "alias/vendor sdk") == "PendingImport"
    aliases = client.list_aliases_by_key_id(models.ListAliasesByKeyIdRequest(key_id=key_id)).body.aliases.alias
    assert [alias.alias_name for alias in aliases] == ["alias/vendor sdk"]
    client.update_alias(models.UpdateAliasRequest(key_id=key_id, alias_name="alias/vendor sdk"))
    client.delete_alias(models.DeleteAliasRequest(alias_name="alias/vendor sdk"))
    assert client.list_aliases(models.ListAliasesRequest()).body.total_count == 0
    client.tag_resource(models.TagResourceRequest(key_id=key_id, tags='[{"TagKey":"a","TagValue":"b"}]'))
    client.tag_resources(
        models.TagResourcesRequest(
            region_id="cn-hangzhou",
            resource_type="key",
            resource_id=[key_id],
            tag=[models.TagResourcesRequestTag(key="c", value="d")],
        )
    )
    tags = client.list_resource_tags(models.ListResourceTagsRequest(key_id=key_id)).body.tags.tag
    assert {tag.tag_key: tag.tag_value for tag in tags} == {"request": "4 2", "a": "b", "c": "d"}
    filters = json.dumps([{"Key": "TagKey", "Values": ["request"]}, {"Key": "TagValue", "Values": ["4 2"]}])
    keys = client.list_keys(models.ListKeysRequest(filters=filters)).body.keys.key
    assert [key.key_id for key in keys] == [key_id]


def test_disable_and_enable_are_understood(emulator: Emulator, client: Client) -> None:
    key_id = emulator.create_key(state="Enabled")
    client.disable_key(models.DisableKeyRequest(key_id=key_id))
    assert state(client, key_id) == "Disabled"
    client.enable_key(models.EnableKeyRequest(key_id=key_id))
    assert state(client, key_id) == "Enabled"


def test_delete_key_material_in_an_instance_is_refused(client: Client) -> None:
    key_id = create_external_key(client)
    with pytest.raises(ClientException) as caught:
        client.delete_key_material(models.DeleteKeyMaterialRequest(key_id=key_id))
    assert caught.value.code == "Rejected.UnsupportedOperation"


def test_sts_credentials_are_accepted(emulator: Emulator) -> None:
    create_external_key(sdk(emulator, STS_KEY))


WRONG_CREDENTIALS = {
    "secret": (AccessKey(ACCESS_KEY.access_key_id, "wrong"), "SignatureDoesNotMatch"),
    "access key": (AccessKey("LTAInobody", ACCESS_KEY.access_key_secret), "InvalidAccessKeyId.NotFound"),
    "security token": (
        AccessKey(STS_KEY.access_key_id, STS_KEY.access_key_secret, "x"),
        "InvalidSecurityToken.Malformed",
    ),
}


@pytest.mark.parametrize(("access_key", "code"), WRONG_CREDENTIALS.values(), ids=WRONG_CREDENTIALS)
def test_wrong_credentials_are_refused(emulator: Emulator, access_key: AccessKey, code: str) -> None:
    with pytest.raises(ClientException) as caught:
        create_external_key(sdk(emulator, access_key))
    assert caught.value.code == code


def test_throttling_is_understood_with_its_wait(emulator: Emulator, client: Client) -> None:
    emulator.faults.add(Fault(action="error", code="Rejected.Throttling", retry_after_ms=250))
    with pytest.raises(ThrottlingException) as caught:
        create_external_key(client)
    assert (caught.value.code, caught.value.retry_after) == ("Rejected.Throttling", 250)

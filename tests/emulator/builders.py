"""Wrapping as a client does it, and short cuts that many tests share."""

import base64
import json
from collections.abc import Mapping

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.padding import AsymmetricPadding
from cryptography.hazmat.primitives.serialization import load_der_public_key

from tests.emulator.client import Answer, Client

OAEP = "RSAES_OAEP_SHA_256"
PKCS1 = "RSAES_PKCS1_V1_5"
OAEP_SHA_1 = "RSAES_OAEP_SHA_1"
MATERIAL = bytes(range(32))
OTHER_MATERIAL = bytes(range(1, 33))


def oaep(
    hash_algorithm: hashes.HashAlgorithm, mgf_hash: hashes.HashAlgorithm, label: bytes | None = None
) -> AsymmetricPadding:
    return padding.OAEP(padding.MGF1(mgf_hash), hash_algorithm, label)


PADDINGS = {
    OAEP: oaep(hashes.SHA256(), hashes.SHA256()),
    PKCS1: padding.PKCS1v15(),
    OAEP_SHA_1: oaep(hashes.SHA1(), hashes.SHA1()),
}


def public_key(der: bytes) -> rsa.RSAPublicKey:
    key = load_der_public_key(der)
    assert isinstance(key, rsa.RSAPublicKey)
    return key


def wrapped_b64(public_key_der: bytes, material: bytes, scheme: AsymmetricPadding = PADDINGS[OAEP]) -> str:
    return base64.b64encode(public_key(public_key_der).encrypt(material, scheme)).decode()


def import_blob(client: Client, key_id: str, token: str, blob_b64: str, **more: object) -> Answer:
    parameters = {"EncryptedKeyMaterial": blob_b64, "ImportToken": token, "KeyMaterialExpireUnix": 0, **more}
    return client.call("ImportKeyMaterial", KeyId=key_id, **parameters)


def import_material(client: Client, key_id: str, material: bytes = MATERIAL, algorithm: str = OAEP) -> Answer:
    """Steps 2 to 4 of the seed."""
    der, token = client.emulator.issue_parameters(key_id, algorithm)
    return import_blob(client, key_id, token, wrapped_b64(der, material, PADDINGS[algorithm]))


def tags_json(tags: Mapping[str, str]) -> str:
    return json.dumps([{"TagKey": name, "TagValue": value} for name, value in tags.items()])


def filters_json(**filters: list[str]) -> str:
    return json.dumps([{"Key": name, "Values": values} for name, values in filters.items()])

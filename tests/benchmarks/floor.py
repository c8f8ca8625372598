"""The floor: an import with http.client, one kept-alive connection and the least signing that the KMS accepts.

Written for speed on purpose, with no check that the benchmark itself doesn't need. Source: contract 1.1 to 1.4 and 3.3.
"""

import base64
import hashlib
import hmac
import json
import os
import secrets
import time
from http.client import HTTPConnection
from typing import Any, Self
from urllib.parse import quote, urlsplit

from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

ACCESS_KEY_ID = "benchmark"
ACCESS_KEY_SECRET = "not-a-secret"
REGION = "cn-hangzhou"
DKMS_INSTANCE_ID = "kst-benchmark"
WRAPPING_ALGORITHM = "RSAES_OAEP_SHA_256"
MATERIAL_LENGTH_BYTES = 32

_EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
_SIGNED = "host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version"
_VERSION = "2016-01-20"


class WrongResultError(Exception):
    """An import did not end as it must: what was timed is worth nothing."""


class FloorKms:
    """One connection to the KMS."""

    def __init__(self, endpoint: str) -> None:
        self._host = urlsplit(endpoint).netloc
        self._connection = HTTPConnection(self._host, timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._connection.close()

    def call(self, action: str, parameters: dict[str, str]) -> dict[str, Any]:
        """One operation; WrongResultError for anything but 200."""
        query = "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in sorted(parameters.items()))
        self._connection.request("POST", f"/?{query}", headers=self._headers(action, query))
        response = self._connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise WrongResultError(f"{action} got {response.status}")
        return json.loads(body)

    def create_key(self) -> str:
        """A new CMK in PendingImport: its key id."""
        parameters = {"Origin": "EXTERNAL", "KeySpec": "Aliyun_AES_256", "DKMSInstanceId": DKMS_INSTANCE_ID}
        return self.call("CreateKey", parameters)["KeyMetadata"]["KeyId"]

    def key_state(self, key_id: str) -> str:
        """The CMK's state, in the KMS's words."""
        return self.call("DescribeKey", {"KeyId": key_id})["KeyMetadata"]["KeyState"]

    def import_key(self, key_id: str) -> None:
        """A cold import of an existing CMK: 3 reads and 1 write."""
        require(self.key_state(key_id), "PendingImport")
        pair = self.call(
            "GetParametersForImport",
            {"KeyId": key_id, "WrappingKeySpec": "RSA_2048", "WrappingAlgorithm": WRAPPING_ALGORITHM},
        )
        parameters = {
            "KeyId": key_id,
            "EncryptedKeyMaterial": wrapped_material_b64(pair["PublicKey"]),
            "ImportToken": pair["ImportToken"],
            "KeyMaterialExpireUnix": "0",
        }
        self.call("ImportKeyMaterial", parameters)
        require(self.key_state(key_id), "Enabled")

    def _headers(self, action: str, query: str) -> dict[str, str]:
        date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        nonce = secrets.token_hex(16)
        lines = (
            f"host:{self._host}\nx-acs-action:{action}\nx-acs-content-sha256:{_EMPTY_SHA256}\n"
            f"x-acs-date:{date}\nx-acs-signature-nonce:{nonce}\nx-acs-version:{_VERSION}\n"
        )
        canonical = f"POST\n/\n{query}\n{lines}\n{_SIGNED}\n{_EMPTY_SHA256}"
        to_sign = f"ACS3-HMAC-SHA256\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = hmac.digest(ACCESS_KEY_SECRET.encode(), to_sign.encode(), hashlib.sha256).hex()
        return {
            "Host": self._host,
            "x-acs-action": action,
            "x-acs-content-sha256": _EMPTY_SHA256,
            "x-acs-date": date,
            "x-acs-signature-nonce": nonce,
            "x-acs-version": _VERSION,
            "Authorization": (
                f"ACS3-HMAC-SHA256 Credential={ACCESS_KEY_ID},SignedHeaders={_SIGNED},Signature={signature}"
            ),
        }


def wrapped_material_b64(public_key_b64: str) -> str:
    """New material of 32 bytes, wrapped under the wrapping public key."""
    public_key = load_der_public_key(base64.b64decode(public_key_b64))
    if not isinstance(public_key, RSAPublicKey):
        raise WrongResultError("the wrapping public key is not RSA")
    padding = OAEP(mgf=MGF1(algorithm=SHA256()), algorithm=SHA256(), label=None)
    return base64.b64encode(public_key.encrypt(os.urandom(MATERIAL_LENGTH_BYTES), padding)).decode()


def require(state: str | None, expected: str) -> None:
    """WrongResultError if the CMK is in another state."""
    if state != expected:
        raise WrongResultError(f"the CMK is {state}, not {expected}")

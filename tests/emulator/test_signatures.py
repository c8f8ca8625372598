"""The v3 vectors of contract section 3.3 and the canonical query against an independent formulation."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kms_emulator import AccessKey, KmsError
from kms_emulator.authentication import Authenticator
from kms_emulator.signatures import canonical_query, canonical_request, decode_query, encode, string_to_sign
from kms_emulator.wire import HttpRequest

ACCESS_KEY_ID = "LTAIexampleAccessKey0"
SECRET = "exampleSecret1234567890abcdefgh"
STS_TOKEN = "CAISexampleStsToken=="
SIGNED_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

BASE_HEADERS = {
    "host": "kms.cn-hangzhou.aliyuncs.com",
    "x-acs-action": "GetParametersForImport",
    "x-acs-content-sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "x-acs-date": "2026-01-02T03:04:05Z",
    "x-acs-signature-nonce": "3156853299f313e23d1673dc12e1703d",
    "x-acs-version": "2016-01-20",
}
PARAMETERS = "KeyId=key-hzz62f1cb66fa42qo0000&WrappingAlgorithm=RSAES_OAEP_SHA_256&WrappingKeySpec=RSA_2048"


@dataclass(frozen=True)
class Vector:
    query: str
    headers: dict[str, str]
    body: bytes
    canonical_sha256: str
    signature: str
    security_token: str = ""

    @property
    def signed_headers(self) -> list[str]:
        return sorted(self.headers)

    def request(self) -> HttpRequest:
        names = ";".join(self.signed_headers)
        credential = f"Credential={ACCESS_KEY_ID},SignedHeaders={names},Signature={self.signature}"
        headers = {**self.headers, "authorization": f"ACS3-HMAC-SHA256 {credential}"}
        return HttpRequest("POST", "/", self.query, headers, self.body)


VECTORS = {
    "A": Vector(
        query=PARAMETERS,
        headers=BASE_HEADERS,
        body=b"",
        canonical_sha256="985a334c32cfb6b53453b17e569729ecd955483c2f3579f23ecbd790c57ee623",
        signature="36db289b5928f2733e1817f2892852e508dac62a3aa60b3f416e0f0e9aa080b6",
    ),
    "B": Vector(
        query=PARAMETERS,
        headers={**BASE_HEADERS, "x-acs-accesskey-id": ACCESS_KEY_ID, "x-acs-security-token": STS_TOKEN},
        body=b"",
        canonical_sha256="74949d6a85ac3bb6eb81295bbd192dfc000e38ee4313b6d1d6300912a5420d69",
        signature="5479dbf20424c309e34503206deaab3c2a091fe28b92ae4a2c474e5376f37fb9",
        security_token=STS_TOKEN,
    ),
    "C": Vector(
        query="",
        headers={
            **BASE_HEADERS,
            "content-type": "application/x-www-form-urlencoded",
            "x-acs-content-sha256": "002d18050c1181c1ead1ed1ab82b8e5223b946f8fe6642b8df3880e615422de7",
        },
        body=PARAMETERS.encode(),
        canonical_sha256="d7c990047efbc0b679a54a9e7dc73fb4433151a4e250c459a5f03758fe954dd1",
        signature="ee94e02cb2c3fd6b648cc665ff5705564dda4e474bd9efdc8e73851fe21f3fee",
    ),
    "D": Vector(
        query=(
            "KeyId=alias%2Fmy+key%7E*%2B&EncryptedKeyMaterial=bCPZ%2Bx%2F7I6v6KXs%3D%3D"
            "&ImportToken=Base64%2BString%2F%3D%3D&KeyMaterialExpireUnix=0"
        ),
        headers={**BASE_HEADERS, "x-acs-action": "ImportKeyMaterial"},
        body=b"",
        canonical_sha256="f38ee23e427791e14fc2aada2e532f22b3cfaead44427cc651113020dd4b68a9",
        signature="56b41f037f91aedb07aca81ffacc4d69b94bb39288da68686d5656a622b05ea3",
    ),
}

CANONICAL_QUERY_D = (
    "EncryptedKeyMaterial=bCPZ%2Bx%2F7I6v6KXs%3D%3D&ImportToken=Base64%2BString%2F%3D%3D"
    "&KeyId=alias%2Fmy%20key~%2A%2B&KeyMaterialExpireUnix=0"
)

each_vector = pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS)


def check(request: HttpRequest, vector: Vector, secret: str = SECRET) -> None:
    access_key = AccessKey(ACCESS_KEY_ID, secret, vector.security_token)
    Authenticator((access_key,)).check(request, SIGNED_AT)


@each_vector
def test_canonical_request_of_a_vector_has_its_hash(vector: Vector) -> None:
    canonical = canonical_request(
        method="POST",
        query=vector.query,
        headers=vector.headers,
        signed=vector.signed_headers,
        body_sha256=hashlib.sha256(vector.body).hexdigest(),
    )
    assert string_to_sign(canonical) == f"ACS3-HMAC-SHA256\n{vector.canonical_sha256}"


@each_vector
def test_authenticator_accepts_a_vector(vector: Vector) -> None:
    check(vector.request(), vector)


FLIPS = {
    "method": lambda r: replace(r, method="GET"),
    "query": lambda r: replace(r, query=r.query + "&DryRun=true"),
    "body": lambda r: replace(r, body=r.body + b"x"),
    "host": lambda r: with_header(r, "host", "kms.cn-shanghai.aliyuncs.com"),
    "action": lambda r: with_header(r, "x-acs-action", "DeleteKeyMaterial"),
    "version": lambda r: with_header(r, "x-acs-version", "2016-01-21"),
    "date": lambda r: with_header(r, "x-acs-date", "2026-01-02T03:04:06Z"),
    "nonce": lambda r: with_header(r, "x-acs-signature-nonce", "3156853299f313e23d1673dc12e1703e"),
    "content hash": lambda r: with_header(r, "x-acs-content-sha256", "0" * 64),
    "signature": lambda r: with_header(r, "authorization", flipped(r.headers["authorization"])),
}


def with_header(request: HttpRequest, name: str, value: str) -> HttpRequest:
    return replace(request, headers={**request.headers, name: value})


def flipped(authorization: str) -> str:
    return authorization[:-1] + ("0" if authorization[-1] != "0" else "1")


@each_vector
@pytest.mark.parametrize("flip", FLIPS.values(), ids=FLIPS)
def test_authenticator_with_one_part_changed_refuses(
    vector: Vector, flip: Callable[[HttpRequest], HttpRequest]
) -> None:
    with pytest.raises(KmsError, match="SignatureDoesNotMatch"):
        check(flip(vector.request()), vector)


@each_vector
def test_authenticator_with_another_secret_refuses(vector: Vector) -> None:
    with pytest.raises(KmsError, match="SignatureDoesNotMatch"):
        check(vector.request(), vector, secret=SECRET + " ")


def test_canonical_query_of_vector_d_is_the_contracts() -> None:
    assert canonical_query(decode_query(VECTORS["D"].query)) == CANONICAL_QUERY_D


def test_canonical_request_header_with_spaces_is_trimmed() -> None:
    arguments = {"method": "GET", "query": "", "signed": ["host"], "body_sha256": "0"}
    padded = canonical_request(headers={"host": "  a  "}, **arguments)
    assert padded == canonical_request(headers={"host": "a"}, **arguments)


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
pairs = st.dictionaries(text.filter(bool), text, max_size=6).map(lambda mapping: list(mapping.items()))


@given(pairs)
def test_canonical_query_equals_urllibs_of_sorted_pairs(pairs: list[tuple[str, str]]) -> None:
    assert canonical_query(pairs) == urlencode(sorted(pairs), quote_via=quote, safe="")


@given(pairs)
def test_canonical_query_decoded_gives_the_pairs_back(pairs: list[tuple[str, str]]) -> None:
    assert decode_query(canonical_query(pairs)) == sorted(pairs)


@given(pairs)
def test_decode_query_of_a_form_with_plus_for_space_gives_the_pairs_back(pairs: list[tuple[str, str]]) -> None:
    assert decode_query(urlencode(pairs)) == pairs


@given(text)
def test_encode_leaves_unreserved_characters_only(value: str) -> None:
    unreserved = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~"
    expected = "".join(chr(byte) if chr(byte) in unreserved else f"%{byte:02X}" for byte in value.encode())
    assert encode(value) == expected

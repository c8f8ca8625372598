"""Vectors A to D of contract 3.3, and properties against two other formulations."""

import hashlib
import hmac
import re
from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import unquote

import pytest
import requests
from alibabacloud_tea_openapi.utils import Utils
from darabonba.request import DaraRequest
from hypothesis import given
from hypothesis import strategies as st

from keybroker.adapters.kms.signing import Acs3Auth, canonical_query, canonical_request, new_nonce
from tests.unit.adapters_kms.support import ACCESS_KEY_ID, ACCESS_KEY_SECRET, credentials

DATE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NONCE = "3156853299f313e23d1673dc12e1703d"
ENDPOINT = "https://kms.cn-hangzhou.aliyuncs.com"
PARAMETERS = {
    "KeyId": "key-hzz62f1cb66fa42qo0000",
    "WrappingAlgorithm": "RSAES_OAEP_SHA_256",
    "WrappingKeySpec": "RSA_2048",
}
FORM = "KeyId=key-hzz62f1cb66fa42qo0000&WrappingAlgorithm=RSAES_OAEP_SHA_256&WrappingKeySpec=RSA_2048"
EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
QUERIES = st.dictionaries(TEXTS.filter(bool), TEXTS, max_size=6)


def signed(
    parameters: dict[str, str],
    *,
    action: str = "GetParametersForImport",
    endpoint: str = ENDPOINT,
    security_token: str = "",
    body: str | None = None,
    now: datetime = DATE,
) -> requests.PreparedRequest:
    auth = Acs3Auth(credentials(security_token=security_token), action=action, now=lambda: now, nonce=lambda: NONCE)
    headers = {"content-type": "application/x-www-form-urlencoded"} if body else {}
    query = f"?{canonical_query(parameters.items())}" if parameters else ""
    return requests.Request("POST", f"{endpoint}/{query}", headers=headers, data=body, auth=auth).prepare()


def canonical_hash(request: requests.PreparedRequest) -> str:
    return hashlib.sha256(canonical_request(request).encode()).hexdigest()


def part(request: requests.PreparedRequest, name: str) -> str:
    found = re.search(rf"{name}=([^,]*)", str(request.headers["Authorization"]))
    assert found
    return found[1]


def test_vector_a_query_parameters_signs_as_documented() -> None:
    request = signed(PARAMETERS)
    assert canonical_request(request) == "\n".join(
        [
            "POST",
            "/",
            FORM,
            "host:kms.cn-hangzhou.aliyuncs.com",
            "x-acs-action:GetParametersForImport",
            f"x-acs-content-sha256:{EMPTY_SHA256}",
            "x-acs-date:2026-01-02T03:04:05Z",
            f"x-acs-signature-nonce:{NONCE}",
            "x-acs-version:2016-01-20",
            "",
            "host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version",
            EMPTY_SHA256,
        ]
    )
    assert canonical_hash(request) == "985a334c32cfb6b53453b17e569729ecd955483c2f3579f23ecbd790c57ee623"
    assert request.headers["Authorization"] == (
        "ACS3-HMAC-SHA256 Credential=LTAIexampleAccessKey0,"
        "SignedHeaders=host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version,"
        "Signature=36db289b5928f2733e1817f2892852e508dac62a3aa60b3f416e0f0e9aa080b6"
    )


def test_vector_b_security_token_signs_as_documented() -> None:
    request = signed(PARAMETERS, security_token="CAISexampleStsToken==")
    assert part(request, "SignedHeaders") == (
        "host;x-acs-accesskey-id;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-security-token;"
        "x-acs-signature-nonce;x-acs-version"
    )
    assert canonical_hash(request) == "74949d6a85ac3bb6eb81295bbd192dfc000e38ee4313b6d1d6300912a5420d69"
    assert part(request, "Signature") == "5479dbf20424c309e34503206deaab3c2a091fe28b92ae4a2c474e5376f37fb9"


def test_vector_c_form_body_signs_as_documented() -> None:
    request = signed({}, body=FORM)
    assert request.headers["x-acs-content-sha256"] == (
        "002d18050c1181c1ead1ed1ab82b8e5223b946f8fe6642b8df3880e615422de7"
    )
    assert canonical_hash(request) == "d7c990047efbc0b679a54a9e7dc73fb4433151a4e250c459a5f03758fe954dd1"
    assert part(request, "Signature") == "ee94e02cb2c3fd6b648cc665ff5705564dda4e474bd9efdc8e73851fe21f3fee"


def test_vector_d_characters_to_encode_signs_as_documented() -> None:
    parameters = {
        "KeyId": "alias/my key~*+",
        "EncryptedKeyMaterial": "bCPZ+x/7I6v6KXs==",
        "ImportToken": "Base64+String/==",
        "KeyMaterialExpireUnix": "0",
    }
    query = (
        "EncryptedKeyMaterial=bCPZ%2Bx%2F7I6v6KXs%3D%3D&ImportToken=Base64%2BString%2F%3D%3D"
        "&KeyId=alias%2Fmy%20key~%2A%2B&KeyMaterialExpireUnix=0"
    )
    request = signed(parameters, action="ImportKeyMaterial")
    assert str(request.url) == f"{ENDPOINT}/?{query}"
    assert canonical_request(request).split("\n")[2] == query
    assert canonical_hash(request) == "f38ee23e427791e14fc2aada2e532f22b3cfaead44427cc651113020dd4b68a9"
    assert part(request, "Signature") == "56b41f037f91aedb07aca81ffacc4d69b94bb39288da68686d5656a622b05ea3"


@pytest.mark.parametrize(
    ("endpoint", "host"),
    [
        ("https://kms.example.com", "kms.example.com"),
        ("https://kms.example.com:443", "kms.example.com"),
        ("https://kms.example.com:8443", "kms.example.com:8443"),
        ("http://127.0.0.1:80", "127.0.0.1"),
        ("http://127.0.0.1:443", "127.0.0.1:443"),
        ("http://[::1]:8088", "[::1]:8088"),
    ],
)
def test_host_signed_is_the_host_header_sent(endpoint: str, host: str) -> None:
    request = signed(PARAMETERS, endpoint=endpoint)
    assert request.headers["Host"] == host
    assert f"\nhost:{host}\n" in canonical_request(request)


def test_date_of_another_time_zone_is_sent_in_utc() -> None:
    request = signed(PARAMETERS, now=DATE.astimezone(timezone(timedelta(hours=8))))
    assert request.headers["x-acs-date"] == "2026-01-02T03:04:05Z"


def test_nonces_are_distinct() -> None:
    assert len({new_nonce() for _ in range(1000)}) == 1000


@given(QUERIES)
def test_query_decodes_to_the_parameters_and_holds_unreserved_characters_only(parameters: dict[str, str]) -> None:
    query = canonical_query(parameters.items())
    assert re.fullmatch(r"(?:[A-Za-z0-9._~&=-]|%[0-9A-F]{2})*", query)
    pairs = [pair.split("=") for pair in query.split("&")] if query else []
    assert {unquote(name): unquote(value) for name, value in pairs} == parameters


@given(QUERIES, st.one_of(st.just(""), st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1)))
def test_signature_equals_an_independent_formulation(parameters: dict[str, str], security_token: str) -> None:
    request = signed(parameters, security_token=security_token)
    assert part(request, "Signature") == independent_signature(parameters, security_token)


@given(st.dictionaries(st.from_regex(r"[A-Za-z0-9.]+", fullmatch=True), TEXTS, max_size=6))  # theirs encodes no names
def test_authorization_equals_the_vendors_own(parameters: dict[str, str]) -> None:
    request = signed(parameters)
    theirs = DaraRequest()
    theirs.method = "POST"
    theirs.pathname = "/"
    theirs.query = dict(parameters)
    theirs.headers = {name.lower(): str(value) for name, value in request.headers.items() if is_signed(name)}
    expected = Utils.get_authorization(theirs, "ACS3-HMAC-SHA256", EMPTY_SHA256, ACCESS_KEY_ID, ACCESS_KEY_SECRET)
    assert request.headers["Authorization"] == expected


def is_signed(name: str) -> bool:
    return name.lower() == "host" or name.lower().startswith("x-acs-")


def independent_signature(parameters: dict[str, str], security_token: str) -> str:
    """Byte by byte from the contract's text; shares nothing with the code under test."""
    unreserved = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~"

    def encoded(text: str) -> str:
        return "".join(chr(byte) if byte in unreserved else f"%{byte:02X}" for byte in text.encode())

    headers = {
        "host": "kms.cn-hangzhou.aliyuncs.com",
        "x-acs-action": "GetParametersForImport",
        "x-acs-content-sha256": EMPTY_SHA256,
        "x-acs-date": "2026-01-02T03:04:05Z",
        "x-acs-signature-nonce": NONCE,
        "x-acs-version": "2016-01-20",
    }
    if security_token:
        headers |= {"x-acs-accesskey-id": ACCESS_KEY_ID, "x-acs-security-token": security_token}
    canonical = "POST\n/\n" + "&".join(f"{encoded(k)}={encoded(parameters[k])}" for k in sorted(parameters)) + "\n"
    canonical += "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    canonical += "\n" + ";".join(sorted(headers)) + "\n" + EMPTY_SHA256
    to_sign = "ACS3-HMAC-SHA256\n" + hashlib.sha256(canonical.encode()).hexdigest()
    return hmac.digest(ACCESS_KEY_SECRET.encode(), to_sign.encode(), "sha256").hex()

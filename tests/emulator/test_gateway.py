"""Shapes of requests and replies, and every code of the error table: contract sections 1.12, 3.1 and 3.4."""

import logging
import re
from dataclasses import replace

import pytest

from kms_emulator import Emulator, Fault
from kms_emulator.errors import ERROR_TABLE, ErrorRule
from tests.emulator.client import Client

LOWER_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
UPPER_UUID = re.compile(r"[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}")

# The codes of contract sections 1.12 and 3.4 with their HTTP status, copied from there by hand.
CONTRACT_CODES = {
    400: """ParseRequestParameterException MissingParameter InvalidParameter IncompleteSignature IllegalTimestamp
        Rejected.LimitExceeded AliasAlreadyExists InvalidKeyMaterial InvalidImportToken ExpiredImportToken
        Unsupported.Origin Unsupported.Alias Unsupported.ProtectionLevel Rejected.UnsupportedOperation
        UnsupportedOperation Throttling InvalidTimeStamp.Expired SignatureNonceUsed SignatureDoesNotMatch
        InvalidSecurityToken.Expired InvalidSecurityToken.Malformed InvalidSecurityToken.MismatchWithAccessKey
        MissingSecurityToken Throttling.User Throttling.Api""",
    403: """Forbidden.NoPermission Forbidden.AccessKey UnsupportedHTTPMethod Forbidden.KmsServiceNotEnabled
        Forbidden.InDebt Forbidden.InDebtOverdue Forbidden.ProhibitedByRiskControl Forbidden.UbsmsInvalidUserid
        Forbidden.UbsmsInvalidBid Forbidden.AccessKeyDisabled""",
    404: """Forbidden.KeyNotFound Forbidden.KeyVersionNotFound Forbidden.AliasNotFound Forbidden.ResourceNotFound
        InvalidAccessKeyId.NotFound InvalidAction.NotFound""",
    409: """Rejected.Enabled Rejected.Disabled Rejected.PendingDeletion Rejected.PendingImport
        Rejected.StateModifiedFailed""",
    429: "Rejected.Throttling",
    500: "InternalFailure",
    503: "ServiceUnavailableTemporary",
}
STATUS_OF = {code: status for status, codes in CONTRACT_CODES.items() for code in codes.split()}


@pytest.mark.parametrize(("code", "status"), STATUS_OF.items())
def test_error_table_has_the_contracts_code_with_its_status(code: str, status: int) -> None:
    assert {rule.status for rule in ERROR_TABLE if rule.code == code} == {status}


MESSAGES = {
    "InvalidImportToken": "import token is invalid.",
    "ExpiredImportToken": "import token is expired.",
    "InvalidKeyMaterial": "key material is invalid.",
    "Unsupported.Origin": "This key origin is not valid for this api.",
    "Unsupported.Alias": "Alias is not valid for this api.",
    "Rejected.StateModifiedFailed": "Keystate modified failed.",
    "Forbidden.KeyNotFound": "The specified Key is not found.",
    "Rejected.Throttling": "QPS Limit Exceeded",
    "Throttling": "Request was denied due to request throttling.",
    "AliasAlreadyExists": "AliasName Already Exists.",
    "Forbidden.NoPermission": "This operation is forbidden by permission system.",
    "UnsupportedOperation": "This action is not supported.",
    "SignatureNonceUsed": "Specified signature nonce was used already.",
    "InvalidTimeStamp.Expired": "Specified time stamp or date value is expired.",
    "InvalidAccessKeyId.NotFound": "Specified access key is not found.",
    "InvalidAction.NotFound": "Specified api is not found, please check your url and method",
}


@pytest.mark.parametrize(("code", "message"), MESSAGES.items())
def test_error_table_has_the_contracts_message(code: str, message: str) -> None:
    assert {rule.message for rule in ERROR_TABLE if rule.code == code} == {message}


@pytest.mark.parametrize("rule", ERROR_TABLE, ids=lambda rule: f"{rule.layer}:{rule.code}")
def test_error_fault_gives_every_code_of_the_table(client: Client, emulator: Emulator, rule: ErrorRule) -> None:
    emulator.faults.add(Fault(action="error", code=rule.code))
    answer = client.call("ListKeys")
    assert (answer.status, answer.code) == (rule.status, rule.code)


def test_service_error_has_the_services_shape(client: Client) -> None:
    answer = client.call("DescribeKey", KeyId="key-nobody")
    assert LOWER_UUID.fullmatch(answer.body.pop("RequestId"))
    assert answer.body == {
        "HttpStatus": 404,
        "Code": "Forbidden.KeyNotFound",
        "Message": "The specified Key is not found.",
    }


def test_gateway_error_has_the_gateways_shape(client: Client) -> None:
    answer = client.call("Frobnicate")
    assert UPPER_UUID.fullmatch(answer.body.pop("RequestId"))
    assert answer.body == {
        "HostId": "127.0.0.1",
        "Code": "InvalidAction.NotFound",
        "Message": "Specified api is not found, please check your url and method",
        "Recommend": "https://error-center.aliyun.com/status/search?Keyword=InvalidAction.NotFound&source=PopGw",
    }


def test_success_has_a_lower_case_request_id(client: Client) -> None:
    assert LOWER_UUID.fullmatch(client.ok("ListKeys")["RequestId"])


def test_missing_parameter_is_named(client: Client) -> None:
    answer = client.call("DescribeKey")
    assert (answer.status, answer.code) == (400, "MissingParameter")
    assert answer.body["Message"] == 'The parameter "KeyId" is needed but not provided.'


def test_invalid_parameter_is_named(client: Client) -> None:
    answer = client.call("ListKeys", PageSize=1000)
    assert answer.body["Message"] == 'The specified parameter "PageSize" is not valid.'


REQUIRED = {
    "GetParametersForImport": ["KeyId", "WrappingKeySpec", "WrappingAlgorithm"],
    "ImportKeyMaterial": ["KeyId", "EncryptedKeyMaterial", "ImportToken"],
    "DeleteKeyMaterial": ["KeyId"],
    "ScheduleKeyDeletion": ["KeyId", "PendingWindowInDays"],
    "CancelKeyDeletion": ["KeyId"],
    "DescribeKey": ["KeyId"],
    "EnableKey": ["KeyId"],
    "DisableKey": ["KeyId"],
    "CreateAlias": ["KeyId", "AliasName"],
    "UpdateAlias": ["KeyId", "AliasName"],
    "DeleteAlias": ["AliasName"],
    "ListAliasesByKeyId": ["KeyId"],
    "ListResourceTags": ["KeyId"],
    "TagResource": ["Tags"],
    "TagResources": ["RegionId", "ResourceType", "ResourceId.1", "Tag.1.Key"],
    "Encrypt": ["KeyId", "Plaintext"],
    "Decrypt": ["CiphertextBlob"],
}


@pytest.mark.parametrize(("operation", "name"), [(op, name) for op, names in REQUIRED.items() for name in names])
def test_each_required_parameter_is_missed(client: Client, operation: str, name: str) -> None:
    present = {other: "x" for other in REQUIRED[operation] if other != name}
    answer = client.call(operation, **present)
    assert answer.code == "MissingParameter"
    assert f'"{name.replace(".1", ".N")}"' in answer.body["Message"]


HEADERLESS = {
    "no action": ({"x-acs-action": ""}, 400, "MissingParameter", '"Action"'),
    "no version": ({"x-acs-version": ""}, 400, "MissingParameter", '"Version"'),
    "another version": ({"x-acs-version": "2014-01-01"}, 404, "InvalidAction.NotFound", "api"),
}


@pytest.mark.parametrize(("headers", "status", "code", "text"), HEADERLESS.values(), ids=HEADERLESS)
def test_request_that_names_no_operation_is_refused(
    client: Client, headers: dict[str, str], status: int, code: str, text: str
) -> None:
    answer = client.send(client.request("ListKeys", {}, extra_headers=headers))
    assert (answer.status, answer.code) == (status, code)
    assert text in answer.body["Message"]


def test_request_with_another_method_or_path_is_refused(client: Client) -> None:
    request = client.request("ListKeys", {})
    assert client.send(replace(request, method="PUT")).code == "UnsupportedHTTPMethod"
    assert client.send(replace(request, path="/keys")).code == "InvalidAction.NotFound"


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("in_form", [False, True], ids=["query", "form"])
def test_parameters_come_in_query_or_form(client: Client, emulator: Emulator, method: str, in_form: bool) -> None:  # noqa: FBT001
    key_id = emulator.create_key(alias="alias/mein schlüssel ~*+")
    parameters = {"KeyId": "alias/mein schlüssel ~*+"}
    answer = client.send(client.request("DescribeKey", parameters, method=method, in_form=in_form))
    assert answer.body["KeyMetadata"]["KeyId"] == key_id


def test_body_of_another_content_type_gives_no_parameters(client: Client, emulator: Emulator) -> None:
    json_type = {"content-type": "application/json"}
    parameters = {"KeyId": emulator.create_key()}
    request = client.request("DescribeKey", parameters, in_form=True, extra_headers=json_type)
    assert client.send(request).code == "MissingParameter"


def test_query_that_is_not_utf_8_is_refused(client: Client) -> None:
    request = replace(client.request("ListKeys", {}), query="PageSize=%FF")
    assert client.send(request).code == "ParseRequestParameterException"


def test_calls_are_counted_and_logged_with_key_and_status(client: Client, emulator: Emulator) -> None:
    key_id = client.ok("CreateKey")["KeyMetadata"]["KeyId"]
    client.call("DescribeKey", KeyId=key_id)
    client.call("DescribeKey", KeyId="key-nobody")
    client.call("Frobnicate")
    client.send(client.request("DescribeKey", {}, date="yesterday"))
    assert emulator.calls == {"CreateKey": 1, "DescribeKey": 3}
    assert emulator.call_log == [
        ("CreateKey", key_id, 200),
        ("DescribeKey", key_id, 200),
        ("DescribeKey", "key-nobody", 404),
        ("", "", 404),
        ("DescribeKey", "", 400),
    ]
    emulator.reset_calls()
    assert (emulator.calls, emulator.call_log) == ({}, [])


def test_defect_of_the_emulator_is_an_internal_failure(
    client: Client, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    key_id = emulator.create_key()
    emulator.import_material(key_id, b"no AES key has this length")
    with caplog.at_level(logging.ERROR):
        answer = client.call("Encrypt", KeyId=key_id, Plaintext="QQ==")
    assert (answer.status, answer.code) == (500, "InternalFailure")
    assert "the emulator failed in Encrypt" in caplog.text

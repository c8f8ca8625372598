"""Replies of the KMS that are right, odd and wrong."""

import base64
import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keybroker.adapters.kms import replies
from keybroker.adapters.kms.transport import Reply
from keybroker.domain.errors import KmsError, Reason
from keybroker.domain.external_key import CmkName, KeyState
from keybroker.domain.key_spec import AES_128, AES_256
from keybroker.domain.wrapping import RSAES_OAEP_SHA_256
from keybroker.ports import KeyPage
from tests.unit.adapters_kms.support import ACCOUNT, ARN, CMK, KEY_ID, REGION, REQUEST_ID, error_body, key_body

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ["KeyId", "Arn", "KeyState", "Origin", "KeySpec", "DKMSInstanceId", "CreationDate", "DeleteDate"]


def reply(body: object, *, status: int = 200, **headers: str) -> Reply:
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, payload)


def parameters_body(**overrides: object) -> dict[str, object]:
    return {
        "KeyId": KEY_ID,
        "PublicKey": base64.b64encode(b"a public key").decode(),
        "ImportToken": "Base64String+/==",
        "TokenExpireTime": "2018-01-25T00:01:02Z",
        "RequestId": REQUEST_ID,
    } | overrides


def brief(value: object) -> str:
    return str(value)[:60]


def refused(call: Callable[[], object]) -> KmsError:
    with pytest.raises(KmsError) as caught:
        call()
    return caught.value


def read_key(body: dict[str, object]) -> object:
    return replies.read_key(body, region=REGION)


def read_parameters(body: dict[str, object]) -> object:
    return replies.read_import_parameters(body, cmk=CMK, algorithm=RSAES_OAEP_SHA_256)


def test_key_of_the_documented_shape_is_read_whole() -> None:
    key = replies.read_key(key_body(KeySpec="Aliyun_AES_128", DeleteDate="2023-04-01T00:00:00Z"), region=REGION)
    assert key.name == CmkName(ACCOUNT, REGION, KEY_ID)
    assert key.arn == ARN
    assert key.spec is AES_128
    assert key.state is KeyState.PENDING_IMPORT
    assert key.origin == "EXTERNAL"
    assert key.dkms_instance_id == "kst-example"
    assert key.created_at == datetime(2023, 3, 25, 10, tzinfo=UTC)
    assert key.delete_at == datetime(2023, 4, 1, tzinfo=UTC)


@pytest.mark.parametrize("absent", ["", None])
def test_key_without_optional_values_is_read(absent: object) -> None:
    body = key_body(DeleteDate=absent, CreationDate=absent, DKMSInstanceId=absent, KeySpec=absent)
    key = replies.read_key(body, region=REGION)
    assert (key.delete_at, key.created_at, key.dkms_instance_id, key.spec) == (None, None, "", None)


def test_key_with_fields_nobody_knows_is_read() -> None:
    body = key_body(PrimaryKeyVersion=7, Novelty={"a": [1]})
    assert replies.read_key(body | {"Other": None}, region=REGION).spec is AES_256


@pytest.mark.parametrize("state", ["Destroyed", "unknown", "enabled"])
def test_key_in_an_unknown_state_is_unknown(state: str) -> None:
    assert replies.read_key(key_body(KeyState=state), region=REGION).state is KeyState.UNKNOWN


def test_key_of_another_spec_has_none() -> None:
    assert replies.read_key(key_body(KeySpec="Aliyun_SM4"), region=REGION).spec is None


@pytest.mark.parametrize(
    "overrides",
    [
        {"KeyId": ""},
        {"KeyId": None},
        {"KeyId": 5},
        {"KeyId": "key/1"},
        {"KeyId": "k" * 129},
        {"KeyId": "key-other"},
        {"Arn": ""},
        {"Arn": f"acs:kms:cn-beijing:{ACCOUNT}:key/{KEY_ID}"},
        {"Arn": f"acs:kms:{REGION}:{ACCOUNT}:key/key-other"},
        {"Arn": f"acs:kms:{REGION}:me:key/{KEY_ID}"},
        {"Arn": f"acs:kms:{REGION}::key/{KEY_ID}"},
        {"Arn": f"{ARN}\n"},
        {"Arn": f"acs:ram:{REGION}:{ACCOUNT}:key/{KEY_ID}"},
        {"KeyState": None},
        {"KeyState": ["Enabled"]},
        {"Origin": ""},
        {"Origin": True},
        {"KeySpec": 256},
        {"DKMSInstanceId": ["kst-example"]},
        {"CreationDate": "yesterday"},
        {"CreationDate": 1679738400},
        {"DeleteDate": "2023-03-25T10:00:00+08:00"},
        {"KeyState": "x" * 20000},
    ],
    ids=brief,
)
def test_key_of_a_wrong_shape_is_refused(overrides: dict[str, object]) -> None:
    error = refused(lambda: read_key(key_body(**overrides)))
    assert (error.reason, error.kms_code) == (Reason.KMS_RESPONSE_INVALID, "unreadable")
    assert not error.committed_nothing
    assert error.kms_request_id == REQUEST_ID


@pytest.mark.parametrize("metadata", [None, [], "x", 1])
def test_reply_without_key_metadata_is_refused(metadata: object) -> None:
    assert refused(lambda: read_key({"KeyMetadata": metadata})).reason is Reason.KMS_RESPONSE_INVALID


@given(st.sampled_from(FIELDS), JSON)
def test_key_with_any_value_anywhere_is_read_or_refused(field: str, value: object) -> None:
    with contextlib.suppress(KmsError):
        read_key(key_body(**{field: value}))


def test_import_parameters_are_read_as_one_value() -> None:
    read = replies.read_import_parameters(parameters_body(), cmk=CMK, algorithm=RSAES_OAEP_SHA_256)
    assert read.cmk == CMK
    assert read.algorithm is RSAES_OAEP_SHA_256
    assert read.wrapping_public_key_der == b"a public key"
    assert read.import_token == "Base64String+/=="
    assert read.expires_at == datetime(2018, 1, 25, 0, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    "overrides",
    [
        {"KeyId": "key-other"},
        {"KeyId": None},
        {"PublicKey": ""},
        {"PublicKey": "-----BEGIN PUBLIC KEY-----"},
        {"PublicKey": "AAA"},
        {"PublicKey": "QUFB\nQUFB"},
        {"PublicKey": "\u00e9\u00e9\u00e9\u00e9"},
        {"ImportToken": ""},
        {"ImportToken": None},
        {"ImportToken": 7},
        {"ImportToken": "two words"},
        {"ImportToken": "x" * 16385},
        {"TokenExpireTime": ""},
        {"TokenExpireTime": None},
        {"TokenExpireTime": "2018-01-25"},
    ],
    ids=brief,
)
def test_import_parameters_of_a_wrong_shape_are_refused(overrides: dict[str, object]) -> None:
    error = refused(lambda: read_parameters(parameters_body(**overrides)))
    assert (error.reason, error.committed_nothing) == (Reason.KMS_RESPONSE_INVALID, False)


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)),
        ("Thu, 29 Feb 2024 23:59:59 GMT", datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC)),
        ("Mon, 06 Nov 1994 08:49:37 GMT", None),
        ("Sun, 6 Nov 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 08:49:37 +0000", None),
        ("Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 08:49:60 GMT", None),
        ("Sun, 06 Nov 1994 24:00:00 GMT", None),
        ("Thu, 30 Feb 2024 23:59:59 GMT", None),
        ("Sun, 06 Foo 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 0000 08:49:37 GMT", None),
        ("Sunday, 06-Nov-94 08:49:37 GMT", None),
        ("Sun Nov  6 08:49:37 1994", None),
        ("Sun, \u0660\u0666 Nov 1994 08:49:37 GMT", None),
        ("Wed, 31 Dec 1969 23:59:59 GMT", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", datetime(1970, 1, 1, tzinfo=UTC)),
        ("Wed, 01 Jan 3000 00:00:00 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 GMT", None),
        ("9" * 5000, None),
        ("", None),
    ],
    ids=brief,
)
def test_date_is_an_imf_fixdate_or_none(text: str, date: datetime | None) -> None:
    """The first is the example of RFC 9110 §5.6.7."""
    assert replies.read_date(reply({}, date=text)) == date


def test_reply_without_a_date_has_none() -> None:
    assert replies.read_date(reply({})) is None


@given(st.datetimes(datetime(1970, 1, 1), datetime(2999, 12, 31, 23, 59, 59)))  # noqa: DTZ001  # made aware below
def test_every_second_can_be_said(moment: datetime) -> None:
    date = moment.replace(microsecond=0, tzinfo=UTC)
    assert replies.read_date(reply({}, date=format_datetime(date, usegmt=True))) == date


def page_body(**overrides: object) -> dict[str, object]:
    return {
        "Keys": {"Key": [{"KeyId": KEY_ID, "KeyArn": ARN}]},
        "TotalCount": 7,
        "PageNumber": 2,
        "PageSize": 100,
        "RequestId": REQUEST_ID,
    } | overrides


def tags_body(*tags: object) -> dict[str, object]:
    return {"Tags": {"Tag": list(tags)}, "RequestId": REQUEST_ID}


def tag(key: object = "t", value: object = "1", **overrides: object) -> dict[str, object]:
    return {"KeyId": KEY_ID, "TagKey": key, "TagValue": value} | overrides


def ciphertext_body(**overrides: object) -> dict[str, object]:
    return {"KeyId": KEY_ID, "KeyVersionId": "v", "CiphertextBlob": "QUFB", "RequestId": REQUEST_ID} | overrides


def read_page(body: dict[str, object]) -> object:
    return replies.read_key_page(body, page=2)


def read_tags(body: dict[str, object]) -> object:
    return replies.read_tags(body, key_id=KEY_ID)


def read_ciphertext(body: dict[str, object]) -> object:
    return replies.read_ciphertext(body, key_id=KEY_ID)


def test_page_of_keys_tags_and_ciphertext_are_read() -> None:
    assert read_page(page_body()) == KeyPage((KEY_ID,), 7)
    assert read_page(page_body(Keys={"Key": []}, TotalCount=0)) == KeyPage((), 0)
    assert read_tags(tags_body(tag(), tag("u", ""), tag("v", None))) == {"t": "1", "u": "", "v": ""}
    assert read_tags(tags_body()) == {}
    assert read_ciphertext(ciphertext_body()) == b"AAA"


BAD_PAGES: list[dict[str, object]] = [
    {"Keys": None},
    {"Keys": []},
    {"Keys": {"Key": None}},
    {"Keys": {"Key": {}}},
    {"Keys": {"Key": [KEY_ID]}},
    {"Keys": {"Key": [{"KeyId": None}]}},
    {"Keys": {"Key": [{"KeyId": "key/1"}]}},
    {"Keys": {"Key": [{"KeyId": KEY_ID}] * 101}, "TotalCount": 101},
    {"TotalCount": None},
    {"TotalCount": "7"},
    {"TotalCount": True},
    {"TotalCount": 7.0},
    {"TotalCount": 0},
    {"PageNumber": 1},
    {"PageNumber": None},
]
BAD_CIPHERTEXTS: list[dict[str, object]] = [
    {"KeyId": "key-other"},
    {"KeyId": None},
    {"CiphertextBlob": ""},
    {"CiphertextBlob": None},
    {"CiphertextBlob": "AAA"},
    {"CiphertextBlob": "QUFB" * 4097},
]
BAD_TAGS: list[list[object]] = [
    [None],
    ["t"],
    [tag(KeyId="key-other")],
    [tag(KeyId=None)],
    [tag("")],
    [tag(5)],
    [tag(value=5)],
    [tag(value="1"), tag(value="2")],
    [tag(value="x" * 16385)],
]
WRONG = [
    *[(read_page, page_body(**each)) for each in BAD_PAGES],
    *[(read_ciphertext, ciphertext_body(**each)) for each in BAD_CIPHERTEXTS],
    *[(read_tags, tags_body(*each)) for each in BAD_TAGS],
    *[(read_tags, {"Tags": each, "RequestId": REQUEST_ID}) for each in (None, [], {"Tag": {}})],
]


@pytest.mark.parametrize(("read", "body"), WRONG, ids=range(len(WRONG)))
def test_page_tags_or_ciphertext_of_a_wrong_shape_is_refused(
    read: Callable[[dict[str, object]], object], body: dict[str, object]
) -> None:
    error = refused(lambda: read(body))
    assert (error.reason, error.kms_code, error.committed_nothing) == (Reason.KMS_RESPONSE_INVALID, "unreadable", False)
    assert error.kms_request_id == REQUEST_ID


@given(st.sampled_from([read_page, read_tags, read_ciphertext]), st.sampled_from([*page_body(), "Tags", "KeyId"]), JSON)
def test_lists_with_any_value_anywhere_are_read_or_refused(
    read: Callable[[dict[str, object]], object], field: str, value: object
) -> None:
    body = page_body() | tags_body(tag()) | ciphertext_body() | {field: value}
    with contextlib.suppress(KmsError):
        read(body)


def test_change_gives_its_request_id() -> None:
    assert replies.read_change({"RequestId": REQUEST_ID}).request_id == REQUEST_ID


@pytest.mark.parametrize("body", [{}, {"RequestId": ""}, {"RequestId": None}, {"RequestId": 1}], ids=brief)
def test_change_without_request_id_is_no_success(body: dict[str, object]) -> None:
    error = refused(lambda: replies.read_change(body))
    assert (error.reason, error.committed_nothing) == (Reason.KMS_RESPONSE_INVALID, False)


@pytest.mark.parametrize("request_id", ["<b>hello</b>", "a b", "a\nb", "x" * 65, "caf\u00e9"])
def test_request_id_that_is_none_is_dropped(request_id: str) -> None:
    assert replies.read_change({"RequestId": request_id}).request_id == ""
    error = refused(lambda: replies.read_body(reply(error_body("InvalidParameter", RequestId=request_id), status=400)))
    assert error.metadata == {"kms_code": "InvalidParameter"}


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 200, Reason.KMS_RESPONSE_INVALID),
        (b"<html>", 200, Reason.KMS_RESPONSE_INVALID),
        (b"[]", 200, Reason.KMS_RESPONSE_INVALID),
        (b"null", 200, Reason.KMS_RESPONSE_INVALID),
        (b"[" * 60000, 200, Reason.KMS_RESPONSE_INVALID),
        (b'{"RequestId": "\xff"}', 200, Reason.KMS_RESPONSE_INVALID),
        (b'{"a": ' + b"9" * 5000 + b"}", 200, Reason.KMS_RESPONSE_INVALID),
        ({"RequestId": REQUEST_ID}, 201, Reason.KMS_RESPONSE_INVALID),
        ({"RequestId": REQUEST_ID}, 204, Reason.KMS_RESPONSE_INVALID),
        (error_body("InvalidKeyMaterial"), 200, Reason.KMS_RESPONSE_INVALID),
        (error_body("InvalidKeyMaterial"), 302, Reason.KMS_RESPONSE_INVALID),
        ({"Message": "no code"}, 400, Reason.KMS_RESPONSE_INVALID),
        ({"Code": 5}, 400, Reason.KMS_RESPONSE_INVALID),
        (b"<html>", 404, Reason.KMS_RESPONSE_INVALID),
        (b"<html>", 502, Reason.KMS_UNAVAILABLE),
        ({}, 503, Reason.KMS_UNAVAILABLE),
    ],
    ids=brief,
)
def test_reply_that_is_not_the_kmss_is_unreadable_and_proves_nothing(body: object, status: int, reason: Reason) -> None:
    error = refused(lambda: replies.read_body(reply(body, status=status)))
    assert (error.reason, error.kms_code, error.committed_nothing) == (reason, "unreadable", False)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("1500", 1.5),
        ("999999999", 60.0),
        ("0", 1.0),
        ("-5", 1.0),
        ("1.5", 1.0),
        ("soon", 1.0),
        ("9" * 5000, 1.0),
        ("\u0661", 1.0),
        ("", 1.0),
    ],
)
def test_retry_after_is_the_header_or_one_second(header: str, seconds: float) -> None:
    throttled = reply(error_body("Rejected.Throttling"), status=429, x_acs_retry_after=header)
    assert refused(lambda: replies.read_body(throttled)).retry_after_seconds == seconds

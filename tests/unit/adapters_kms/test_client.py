"""What each operation sends, what it makes of the reply, and what never leaves the adapter."""

import base64
import json
import logging
import re
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest

from keybroker.adapters.kms.client import KmsClient
from keybroker.adapters.kms.credentials import Credentials
from keybroker.domain.errors import BrokerError, KmsError, Reason
from keybroker.domain.external_key import NewKey
from keybroker.domain.key_spec import AES_192
from keybroker.domain.wrapping import RSAES_OAEP_SHA_256, RSAES_PKCS1_V1_5
from tests.unit.adapters_kms.support import (
    ARN,
    CMK,
    KEY_ID,
    REQUEST_ID,
    Script,
    ScriptedServer,
    client,
    credentials,
    deadline,
    error_body,
    falls_silent,
    key_body,
    replies,
    sends,
    serving,
)

pytestmark = pytest.mark.usefixtures("loopback")

CANARY = "canary7Jx2Qp9"
SILENCE = falls_silent()
DONE = {"RequestId": REQUEST_ID}
PARAMETERS = {
    "KeyId": KEY_ID,
    "PublicKey": "QUFB",
    "ImportToken": "token",
    "TokenExpireTime": "2018-01-25T00:01:02Z",
    "RequestId": REQUEST_ID,
}

OPERATIONS: dict[str, tuple[Callable[[KmsClient], object], object, dict[str, str]]] = {
    "DescribeKey": (lambda kms: kms.describe_key(KEY_ID, deadline=deadline()), key_body(), {"KeyId": KEY_ID}),
    "CreateKey": (
        lambda kms: kms.create_key(
            NewKey(AES_192, description="für a*b~c + d", alias="alias/x", tags={"a b": "ü", "k": ""}),
            deadline=deadline(),
        ),
        key_body(KeySpec="Aliyun_AES_192"),
        {
            "Origin": "EXTERNAL",
            "KeySpec": "Aliyun_AES_192",
            "DKMSInstanceId": "kst-example",
            "Description": "für a*b~c + d",
            "Tags": '[{"TagKey":"a b","TagValue":"ü"},{"TagKey":"k","TagValue":""}]',
        },
    ),
    "CreateAlias": (
        lambda kms: kms.create_alias(KEY_ID, "alias/x", deadline=deadline()),
        DONE,
        {"KeyId": KEY_ID, "AliasName": "alias/x"},
    ),
    "GetParametersForImport": (
        lambda kms: kms.get_parameters_for_import(CMK, RSAES_OAEP_SHA_256, deadline=deadline()),
        PARAMETERS,
        {"KeyId": KEY_ID, "WrappingKeySpec": "RSA_2048", "WrappingAlgorithm": "RSAES_OAEP_SHA_256"},
    ),
    "ImportKeyMaterial": (
        lambda kms: kms.import_key_material(
            CMK, wrapped_key_material=b"\xfb\xff" * 128, import_token="a+b/c==", deadline=deadline()
        ),
        DONE,
        {
            "KeyId": KEY_ID,
            "EncryptedKeyMaterial": base64.b64encode(b"\xfb\xff" * 128).decode(),
            "ImportToken": "a+b/c==",
            "KeyMaterialExpireUnix": "0",
        },
    ),
    "ScheduleKeyDeletion": (
        lambda kms: kms.schedule_key_deletion(KEY_ID, pending_window_days=7, deadline=deadline()),
        DONE,
        {"KeyId": KEY_ID, "PendingWindowInDays": "7"},
    ),
    "CancelKeyDeletion": (
        lambda kms: kms.cancel_key_deletion(KEY_ID, deadline=deadline()),
        DONE,
        {"KeyId": KEY_ID},
    ),
    "ListKeys": (
        lambda kms: kms.list_keys(tag_key="a b", tag_value="ü", pending_import_only=True, page=3, deadline=deadline()),
        {"Keys": {"Key": []}, "TotalCount": 0, "PageNumber": 3, "PageSize": 100, "RequestId": REQUEST_ID},
        {
            "Filters": '[{"Key":"TagKey","Values":["a b"]},{"Key":"TagValue","Values":["ü"]},'
            '{"Key":"KeyState","Values":["PendingImport"]}]',
            "PageNumber": "3",
            "PageSize": "100",
        },
    ),
    "ListResourceTags": (
        lambda kms: kms.list_resource_tags(KEY_ID, deadline=deadline()),
        {"Tags": {"Tag": []}, "RequestId": REQUEST_ID},
        {"KeyId": KEY_ID},
    ),
    "Encrypt": (
        lambda kms: kms.encrypt(KEY_ID, b"\xfb\xff", deadline=deadline()),
        {"KeyId": KEY_ID, "KeyVersionId": "v", "CiphertextBlob": "QUFB", "RequestId": REQUEST_ID},
        {"KeyId": KEY_ID, "Plaintext": "+/8="},
    ),
}


def call(operation: str, kms: KmsClient) -> object:
    return OPERATIONS[operation][0](kms)


def header(request: bytes, name: str) -> str:
    found = re.search(rf"^{name}: (.*)\r$", request.decode(), re.MULTILINE | re.IGNORECASE)
    return found[1] if found else ""


@pytest.mark.parametrize("operation", OPERATIONS)
def test_operation_is_one_post_with_all_parameters_in_the_query(operation: str) -> None:
    _, body, parameters = OPERATIONS[operation]
    with serving(replies(body)) as server, client(server.address) as kms:
        call(operation, kms)
        [request] = server.requests
    method, target, _ = request.decode().split("\r\n")[0].split(" ")
    assert method == "POST"
    assert {name: value for name, [value] in parse_qs(urlsplit(target).query, keep_blank_values=True).items()} == (
        parameters
    )
    assert "+" not in target
    assert header(request, "x-acs-action") == operation
    assert header(request, "host") == server.address
    assert header(request, "content-length") == "0"
    assert header(request, "content-type") == ""


@pytest.mark.parametrize("operation", OPERATIONS)
def test_operation_answered_by_nothing_but_a_request_id_or_less_is_not_read_as_more(operation: str) -> None:
    with serving(replies({})) as server, client(server.address) as kms, pytest.raises(KmsError) as caught:
        call(operation, kms)
    assert (caught.value.reason, caught.value.committed_nothing) == (Reason.KMS_RESPONSE_INVALID, False)
    assert len(server.requests) == 1


def test_list_keys_without_extras_filters_by_the_tag_key_alone() -> None:
    body = OPERATIONS["ListKeys"][1]
    assert isinstance(body, dict)
    with serving(replies(body | {"PageNumber": 1})) as server, client(server.address) as kms:
        kms.list_keys(tag_key="t", deadline=deadline())
        target = server.requests[0].decode().split(" ")[1]
    assert parse_qs(urlsplit(target).query)["Filters"] == ['[{"Key":"TagKey","Values":["t"]}]']


@pytest.mark.parametrize(
    ("headers", "as_of"),
    [
        ({"Date": "Sun, 06 Nov 1994 08:49:37 GMT"}, datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)),
        ({}, None),
        ({"Date": "soon"}, None),
    ],
    ids=str,
)
def test_description_is_as_of_the_replys_date(headers: dict[str, str], as_of: datetime | None) -> None:
    script = replies(key_body(), headers=headers)
    with serving(script, keep_alive=True) as server, client(server.address) as kms:
        assert kms.describe_key(KEY_ID, deadline=deadline()).as_of == as_of
        assert kms.create_key(NewKey(AES_192), deadline=deadline())[0].as_of == as_of


def test_create_key_without_extras_sends_none() -> None:
    with serving(replies(key_body())) as server, client(server.address) as kms:
        key, reply = kms.create_key(NewKey(AES_192), deadline=deadline())
        assert key.name == CMK
        assert reply.request_id == REQUEST_ID
        assert b"Description" not in server.requests[0]
        assert b"Tags" not in server.requests[0]


NO_SUCCESS: dict[str, tuple[object, str]] = {
    "no request id": (key_body() | {"RequestId": ""}, KEY_ID),
    "ARN of another region": (key_body(Arn=ARN.replace("hangzhou", "beijing")), KEY_ID),
    "ARN of another CMK": (key_body(Arn=f"{ARN}0"), KEY_ID),
    "no state": (key_body(KeyState=None), KEY_ID),
    "date unreadable": (key_body(CreationDate="yesterday"), KEY_ID),
    "no key id": (key_body(KeyId=None), ""),
    "key id malformed": (key_body(KeyId="a text of the KMS"), ""),
    "key id too long": (key_body(KeyId="k" * 129), ""),
    "key id no text": (key_body(KeyId=7), ""),
    "no metadata": (DONE, ""),
    "metadata no object": (DONE | {"KeyMetadata": [KEY_ID]}, ""),
}


@pytest.mark.parametrize(("body", "created_key_id"), NO_SUCCESS.values(), ids=NO_SUCCESS)
def test_create_key_reply_that_is_no_success_names_the_cmk_if_it_can(body: object, created_key_id: str) -> None:
    with serving(replies(body)) as server, client(server.address) as kms, pytest.raises(KmsError) as caught:
        kms.create_key(NewKey(AES_192), deadline=deadline())
    assert (caught.value.reason, caught.value.committed_nothing) == (Reason.KMS_RESPONSE_INVALID, False)
    assert caught.value.metadata.get("created_key_id", "") == created_key_id


@pytest.mark.parametrize("asked", [KEY_ID, ARN, "alias/x", "acs:kms:cn-hangzhou:1540355698840000:alias/x"])
def test_describe_key_by_any_name_gives_the_cmk(asked: str) -> None:
    with serving(replies(key_body())) as server, client(server.address) as kms:
        assert kms.describe_key(asked, deadline=deadline()).name == CMK


@pytest.mark.parametrize("asked", ["key-other", ARN.replace("1540355698840000", "999")])
def test_describe_key_of_another_cmk_is_refused(asked: str) -> None:
    with serving(replies(key_body())) as server, client(server.address) as kms, pytest.raises(KmsError) as caught:
        kms.describe_key(asked, deadline=deadline())
    assert caught.value.reason is Reason.KMS_RESPONSE_INVALID


def test_import_parameters_of_another_cmk_are_refused() -> None:
    body = PARAMETERS | {"KeyId": "key-other"}
    with serving(replies(body)) as server, client(server.address) as kms, pytest.raises(KmsError) as caught:
        kms.get_parameters_for_import(CMK, RSAES_PKCS1_V1_5, deadline=deadline())
    assert caught.value.reason is Reason.KMS_RESPONSE_INVALID


def test_credentials_are_asked_for_every_request() -> None:
    keys = iter([Credentials("first", "s1"), Credentials("second", "s2", "sts-token")])
    with (
        serving(replies(key_body()), keep_alive=True) as server,
        client(server.address, credentials=lambda: next(keys)) as kms,
    ):
        kms.describe_key(KEY_ID, deadline=deadline())
        kms.describe_key(KEY_ID, deadline=deadline())
    first, second = server.requests
    assert "Credential=first," in header(first, "authorization")
    assert header(first, "x-acs-security-token") == ""
    assert "Credential=second," in header(second, "authorization")
    assert header(second, "x-acs-security-token") == "sts-token"
    assert header(second, "x-acs-accesskey-id") == "second"


@pytest.mark.parametrize("error", [FileNotFoundError(CANARY), ValueError(CANARY)])
def test_credentials_that_cannot_be_read_send_nothing(error: Exception) -> None:
    def unreadable() -> Credentials:
        raise error

    with serving(replies(key_body())) as server, client(server.address, credentials=unreadable) as kms:
        with pytest.raises(KmsError) as caught:
            kms.describe_key(KEY_ID, deadline=deadline())
        assert (caught.value.reason, caught.value.committed_nothing) == (Reason.KMS_CREDENTIALS_REJECTED, True)
        assert server.connections == 0
    assert CANARY not in whole_text(caught.value)


def test_two_requests_have_two_nonces() -> None:
    with serving(replies(key_body()), keep_alive=True) as server, client(server.address) as kms:
        for _ in range(2):
            kms.describe_key(KEY_ID, deadline=deadline())
    assert len({header(request, "x-acs-signature-nonce") for request in server.requests}) == 2


OBSERVED: dict[str, tuple[Script, str]] = {
    "success": (replies(key_body()), "OK"),
    "refusal": (replies(error_body("Forbidden.KeyNotFound"), status=404), "Forbidden.KeyNotFound"),
    "unknown code": (replies(error_body("Some.Code"), status=400), "other"),
    "wrong shape": (replies({"KeyMetadata": {}}), "unreadable"),
    "no answer": (SILENCE, "timeout"),
    "broken": (sends(b""), "connection"),
    "emulator": (replies(key_body(), headers={"x-kms-emulator": "1"}), "other"),
}


@pytest.mark.parametrize(("script", "code"), OBSERVED.values(), ids=OBSERVED)
def test_observer_is_told_once_of_every_request(script: Script, code: str) -> None:
    told: list[tuple[str, str, float]] = []

    def observe(operation: str, code: str, seconds: float) -> None:
        told.append((operation, code, seconds))

    patience = patience_with(script)
    with serving(script) as server, client(server.address, observe=observe, read_timeout_seconds=patience) as kms:
        try:
            kms.describe_key(KEY_ID, deadline=deadline())
        except KmsError as error:
            assert error.kms_code == code  # noqa: PT017  # both ways are tested
    [(operation, observed, seconds)] = told
    assert (operation, observed) == ("DescribeKey", code)
    assert 0 < seconds < 5


def patience_with(script: Script | None) -> float:
    return 0.2 if script is SILENCE else 10.0


def test_observer_is_not_told_of_what_was_not_sent() -> None:
    told: list[str] = []
    observing = client("127.0.0.1:9", observe=lambda operation, *_: told.append(operation))
    with observing as kms, pytest.raises(BrokerError):
        kms.describe_key(KEY_ID, deadline=deadline(0))
    assert told == []


def test_properties_are_the_settings() -> None:
    with client("127.0.0.1:9", name="second", dkms_instance_id="kst-2") as kms:
        assert (kms.name, kms.region, kms.dkms_instance_id) == ("second", "cn-hangzhou", "kst-2")


def whole_text(error: BaseException) -> str:
    """All that a logger could print of an error, the exceptions behind it too."""
    seen: list[str] = []
    behind: BaseException | None = error
    while behind is not None:
        seen += [repr(behind), str(behind), json.dumps(vars(behind), default=str), *traceback.format_exception(behind)]
        behind = behind.__cause__ or behind.__context__
    return "\n".join(seen)


@pytest.fixture
def all_logs() -> Iterator[list[str]]:
    """Every record of every logger, at every level."""
    records: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record.getMessage())

    root, collector = logging.getLogger(), Collector()
    level = root.level
    root.addHandler(collector)
    root.setLevel(logging.NOTSET)
    yield records
    root.removeHandler(collector)
    root.setLevel(level)


SILENT: dict[str, Script | None] = {
    "success": replies(DONE),
    "refusal with a text": replies(error_body("InvalidKeyMaterial", message=CANARY), status=400),
    "text in every field": replies({"Code": CANARY, "Message": CANARY, "RequestId": f"<{CANARY}>"}, status=400),
    "text in a 500": replies(CANARY.encode(), status=500),
    "text in a success": replies({"RequestId": [CANARY]}),
    "odd header": sends(f"HTTP/1.1 200 OK\r\n{CANARY} odd\r\nContent-Length: 2\r\n\r\n{{}}".encode()),
    "garbage": sends(f"{CANARY}\r\n\r\n".encode()),
    "no answer": SILENCE,
    "broken": sends(b""),
    "not there": None,
}


@pytest.mark.parametrize("script", SILENT.values(), ids=SILENT)
def test_token_blob_credentials_and_the_kmss_texts_stay_inside(script: Script | None, all_logs: list[str]) -> None:
    blob = f"{CANARY}blob".encode()

    def do_import(kms: KmsClient) -> None:
        kms.import_key_material(CMK, wrapped_key_material=blob, import_token=f"{CANARY}token", deadline=deadline())

    secret = credentials(access_key_secret=f"{CANARY}secret", security_token=f"{CANARY}sts")
    with serving(script or sends(b"")) as server:
        endpoint = server.address if script else "127.0.0.1:9"
        with client(endpoint, credentials=lambda: secret, read_timeout_seconds=patience_with(script)) as kms:
            error = outcome(do_import, kms)
            texts = [whole_text(error) if error else "", repr(kms), *all_logs]
    assert_sent(server, sent=script is not None)
    for planted in (CANARY, base64.b64encode(blob).decode()):
        assert all(planted not in text for text in texts)


def outcome(do: Callable[[KmsClient], None], kms: KmsClient) -> KmsError | None:
    try:
        do(kms)
    except KmsError as error:
        return error
    return None


def assert_sent(server: ScriptedServer, *, sent: bool) -> None:
    """The canaries were really on the wire."""
    assert [CANARY.encode() in request for request in server.requests] == [True] * sent

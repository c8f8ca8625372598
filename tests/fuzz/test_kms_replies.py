"""Any reply to any operation of the KMS client: what the KMS said, or a KmsError that tells no more than is known."""

import json
import time
import traceback
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
from hypothesis import example, given

from keybroker.adapters.clock import SystemClock
from keybroker.adapters.kms.client import KmsClient
from keybroker.adapters.kms.credentials import Credentials
from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import KmsError, Reason
from keybroker.domain.external_key import NewKey
from keybroker.domain.key_spec import AES_256
from keybroker.domain.wrapping import RSAES_OAEP_SHA_256
from tests.certificates import Authority
from tests.fuzz.examples import MARK, fuzzed
from tests.fuzz.judging import IDS, KMS_CODES, judge_text
from tests.fuzz.replies import ODD_BODIES, Made, any_reply, proves_it, reply
from tests.unit.adapters_kms.support import CMK, KEY_ID, REGION, REQUEST_ID, ScriptedServer, key_body, sends, serving

Call = Callable[[KmsClient, Deadline], object]
CHANGED = {"RequestId": REQUEST_ID}

OPERATIONS: dict[str, tuple[Call, dict[str, Any]]] = {
    "CreateKey": (lambda kms, end: kms.create_key(NewKey(AES_256, tags={"t": "1"}), deadline=end), key_body()),
    "CreateAlias": (lambda kms, end: kms.create_alias(KEY_ID, "alias/a", deadline=end), CHANGED),
    "DescribeKey": (lambda kms, end: kms.describe_key(KEY_ID, deadline=end), key_body()),
    "GetParametersForImport": (
        lambda kms, end: kms.get_parameters_for_import(CMK, RSAES_OAEP_SHA_256, deadline=end),
        CHANGED
        | {"KeyId": KEY_ID, "PublicKey": "QUJD", "ImportToken": "QUJD", "TokenExpireTime": "2027-01-01T00:00:00Z"},
    ),
    "ImportKeyMaterial": (
        lambda kms, end: kms.import_key_material(CMK, wrapped_key_material=bytes(256), import_token="t", deadline=end),
        CHANGED,
    ),
    "ScheduleKeyDeletion": (
        lambda kms, end: kms.schedule_key_deletion(KEY_ID, pending_window_days=7, deadline=end),
        CHANGED,
    ),
    "CancelKeyDeletion": (lambda kms, end: kms.cancel_key_deletion(KEY_ID, deadline=end), CHANGED),
    "ListKeys": (
        lambda kms, end: kms.list_keys(tag_key="t", deadline=end),
        CHANGED | {"Keys": {"Key": [{"KeyId": KEY_ID}]}, "TotalCount": 1, "PageNumber": 1, "PageSize": 100},
    ),
    "ListResourceTags": (
        lambda kms, end: kms.list_resource_tags(KEY_ID, deadline=end),
        CHANGED | {"Tags": {"Tag": [{"KeyId": KEY_ID, "TagKey": "t", "TagValue": "1"}]}},
    ),
    "Encrypt": (
        lambda kms, end: kms.encrypt(KEY_ID, b"nonce", deadline=end),
        CHANGED | {"KeyId": KEY_ID, "CiphertextBlob": "QUJD"},
    ),
}


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with serving(sends(b"")) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: ScriptedServer, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], KmsClient]:
    bundle = tmp_path_factory.mktemp("trust") / "ca.crt"
    bundle.write_bytes(Authority().pem)  # the system's takes long to read

    def make() -> KmsClient:
        return KmsClient(
            name="main",
            region=REGION,
            endpoint=f"http://{server.address}",
            dkms_instance_id="kst-example",
            credentials=lambda: Credentials("LTAIexample", "secret"),
            clock=SystemClock(),
            ca_bundle=bundle,
        )

    return make


def test_every_operation_of_the_client_is_fuzzed() -> None:
    names = {"".join(map(str.title, name.split("_"))) for name in vars(KmsClient) if not name.startswith("_")}
    assert names - set(OPERATIONS) == {"Name", "Region", "DkmsInstanceId", "Close", "Now"}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_good_reply_is_read(server: ScriptedServer, client: Callable[[], KmsClient], operation: str) -> None:
    call, body = OPERATIONS[operation]
    assert asked(server, client, call, body, Made(good(body), 200)) is None


@pytest.mark.parametrize("operation", OPERATIONS)
def test_odd_body_is_an_error_that_tells_what_is_known(
    server: ScriptedServer, client: Callable[[], KmsClient], operation: str
) -> None:
    call, body = OPERATIONS[operation]
    for odd, status in product(ODD_BODIES, (200, 400, 500)):
        made = Made(reply(status, {}, odd), status)
        error = asked(server, client, call, body, made)
        assert error is not None
        assert not error.committed_nothing
        judge(error, made, creates=operation == "CreateKey")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_any_reply_is_read_or_an_error_that_tells_what_is_known(
    server: ScriptedServer, client: Callable[[], KmsClient], operation: str
) -> None:
    call, body = OPERATIONS[operation]

    @fuzzed()
    @given(made=any_reply(body))
    @example(made=Made(b"", 0))
    @example(made=Made(good(body)[:-3], 200, whole=False))
    def prop(made: Made) -> None:
        error = asked(server, client, call, body, made)
        if error is None:
            assert (made.status, made.code) == (200, None)
            return
        judge(error, made, creates=operation == "CreateKey")

    prop()


def good(body: object) -> bytes:
    return reply(200, {}, json.dumps(body).encode())


def asked(
    server: ScriptedServer, client: Callable[[], KmsClient], call: Call, body: object, made: Made
) -> KmsError | None:
    """The error that the operation raises at this reply; None if it takes it."""
    server.script = sends(made.sent)
    kms = client()
    sent = len(server.requests)
    try:
        call(kms, Deadline.after(5, monotonic=time.monotonic))
    except KmsError as error:
        return error
    finally:
        kms.close()
        assert 1 <= len(server.requests) - sent <= 2
    return None


def judge(error: KmsError, made: Made, *, creates: bool) -> None:
    assert error.reason in set(Reason) - {Reason.INTERNAL}
    assert error.kms_code in KMS_CODES
    assert error.committed_nothing <= proves_it(made), error
    assert set(error.metadata) <= {"kms_code", "kms_request_id"} | ({"created_key_id"} if creates else set())
    for name, form in IDS.items():
        assert form.fullmatch(error.metadata.get(name, "x"))
    judge_text(error.message)
    told = "".join(traceback.format_exception(error))
    assert MARK not in told.replace(error.kms_request_id or " ", "")
    assert error.retry_after_seconds is None or 0 < error.retry_after_seconds <= 60

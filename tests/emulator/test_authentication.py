"""Who may ask: contract sections 3.3 and 3.4."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from kms_emulator import AccessKey, Emulator, EmulatorSettings
from kms_emulator.wire import HttpRequest
from tests.emulator.client import Client, in_process

PLAIN = AccessKey("LTAIplain", "plain-secret")
STS = AccessKey("STS.one", "sts-secret", "the-token")
DISABLED = AccessKey("LTAIdisabled", "secret", disabled=True)
EXPIRED = AccessKey("STS.old", "secret", "old-token", expires_at=datetime(2020, 1, 1, tzinfo=UTC))
SHARED_NONCE = "0123456789abcdef"


@pytest.fixture
def emulator() -> Emulator:
    return Emulator(EmulatorSettings(access_keys=(PLAIN, STS, DISABLED, EXPIRED)))


def list_keys(client: Client, **overrides: object) -> HttpRequest:
    return client.request("ListKeys", {}, **overrides)


def edited(request: HttpRequest, **changes: str | None) -> HttpRequest:
    headers = dict(request.headers)
    for name, value in changes.items():
        headers.pop(name.replace("_", "-"), None)
        if value is not None:
            headers[name.replace("_", "-")] = value
    return replace(request, headers=headers)


def dated(client: Client, minutes: float) -> HttpRequest:
    return list_keys(client, now=client.emulator.clock.now() + timedelta(minutes=minutes))


def without_signed_nonce(client: Client) -> HttpRequest:
    return list_keys(client, extra_headers={"x-acs-signature-nonce": ""})


def unlisted_host(client: Client) -> HttpRequest:
    request = list_keys(client)
    return edited(request, authorization=request.headers["authorization"].replace("=host;", "="))


Case = Callable[[Client], HttpRequest]
REFUSED: dict[str, tuple[Case, int, str]] = {
    "no Authorization": (lambda c: edited(list_keys(c), authorization=None), 400, "IncompleteSignature"),
    "v4 Authorization": (
        lambda c: edited(list_keys(c), authorization="ACS4-HMAC-SHA256 x"),
        400,
        "IncompleteSignature",
    ),
    "unlisted x-acs header": (lambda c: edited(list_keys(c), x_acs_extra="1"), 400, "IncompleteSignature"),
    "unlisted content-type": (lambda c: edited(list_keys(c), content_type="text/plain"), 400, "IncompleteSignature"),
    "unlisted host": (unlisted_host, 400, "IncompleteSignature"),
    "unknown access key": (
        lambda c: list_keys(c, access_key=AccessKey("LTAInobody", "x")),
        404,
        "InvalidAccessKeyId.NotFound",
    ),
    "disabled access key": (lambda c: list_keys(c, access_key=DISABLED), 403, "Forbidden.AccessKeyDisabled"),
    "no date": (lambda c: edited(list_keys(c), x_acs_date=None), 400, "MissingParameter"),
    "local time": (lambda c: list_keys(c, date="2026-01-02 03:04:05"), 400, "IllegalTimestamp"),
    "16 minutes late": (lambda c: dated(c, -16), 400, "InvalidTimeStamp.Expired"),
    "16 minutes early": (lambda c: dated(c, 16), 400, "InvalidTimeStamp.Expired"),
    "wrong secret": (
        lambda c: list_keys(c, access_key=replace(PLAIN, access_key_secret="no")),
        400,
        "SignatureDoesNotMatch",
    ),
    "signed hash of another body": (
        lambda c: list_keys(c, extra_headers={"x-acs-content-sha256": "0" * 64}),
        400,
        "SignatureDoesNotMatch",
    ),
    "no nonce": (without_signed_nonce, 400, "MissingParameter"),
    "STS without token": (
        lambda c: list_keys(c, access_key=replace(STS, security_token="")),
        400,
        "MissingSecurityToken",
    ),
    "STS with another token": (
        lambda c: list_keys(c, access_key=replace(STS, security_token="other")),
        400,
        "InvalidSecurityToken.Malformed",
    ),
    "token without STS": (
        lambda c: list_keys(c, access_key=replace(PLAIN, security_token="any")),
        400,
        "InvalidSecurityToken.MismatchWithAccessKey",
    ),
    "STS expired": (lambda c: list_keys(c, access_key=EXPIRED), 400, "InvalidSecurityToken.Expired"),
}


@pytest.mark.parametrize(("make", "status", "code"), REFUSED.values(), ids=REFUSED)
def test_request_that_cannot_be_believed_is_refused(client: Client, make: Case, status: int, code: str) -> None:
    answer = client.send(make(client))
    assert (answer.status, answer.code) == (status, code)


ACCEPTED: dict[str, Case] = {
    "14 minutes late": lambda c: dated(c, -14),
    "14 minutes early": lambda c: dated(c, 14),
    "STS with its token": lambda c: list_keys(c, access_key=STS),
    "unsigned user-agent": lambda c: edited(list_keys(c), user_agent="curl"),
    "GET": lambda c: list_keys(c, method="GET"),
    "signed extra header": lambda c: list_keys(c, extra_headers={"x-acs-credentials-provider": "static_ak"}),
}


@pytest.mark.parametrize("make", ACCEPTED.values(), ids=ACCEPTED)
def test_request_that_can_be_believed_is_served(client: Client, make: Case) -> None:
    assert client.send(make(client)).status == 200


def test_nonce_seen_before_is_refused_and_the_operation_not_performed(client: Client, emulator: Emulator) -> None:
    key_id = emulator.create_key(state="Enabled")
    request = client.request("DisableKey", {"KeyId": key_id})
    assert client.send(request).status == 200
    emulator.set_state(key_id, "Enabled")
    assert client.send(request).code == "SignatureNonceUsed"
    assert emulator.key_state(key_id) == "Enabled"


def test_nonce_with_a_bad_signature_is_not_used_up(client: Client) -> None:
    wrong = replace(PLAIN, access_key_secret="wrong")
    assert client.send(list_keys(client, access_key=wrong, nonce=SHARED_NONCE)).code == "SignatureDoesNotMatch"
    assert client.send(list_keys(client, nonce=SHARED_NONCE)).status == 200


def test_nonce_of_another_access_key_is_another_nonce(client: Client) -> None:
    assert client.send(list_keys(client, nonce=SHARED_NONCE)).status == 200
    assert client.send(list_keys(client, nonce=SHARED_NONCE, access_key=STS)).status == 200


def test_nonce_after_thirty_minutes_is_forgotten(client: Client, emulator: Emulator) -> None:
    assert client.send(list_keys(client, nonce=SHARED_NONCE)).status == 200
    emulator.clock.advance(30 * 60 - 2)
    assert client.send(list_keys(client, nonce=SHARED_NONCE)).code == "SignatureNonceUsed"
    emulator.clock.advance(4)
    assert client.send(list_keys(client, nonce=SHARED_NONCE)).status == 200


def test_moved_clock_makes_a_fresh_request_look_old(emulator: Emulator) -> None:
    client = in_process(emulator)
    request = list_keys(client)
    emulator.clock.advance(16 * 60)
    assert client.send(request).code == "InvalidTimeStamp.Expired"


def test_signature_mismatch_message_shows_what_the_server_signed(client: Client) -> None:
    answer = client.send(list_keys(client, access_key=replace(PLAIN, access_key_secret="no")))
    assert "server StringToSign is [ACS3-HMAC-SHA256\n" in answer.body["Message"]
    assert "server CanonicalRequest is [POST\n/\n" in answer.body["Message"]

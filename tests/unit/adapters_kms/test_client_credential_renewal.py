"""Credentials that the KMS refuses: others are asked for once, and the request is sent once more at most.

CreateKey and ImportKeyMaterial are not: each of their sends is recorded before it leaves.
"""

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from keybroker.adapters.kms.client import KmsClient
from keybroker.adapters.kms.credentials import Credentials, CredentialsError
from keybroker.adapters.kms.error_table import ERROR_TABLE, STALE_CREDENTIALS_CODES
from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import BrokerError, KmsError, Reason
from keybroker.domain.external_key import NewKey
from keybroker.domain.key_spec import AES_256
from tests.builders import FakeClock
from tests.unit.adapters_kms.support import (
    CMK,
    KEY_ID,
    REQUEST_ID,
    ScriptedServer,
    client,
    deadline,
    error_body,
    key_body,
    replies,
    reply_bytes,
    sends,
    serving,
)

pytestmark = pytest.mark.usefixtures("loopback")

OLD, NEW = Credentials("STS.old", "secret-1", "token-1"), Credentials("STS.new", "secret-2", "token-2")
DONE = {"RequestId": REQUEST_ID}
STALE = sorted(STALE_CREDENTIALS_CODES)


class FakeSource:
    """Gives OLD until it is renewed; `renewals` counts."""

    def __init__(self, *, renewed: Credentials = NEW, failure: Exception | None = None) -> None:
        self._current = OLD
        self._renewed = renewed
        self.failure = failure
        self.renewals: list[Credentials] = []

    def __call__(self, *, deadline: Deadline | None = None) -> Credentials:
        if self.failure is not None:
            raise self.failure
        return self._current

    def renewed(self, refused: Credentials, *, deadline: Deadline) -> Credentials:
        self.renewals.append(refused)
        self._current = self._renewed
        return self._renewed


def refused(code: str) -> bytes:
    return reply_bytes(error_body(code), status=404 if code.startswith("InvalidAccessKeyId") else 400)


@contextmanager
def answering(*answers: bytes) -> Iterator[ScriptedServer]:
    """A KMS that gives these answers in this order, and no other. For an empty one it closes the connection."""
    left = list(answers)

    def script(connection: socket.socket) -> None:
        answer = left.pop(0)
        if not answer:
            raise ConnectionError
        connection.sendall(answer)

    with serving(script, keep_alive=True) as server:
        yield server
    assert left == []


def signers(server: ScriptedServer) -> list[str]:
    return [found[1] for request in server.requests if (found := re.search(r"Credential=([^,]+),", request.decode()))]


def import_material(kms: KmsClient) -> object:
    return kms.import_key_material(CMK, wrapped_key_material=b"blob", import_token="token", deadline=deadline())


def schedule_deletion(kms: KmsClient) -> object:
    return kms.schedule_key_deletion(KEY_ID, pending_window_days=7, deadline=deadline())


REPEATED: dict[str, Callable[[KmsClient], object]] = {
    "ScheduleKeyDeletion": schedule_deletion,
    "CreateAlias": lambda kms: kms.create_alias(KEY_ID, "alias/x", deadline=deadline()),
}
SENT_ONCE: dict[str, Callable[[KmsClient], object]] = {
    "ImportKeyMaterial": import_material,
    "CreateKey": lambda kms: kms.create_key(NewKey(AES_256), deadline=deadline()),
}


def failure(call: Callable[[KmsClient], object], kms: KmsClient) -> KmsError:
    with pytest.raises(KmsError) as caught:
        call(kms)
    return caught.value


@pytest.mark.parametrize("operation", REPEATED)
@pytest.mark.parametrize("code", STALE)
def test_change_refused_for_stale_credentials_is_sent_once_more_with_others(code: str, operation: str) -> None:
    source, told = FakeSource(), []
    observe: Any = lambda *what: told.append(what[:2])  # noqa: E731
    with (
        answering(refused(code), reply_bytes(DONE)) as server,
        client(server.address, credentials=source, observe=observe) as kms,
    ):
        REPEATED[operation](kms)
    assert signers(server) == ["STS.old", "STS.new"]
    assert source.renewals == [OLD]
    assert told == [(operation, code), (operation, "OK")]


def test_what_is_sent_once_more_is_the_same_with_a_nonce_and_signature_of_its_own() -> None:
    with (
        answering(refused(STALE[0]), reply_bytes(DONE)) as server,
        client(server.address, credentials=FakeSource()) as kms,
    ):
        schedule_deletion(kms)
    first, second = (request.decode() for request in server.requests)
    assert first.splitlines()[0] == second.splitlines()[0]
    assert f"KeyId={KEY_ID}" in first
    nonces = re.findall(r"x-acs-signature-nonce: (\w+)", first + second)
    assert len(set(nonces)) == 2
    assert "x-acs-security-token: token-2" in second


@pytest.mark.parametrize("code", STALE)
def test_second_refusal_is_told_and_nothing_is_sent_a_third_time(code: str) -> None:
    source = FakeSource()
    with answering(refused(code), refused(code)) as server, client(server.address, credentials=source) as kms:
        error = failure(schedule_deletion, kms)
    assert (error.reason, error.committed_nothing) == (Reason.KMS_CREDENTIALS_REJECTED, True)
    assert len(server.requests) == 2
    assert len(source.renewals) == 1


def test_second_sending_without_an_answer_is_ambiguous() -> None:
    with answering(refused(STALE[0]), b"") as server, client(server.address, credentials=FakeSource()) as kms:
        assert not failure(schedule_deletion, kms).committed_nothing
    assert len(server.requests) == 2


@pytest.mark.parametrize("operation", SENT_ONCE)
@pytest.mark.parametrize("code", STALE)
def test_import_and_creation_are_told_of_the_refusal_and_the_next_call_has_others(code: str, operation: str) -> None:
    source = FakeSource()
    with (
        answering(refused(code), reply_bytes(key_body())) as server,
        client(server.address, credentials=source) as kms,
    ):
        error = failure(SENT_ONCE[operation], kms)
        assert (error.kms_code, error.committed_nothing) == (code, True)
        assert signers(server) == ["STS.old"]
        SENT_ONCE[operation](kms)
    assert signers(server) == ["STS.old", "STS.new"]
    assert source.renewals == [OLD]


@pytest.mark.parametrize("code", sorted(set(ERROR_TABLE) - STALE_CREDENTIALS_CODES))  # no Date: no other date either
def test_other_refusal_is_sent_once(code: str) -> None:
    source = FakeSource()
    status = min(ERROR_TABLE[code].statuses)
    answer = replies(error_body(code), status=status)
    with serving(answer) as server, client(server.address, credentials=source) as kms:
        failure(schedule_deletion, kms)
    assert (len(server.requests), source.renewals) == (1, [])


UNPROVED = {
    "stale code with a 500": replies(error_body(STALE[0]), status=500),
    "stale code with a 200": replies(error_body(STALE[0]), status=200),
    "unknown code of the family": replies(error_body("InvalidSecurityToken.Whatever"), status=400),
    "no answer": sends(b""),
    "half an answer": sends(refused(STALE[0])[:-20]),
}


@pytest.mark.parametrize("script", UNPROVED.values(), ids=UNPROVED)
def test_what_does_not_prove_that_nothing_was_committed_is_sent_once(script: Any) -> None:
    source = FakeSource()
    with serving(script) as server, client(server.address, credentials=source) as kms:
        assert not failure(schedule_deletion, kms).committed_nothing
    assert (len(server.requests), source.renewals) == (1, [])


def test_without_other_credentials_the_refusal_is_told() -> None:
    source = FakeSource(renewed=OLD)
    with answering(refused(STALE[0])) as server, client(server.address, credentials=source) as kms:
        assert failure(schedule_deletion, kms).reason is Reason.KMS_CREDENTIALS_REJECTED
    assert len(server.requests) == 1


def test_renewal_that_leaves_no_time_is_the_refusal_and_no_more() -> None:
    clock = FakeClock()

    class Slow(FakeSource):
        def renewed(self, refused: Credentials, *, deadline: Deadline) -> Credentials:
            clock.advance(deadline.remaining_seconds())
            return NEW

    with answering(refused(STALE[0])) as server, client(server.address, credentials=Slow()) as kms:
        end = Deadline.after(20.0, monotonic=clock.monotonic)
        error = failure(lambda kms: kms.describe_key(KEY_ID, deadline=end), kms)
    assert error.kms_code == STALE[0]
    assert len(server.requests) == 1


def test_function_is_asked_again_after_a_refusal() -> None:
    """As for files that were replaced between reading and sending."""
    current = [OLD]

    def script(connection: socket.socket) -> None:
        answer = reply_bytes(key_body()) if current == [NEW] else refused(STALE[0])
        current[:] = [NEW]  # before the client can know
        connection.sendall(answer)

    with (
        serving(script, keep_alive=True) as server,
        client(server.address, credentials=lambda: current[0]) as kms,
    ):
        kms.describe_key(KEY_ID, deadline=deadline())
    assert signers(server) == ["STS.old", "STS.new"]


def test_function_that_fails_after_a_refusal_leaves_the_refusal() -> None:
    given = iter([OLD])

    def read() -> Credentials:
        for each in given:
            return each
        raise OSError

    with answering(refused(STALE[0])) as server, client(server.address, credentials=read) as kms:
        assert failure(schedule_deletion, kms).kms_code == STALE[0]
    assert len(server.requests) == 1


def test_without_credentials_nothing_is_sent() -> None:
    source = FakeSource(failure=CredentialsError("timeout"))
    with serving(replies(DONE)) as server, client(server.address, credentials=source) as kms:
        error = failure(import_material, kms)
    assert (error.reason, error.committed_nothing) == (Reason.KMS_CREDENTIALS_REJECTED, True)
    assert (server.requests, error.__context__) == ([], None)


def test_wait_for_credentials_that_outlasts_the_deadline_is_a_deadline_too_short() -> None:
    class Slow(FakeSource):
        def __call__(self, *, deadline: Deadline | None = None) -> Credentials:
            assert deadline is not None
            time.sleep(deadline.remaining_seconds())
            raise CredentialsError("not fetched yet")

    with serving(replies(DONE)) as server, client(server.address, credentials=Slow()) as kms:
        with pytest.raises(BrokerError) as caught:
            kms.describe_key(KEY_ID, deadline=deadline(0.2))
        assert caught.value.reason is Reason.DEADLINE_TOO_SHORT
        assert server.requests == []

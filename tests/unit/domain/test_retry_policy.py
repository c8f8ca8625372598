import pytest

from keybroker.adapters.kms.error_table import ERROR_TABLE, kms_error
from keybroker.adapters.kms.failures import credentials_unreadable, emulator_refused, timed_out, unreadable
from keybroker.adapters.kms.pacer import QUOTA_OF
from keybroker.domain.errors import KmsError, Reason
from keybroker.domain.retry_policy import (
    MAX_WAIT_SECONDS,
    ONE_CALL,
    RECORDED,
    Happened,
    may_repeat,
    may_send_again,
    wait_seconds,
    what_happened,
)

READS = {"DescribeKey", "ListKeys", "ListResourceTags", "Encrypt", "GetParametersForImport"}
CHANGES = {"CreateAlias", "ScheduleKeyDeletion", "CancelKeyDeletion"}
RECORDED_ONLY = {"ImportKeyMaterial", "CreateKey"}


def connection(*, committed_nothing: bool) -> KmsError:
    return KmsError(Reason.KMS_UNAVAILABLE, "", kms_code="connection", committed_nothing=committed_nothing)


ERRORS: dict[Happened, KmsError] = {
    Happened.THROTTLED: kms_error("Rejected.Throttling", 429),
    Happened.NEVER_CONNECTED: connection(committed_nothing=True),
    Happened.CONNECTION_BROKE: connection(committed_nothing=False),
    Happened.TIMED_OUT: timed_out(),
    Happened.SERVER_ERROR: kms_error("ServiceUnavailableTemporary", 503),
    Happened.DELIVERED_TWICE: kms_error("SignatureNonceUsed", 400),
    Happened.UNREADABLE: unreadable("it is not JSON"),
    Happened.FINAL: kms_error("Forbidden.KeyNotFound", 404),
}


@pytest.mark.parametrize("happened", Happened)
def test_error_of_each_kind_is_recognised(happened: Happened) -> None:
    assert what_happened(ERRORS[happened]) is happened


@pytest.mark.parametrize("code", ["Throttling", "Throttling.User", "Throttling.Api", "Rejected.Throttling"])
def test_every_code_of_throttling_is_throttling(code: str) -> None:
    assert what_happened(kms_error(code, 400)) is Happened.THROTTLED


def test_unreadable_server_error_is_unreadable() -> None:
    assert what_happened(unreadable("it is HTML", status=502)) is Happened.UNREADABLE


@pytest.mark.parametrize("error", [credentials_unreadable("OSError"), emulator_refused()], ids=["credentials", "fake"])
def test_request_that_was_not_sent_for_a_lasting_reason_is_final(error: KmsError) -> None:
    assert what_happened(error) is Happened.FINAL


def test_codes_of_the_kms_that_pass_are_these_and_no_others() -> None:
    passing = {code for code in ERROR_TABLE if what_happened(kms_error(code, 400)) is not Happened.FINAL}
    throttling = {"Rejected.Throttling", "Throttling", "Throttling.User", "Throttling.Api"}
    failures = {"InternalFailure", "ServiceUnavailableTemporary", "SerivceUnavailableTemporary"}
    assert throttling | failures | {"SignatureNonceUsed"} <= passing
    assert {ERROR_TABLE[code].reason for code in passing} == {Reason.KMS_THROTTLED, Reason.KMS_UNAVAILABLE}


def test_tables_name_every_operation_that_is_sent() -> None:
    assert set(ONE_CALL) == set(RECORDED) == set(QUOTA_OF) == READS | CHANGES | RECORDED_ONLY


@pytest.mark.parametrize("happened", Happened)
@pytest.mark.parametrize("operation", sorted(READS | CHANGES | RECORDED_ONLY))
def test_one_call_repeats_reads_and_changes_that_did_nothing(operation: str, happened: Happened) -> None:
    nothing_done = happened in {Happened.THROTTLED, Happened.NEVER_CONNECTED}
    passes = happened is not Happened.FINAL
    expected = passes if operation in READS else nothing_done and operation in CHANGES
    assert may_repeat(operation, ERRORS[happened]) is expected


@pytest.mark.parametrize("happened", Happened)
def test_recorded_send_of_the_identical_material_may_follow_whatever_passes(happened: Happened) -> None:
    assert may_send_again("ImportKeyMaterial", ERRORS[happened]) is (happened is not Happened.FINAL)


@pytest.mark.parametrize("happened", Happened)
def test_second_create_key_never_follows_one_that_may_have_made_a_cmk(happened: Happened) -> None:
    error = ERRORS[happened]
    assert may_send_again("CreateKey", error) is (happened in {Happened.THROTTLED, Happened.NEVER_CONNECTED})
    assert error.committed_nothing or not may_send_again("CreateKey", error)


def test_change_is_repeated_only_after_an_error_that_proves_it_did_nothing() -> None:
    for operation in CHANGES:
        for error in ERRORS.values():
            assert error.committed_nothing or not may_repeat(operation, error)


@pytest.mark.parametrize(("attempt", "ceiling"), [(1, 0.1), (2, 0.2), (3, 0.4), (4, 0.8), (9, 2.0), (5000, 2.0)])
def test_wait_is_full_jitter_under_a_doubling_ceiling(attempt: int, ceiling: float) -> None:
    error = timed_out()
    assert wait_seconds(attempt, error, lambda: 0.0) == 0.0
    assert wait_seconds(attempt, error, lambda: 0.5) == pytest.approx(ceiling / 2)
    assert wait_seconds(attempt, error, lambda: 1.0) == pytest.approx(ceiling)
    assert ceiling <= MAX_WAIT_SECONDS


def test_wait_is_never_less_than_the_kms_asks_for_and_not_the_same_for_all() -> None:
    error = kms_error("Throttling", 429, retry_after_seconds=3.0)
    waits = [wait_seconds(1, error, (lambda number=number: number)) for number in (0.0, 0.3, 0.9)]
    assert waits[0] == 3.0
    assert waits == sorted(set(waits))

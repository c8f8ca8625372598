"""Quotas: contract section 5."""

from datetime import UTC, datetime, timedelta

import pytest

from kms_emulator import Emulator, EmulatorSettings, KmsError
from kms_emulator.quotas import Quotas
from tests.emulator.client import Client, in_process

WHOLE_SECOND = datetime(2026, 1, 1, tzinfo=UTC)


def at(milliseconds: float) -> datetime:
    return WHOLE_SECOND + timedelta(milliseconds=milliseconds)


def admitted(quotas: Quotas, quota_class: str, milliseconds: float) -> int:
    """0 when admitted, else the milliseconds to wait."""
    try:
        quotas.admit(quota_class, at(milliseconds))
    except KmsError as error:
        return error.retry_after_ms or -1
    return 0


@pytest.mark.parametrize(
    ("quota_class", "limit"), [("create", 10), ("read", 50), ("write", 30), ("crypto", 1000), ("resource-tags", 300)]
)
@pytest.mark.parametrize("mode", ["fixed", "sliding"])
def test_class_admits_its_limit_and_no_more(mode: str, quota_class: str, limit: int) -> None:
    quotas = Quotas(mode)
    assert [admitted(quotas, quota_class, 0) for _ in range(limit)] == [0] * limit
    assert admitted(quotas, quota_class, 0) == 1000


def test_fixed_window_opens_at_the_whole_second() -> None:
    quotas = Quotas("fixed", {"write": 2})
    assert [admitted(quotas, "write", 900) for _ in range(3)] == [0, 0, 100]
    assert [admitted(quotas, "write", 1000) for _ in range(3)] == [0, 0, 1000]


def test_sliding_window_opens_as_each_request_leaves_it() -> None:
    quotas = Quotas("sliding", {"write": 2})
    assert [admitted(quotas, "write", ms) for ms in (0, 900)] == [0, 0]
    assert admitted(quotas, "write", 950) == 50
    assert admitted(quotas, "write", 1000) == 0
    assert admitted(quotas, "write", 1002) == 898
    assert admitted(quotas, "write", 1900) == 0


def test_refused_request_does_not_count() -> None:
    quotas = Quotas("sliding", {"write": 1})
    assert admitted(quotas, "write", 0) == 0
    for ms in range(100, 1000, 100):
        assert admitted(quotas, "write", ms) > 0
    assert admitted(quotas, "write", 1000) == 0


def test_classes_do_not_share() -> None:
    quotas = Quotas("fixed", {"write": 1, "read": 1})
    assert [admitted(quotas, name, 0) for name in ("write", "read", "create")] == [0, 0, 0]


@pytest.mark.parametrize("mode", ["fixed", "sliding"])
def test_clock_moved_back_does_not_lock_the_class(mode: str) -> None:
    quotas = Quotas(mode, {"write": 1})
    assert admitted(quotas, "write", 10_000) == 0
    assert admitted(quotas, "write", 0) == 0


def test_quotas_off_admit_everything() -> None:
    quotas = Quotas("off", {"write": 1})
    assert [admitted(quotas, "write", 0) for _ in range(100)] == [0] * 100


BAD = {
    "mode": ({"mode": "leaky"}, "quota mode"),
    "class": ({"limits": {"delete": 1}}, "unknown quota class: delete"),
    "limit 0": ({"limits": {"write": 0}}, "limit of write"),
    "limit true": ({"limits": {"write": True}}, "limit of write"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_configure_with_what_does_not_fit_names_it_and_changes_nothing(
    changes: dict[str, object], message: str
) -> None:
    quotas = Quotas("fixed", {"write": 5})
    with pytest.raises(ValueError, match=message):
        quotas.configure(**changes)
    assert (quotas.mode, quotas.limits["write"]) == ("fixed", 5)


@pytest.fixture
def emulator() -> Emulator:
    return Emulator(EmulatorSettings(quota_mode="sliding", quota_limits={"read": 2, "create": 1}))


def test_throttled_request_is_answered_429_with_the_wait(client: Client, emulator: Emulator) -> None:
    key_id = emulator.create_key()
    answers = [client.call("DescribeKey", KeyId=key_id) for _ in range(2)]
    answers.append(client.call("ListKeys"))
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[-1].body["Code"] == "Rejected.Throttling"
    assert answers[-1].body["Message"] == "QPS Limit Exceeded"
    assert 0 < int(answers[-1].headers["x-acs-retry-after"]) <= 1000
    emulator.clock.advance(1)
    assert client.call("DescribeKey", KeyId=key_id).status == 200


def test_throttled_create_key_makes_no_key(client: Client) -> None:
    assert [client.call("CreateKey").status for _ in range(2)] == [200, 429]
    assert client.ok("ListKeys")["TotalCount"] == 1


def test_unauthenticated_request_does_not_use_up_the_quota(client: Client, emulator: Emulator) -> None:
    nobody = in_process(emulator)
    request = nobody.request("ListKeys", {})
    assert client.send(request).status == 200
    assert [client.send(request).code for _ in range(5)] == ["SignatureNonceUsed"] * 5
    assert client.call("ListKeys").status == 200


def test_quotas_can_be_switched_while_running(client: Client, emulator: Emulator) -> None:
    emulator.quotas.configure(mode="off")
    assert [client.call("ListKeys").status for _ in range(5)] == [200] * 5
    emulator.quotas.configure(mode="fixed", limits={"read": 1})
    assert 429 in [client.call("ListKeys").status for _ in range(3)]

"""Credentials by RRSA, ECS RAM role and URI: a broker, an emulator and a double of the endpoint that gives them."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from keybroker.adapters.clock import SystemClock
from keybroker.app import App
from keybroker.background import BackgroundApp
from keybroker.kms_credentials import default_sts_endpoint
from keybroker.settings import ConfigurationError, Settings
from keybroker_client import KeyBrokerClient, KeyBrokerError
from kms_emulator import AccessKey, Emulator, Fault
from tests.integration.conftest import broker_settings
from tests.unit.adapters_kms.credential_doubles import (
    PROVIDER_ARN,
    ROLE_ARN,
    Double,
    double,
    metadata_service,
    reply_json,
    sts_reply,
    success,
)

OIDC_TOKEN = "canary-oidc-token"
VARIABLES = {
    "ALIBABA_CLOUD_ROLE_ARN": ROLE_ARN,
    "ALIBABA_CLOUD_OIDC_PROVIDER_ARN": PROVIDER_ARN,
    "ALIBABA_CLOUD_OIDC_TOKEN_FILE": "",
    "ALIBABA_CLOUD_STS_ENDPOINT": "",
}


def sts_key(number: int, **overrides: Any) -> AccessKey:
    """What the doubles issue under this number, as the KMS knows it."""
    return AccessKey(f"STS.number{number}", f"canary-secret-{number}", f"canary-token-{number}", **overrides)


class WaitingClock(SystemClock):
    """Its monotonic time stands still until it is moved."""

    seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds


@contextmanager
def client_of(settings: Settings) -> Iterator[KeyBrokerClient]:
    with BackgroundApp(App(settings)) as background, KeyBrokerClient(background.grpc_address, retries=0) as client:
        yield client


def settings_for(emulator: Emulator, **credentials: dict[str, str]) -> Settings:
    return broker_settings(emulator, instance={"credentials": credentials})


def failure(call: Callable[[], object]) -> KeyBrokerError:
    with pytest.raises(KeyBrokerError) as caught:
        call()
    return caught.value


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{OIDC_TOKEN}\n")
    return path


@pytest.fixture
def sts() -> Iterator[Double]:
    """Issues number 1, then number 2, and so on."""
    with double(lambda _: sts_reply(len(server.asked))) as server:
        yield server


@pytest.fixture
def rrsa(sts: Double, token_file: Path) -> dict[str, str]:
    return {
        "role_arn": ROLE_ARN,
        "oidc_provider_arn": PROVIDER_ARN,
        "oidc_token_file": str(token_file),
        "sts_endpoint": sts.url,
    }


def test_key_is_imported_with_credentials_of_sts(
    make_emulator: Callable[..., Emulator], sts: Double, rrsa: dict[str, str], logged: list[dict[str, Any]]
) -> None:
    emulator = make_emulator(access_keys=(sts_key(1),))
    keys = [emulator.create_key() for _ in range(3)]
    with client_of(settings_for(emulator, rrsa=rrsa)) as client:
        assert sts.asked == []  # nothing goes out before it is needed
        assert [client.import_external_key(key_id=key).key.key_id for key in keys] == keys
    [asked] = sts.asked
    assert asked.form["OIDCToken"] == OIDC_TOKEN
    assert {"event": "kms_credentials_fetched", "instance": "main"}.items() <= logged[1].items()
    assert "canary" not in repr(logged)


def test_what_acks_webhook_injects_is_enough(
    make_emulator: Callable[..., Emulator], sts: Double, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator = make_emulator(access_keys=(sts_key(1),))
    injected = {"ALIBABA_CLOUD_OIDC_TOKEN_FILE": str(token_file), "ALIBABA_CLOUD_STS_ENDPOINT": sts.url}
    for name, value in (VARIABLES | injected).items():
        monkeypatch.setenv(name, value)
    with client_of(settings_for(emulator, rrsa={})) as client:
        client.import_external_key(key_id=emulator.create_key())
    form = sts.asked[0].form
    assert (form["RoleArn"], form["OIDCProviderArn"], form["OIDCToken"]) == (ROLE_ARN, PROVIDER_ARN, OIDC_TOKEN)


def test_key_is_imported_with_the_ram_role_of_the_instance(make_emulator: Callable[..., Emulator]) -> None:
    emulator = make_emulator(access_keys=(sts_key(1),))
    with (
        double(metadata_service()) as server,
        client_of(settings_for(emulator, ecs_ram_role={"metadata_endpoint": server.url})) as client,
    ):
        client.import_external_key(key_id=emulator.create_key())
    assert [asked.method for asked in server.asked] == ["PUT", "GET", "GET"]


def test_key_is_imported_with_credentials_of_a_uri(make_emulator: Callable[..., Emulator]) -> None:
    emulator = make_emulator(access_keys=(sts_key(1),))
    with (
        double(lambda _: reply_json(success())) as server,
        client_of(settings_for(emulator, uri={"uri": f"{server.url}/credentials"})) as client,
    ):
        client.import_external_key(key_id=emulator.create_key())
    assert len(server.asked) == 1


EXPIRED = {
    "expired": (sts_key(1, expires_at=datetime(2020, 1, 1, tzinfo=UTC)), sts_key(2)),
    "not found": (sts_key(2),),
}


@pytest.mark.parametrize("access_keys", EXPIRED.values(), ids=EXPIRED)
def test_sts_token_that_the_kms_finds_expired_is_replaced_once(
    make_emulator: Callable[..., Emulator], sts: Double, rrsa: dict[str, str], access_keys: tuple[AccessKey, ...]
) -> None:
    emulator = make_emulator(access_keys=access_keys)
    key_id = emulator.create_key()
    with client_of(settings_for(emulator, rrsa=rrsa)) as client:
        client.import_external_key(key_id=key_id)
    assert len(sts.asked) == 2
    assert [status for _, _, status in emulator.call_log] == [400 if len(access_keys) == 2 else 404, 200, 200, 200, 200]
    assert emulator.calls["DescribeKey"] == 3  # one refused, one before the import, one after


def test_import_refused_for_an_expired_token_is_sent_twice_and_accepted(
    make_emulator: Callable[..., Emulator], sts: Double, rrsa: dict[str, str]
) -> None:
    fault = Fault(operation="ImportKeyMaterial", action="error", code="InvalidSecurityToken.Expired", count=1)
    emulator = make_emulator(access_keys=(sts_key(1), sts_key(2)), faults=(fault,))
    with client_of(settings_for(emulator, rrsa=rrsa)) as client:
        client.import_external_key(key_id=emulator.create_key())
    assert (emulator.calls["ImportKeyMaterial"], len(sts.asked)) == (2, 2)


def test_import_that_is_refused_again_is_told_and_sent_no_third_time(
    make_emulator: Callable[..., Emulator], sts: Double, rrsa: dict[str, str]
) -> None:
    fault = Fault(operation="ImportKeyMaterial", action="error", code="InvalidSecurityToken.Expired", count=0)
    emulator = make_emulator(access_keys=tuple(sts_key(number) for number in (1, 2, 3)), faults=(fault,))
    key_id = emulator.create_key()
    with client_of(settings_for(emulator, rrsa=rrsa)) as client:
        assert failure(lambda: client.import_external_key(key_id=key_id)).reason == "KMS_CREDENTIALS_REJECTED"
        assert (emulator.calls["ImportKeyMaterial"], len(sts.asked)) == (2, 2)
        emulator.faults.clear()
        assert client.import_external_key(key_id=key_id).key.key_id == key_id


def test_without_an_answer_of_sts_nothing_is_sent_to_the_kms_until_there_is_one(
    make_emulator: Callable[..., Emulator],
    sts: Double,
    rrsa: dict[str, str],
    logged: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    emulator = make_emulator(access_keys=(sts_key(1),))
    key_id = emulator.create_key()
    sts.answer = lambda _: reply_json({"Code": "EntityNotExist.Role", "Message": OIDC_TOKEN}, status=404)
    clock = WaitingClock()
    monkeypatch.setattr("keybroker.kms_credentials.SystemClock", lambda: clock)
    with client_of(settings_for(emulator, rrsa=rrsa)) as client:
        errors = [failure(lambda: client.import_external_key(key_id=key_id)) for _ in range(3)]
        assert {error.reason for error in errors} == {"KMS_CREDENTIALS_REJECTED"}
        assert (len(sts.asked), sum(emulator.calls.values())) == (1, 0)
        sts.answer = lambda _: sts_reply(1)
        clock.seconds += 1.1  # the first back-off
        client.import_external_key(key_id=key_id)
    [warning] = [entry for entry in logged if entry["event"] == "kms_credentials_not_fetched"]
    assert warning["failure"] == "status 404 EntityNotExist.Role"
    assert all("canary" not in text for text in (repr(logged), *map(repr, errors), *map(str, errors)))


def test_credentials_are_replaced_ahead_of_their_expiry(
    make_emulator: Callable[..., Emulator], sts: Double, rrsa: dict[str, str]
) -> None:
    """Each token works at the KMS until its expiry only, so that a call after that shows that it was replaced."""
    born = datetime.now(UTC)
    life = timedelta(seconds=8)  # fetched again after 6 s: what a broker needs to start, and a stall, are less than 2
    sts.answer = lambda _: sts_reply(len(sts.asked), life=life)
    expiring = sts_key(1, expires_at=born + life)
    emulator = make_emulator(access_keys=(expiring, *(sts_key(number) for number in range(2, 5))))
    key_id = emulator.create_key()
    with client_of(settings_for(emulator, rrsa=rrsa)) as client:
        while datetime.now(UTC) < born + life + timedelta(seconds=0.5):
            client.describe_key(key_id=key_id)
            time.sleep(0.1)
    assert {status for _, _, status in emulator.call_log} == {200}
    assert 2 <= len(sts.asked) <= 4


def test_instances_have_credentials_of_their_own(
    make_emulator: Callable[..., Emulator], sts: Double, rrsa: dict[str, str]
) -> None:
    one, other = make_emulator(access_keys=(sts_key(1),)), make_emulator(access_keys=(sts_key(7),))
    with double(lambda _: reply_json(success(**vars_of(7)))) as server:
        settings = settings_for(one, rrsa=rrsa)
        second = settings_for(other, uri={"uri": server.url}).kms.instances["main"]
        instances = settings.kms.instances | {"second": second}
        settings = settings.model_copy(update={"kms": settings.kms.model_copy(update={"instances": instances})})
        with client_of(settings) as client:
            client.import_external_key(key_id=one.create_key())
            client.import_external_key(key_id=other.create_key(), instance="second")
            assert (len(sts.asked), len(server.asked)) == (1, 1)
    assert {status for emulator in (one, other) for _, _, status in emulator.call_log} == {200}


def vars_of(number: int) -> dict[str, str]:
    key = sts_key(number)
    return {
        "AccessKeyId": key.access_key_id,
        "AccessKeySecret": key.access_key_secret,
        "SecurityToken": key.security_token,
    }


MISSING = {
    "role_arn": "ALIBABA_CLOUD_ROLE_ARN",
    "oidc_provider_arn": "ALIBABA_CLOUD_OIDC_PROVIDER_ARN",
    "oidc_token_file": "ALIBABA_CLOUD_OIDC_TOKEN_FILE",
}


@pytest.mark.parametrize(("setting", "variable"), MISSING.items())
def test_missing_rrsa_setting_stops_the_start_and_names_key_and_variable(
    emulator: Emulator, rrsa: dict[str, str], setting: str, variable: str
) -> None:
    del rrsa[setting]
    with pytest.raises(ConfigurationError, match=rf"kms\.instances\.main\.credentials\.rrsa\.{setting}: .*{variable}"):
        App(settings_for(emulator, rrsa=rrsa))


WRONG: dict[str, tuple[str, dict[str, str], str]] = {
    "STS in the clear": ("rrsa", {"sts_endpoint": "http://sts.example"}, r"rrsa\.sts_endpoint: it must be https"),
    "STS with a path": ("rrsa", {"sts_endpoint": "https://sts.example/x"}, r"rrsa\.sts_endpoint: it must be"),
    "no token file": ("rrsa", {"oidc_token_file": "/nowhere/token"}, r"rrsa\.oidc_token_file: can't read"),
    "metadata elsewhere": ("ecs_ram_role", {"metadata_endpoint": "http://10.0.0.1"}, r"ecs_ram_role: it must be https"),
    "odd role": ("ecs_ram_role", {"role_name": "../x"}, "ecs_ram_role: the role name"),
    "URI in the clear": ("uri", {"uri": "http://credentials.example/canary"}, r"uri\.uri: it must be https"),
}


@pytest.mark.parametrize(("source", "values", "message"), WRONG.values(), ids=WRONG)
def test_wrong_setting_stops_the_start(
    emulator: Emulator, rrsa: dict[str, str], source: str, values: dict[str, str], message: str
) -> None:
    given = (rrsa if source == "rrsa" else {}) | values
    with pytest.raises(ConfigurationError, match=message) as caught:
        App(settings_for(emulator, **{source: given}))
    assert "canary" not in str(caught.value)


def test_empty_token_file_stops_the_start(emulator: Emulator, rrsa: dict[str, str], token_file: Path) -> None:
    token_file.write_text("\n")
    with pytest.raises(ConfigurationError, match=r"rrsa\.oidc_token_file: .* is empty"):
        App(settings_for(emulator, rrsa=rrsa))


def test_rotated_token_file_is_read_at_the_next_fetch(
    make_emulator: Callable[..., Emulator], sts: Double, rrsa: dict[str, str], token_file: Path
) -> None:
    emulator = make_emulator(access_keys=(sts_key(1), sts_key(2)))
    sts.answer = lambda _: sts_reply(len(sts.asked), life=timedelta(seconds=3))
    key_id = emulator.create_key()
    with client_of(settings_for(emulator, rrsa=rrsa)) as client:
        client.describe_key(key_id=key_id)
        token_file.write_text("canary-rotated-oidc-token")
        time.sleep(3.1)
        client.describe_key(key_id=key_id)
    assert [asked.form["OIDCToken"] for asked in sts.asked] == [OIDC_TOKEN, "canary-rotated-oidc-token"]


def test_sts_endpoint_defaults_to_the_regions_in_the_vpc(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_sts_endpoint("cn-hangzhou") == "https://sts-vpc.cn-hangzhou.aliyuncs.com"
    monkeypatch.setenv("ALIBABA_CLOUD_STS_ENDPOINT", "sts.cn-hangzhou.aliyuncs.com")
    assert default_sts_endpoint("cn-hangzhou") == "https://sts.cn-hangzhou.aliyuncs.com"

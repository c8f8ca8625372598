"""Credentials of the KMS from files: read again when they change."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from keybroker.app import App
from keybroker.background import BackgroundApp
from keybroker.settings import ConfigurationError
from keybroker_client import KeyBrokerClient, KeyBrokerError
from kms_emulator import AccessKey, Emulator
from tests.integration.conftest import broker_settings


@contextmanager
def client_of(emulator: Emulator, files: dict[str, str]) -> Iterator[KeyBrokerClient]:
    app = App(broker_settings(emulator, instance={"credentials": {"files": files}}))
    with BackgroundApp(app) as background, KeyBrokerClient(background.grpc_address, retries=0) as client:
        yield client


def write(folder: Path, **texts: str) -> dict[str, str]:
    for name, text in texts.items():
        (folder / name).write_text(f"{text}\n")
    return {f"{name}_file": str(folder / name) for name in texts}


def reason(client: KeyBrokerClient, key_id: str) -> str:
    with pytest.raises(KeyBrokerError) as caught:
        client.describe_key(key_id=key_id)
    return caught.value.reason


def test_rotated_access_key_is_used_without_a_restart(make_emulator: Callable[..., Emulator], tmp_path: Path) -> None:
    emulator = make_emulator(access_keys=(AccessKey("new-id", "new-secret"),))
    key_id = emulator.create_key()
    files = write(tmp_path, access_key_id="old-id", access_key_secret="old-secret")
    with client_of(emulator, files) as client:
        assert reason(client, key_id) == "KMS_CREDENTIALS_REJECTED"
        write(tmp_path, access_key_id="new-id", access_key_secret="new-secret")
        assert client.import_external_key(key_id=key_id).key.key_id == key_id
        (tmp_path / "access_key_secret").unlink()
        assert reason(client, key_id) == "KMS_CREDENTIALS_REJECTED"
        write(tmp_path, access_key_secret="new-secret")
        assert client.describe_key(key_id=key_id).key.key_id == key_id


def test_sts_token_is_sent_and_signed(make_emulator: Callable[..., Emulator], tmp_path: Path) -> None:
    emulator = make_emulator(access_keys=(AccessKey("STS.id", "sts-secret", "sts-token"),))
    key_id = emulator.create_key()
    files = write(tmp_path, access_key_id="STS.id", access_key_secret="sts-secret", security_token="sts-token")
    with client_of(emulator, files) as client:
        assert client.import_external_key(key_id=key_id).key.key_id == key_id
        write(tmp_path, security_token="another")
        assert reason(client, key_id) == "KMS_CREDENTIALS_REJECTED"


@pytest.mark.parametrize("text", ["", "two words"], ids=["empty", "with white space"])
def test_unusable_credentials_stop_the_start_and_are_not_quoted(emulator: Emulator, tmp_path: Path, text: str) -> None:
    files = write(tmp_path, access_key_id="an-id", access_key_secret=text)
    with pytest.raises(ConfigurationError, match=r"kms\.instances\.main\.credentials.*access_key_secret") as caught:
        App(broker_settings(emulator, instance={"credentials": {"files": files}}))
    assert "two words" not in str(caught.value)


def test_missing_environment_credentials_are_named(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALIBABA_CLOUD_ACCESS_KEY_ID", raising=False)
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "secret")
    with pytest.raises(ConfigurationError, match="ALIBABA_CLOUD_ACCESS_KEY_ID"):
        App(broker_settings(emulator))


def test_two_instances_share_what_is_one_cmk(make_emulator: Callable[..., Emulator], tmp_path: Path) -> None:
    """A CMK is named by account, region and key id, whatever the configured instance is called."""
    emulator = make_emulator(access_keys=(AccessKey("an-id", "a-secret"),))
    files = write(tmp_path, access_key_id="an-id", access_key_secret="a-secret")
    settings = broker_settings(emulator, instance={"credentials": {"files": files}})
    main = settings.kms.instances["main"]
    settings = settings.model_copy(
        update={"kms": settings.kms.model_copy(update={"instances": {"main": main, "vpc": main}})}
    )
    key_id = emulator.create_key()
    with BackgroundApp(App(settings)) as background, KeyBrokerClient(background.grpc_address, retries=0) as client:
        one = client.get_import_parameters(key_id=key_id)
        other = client.get_import_parameters(key_id=key_id, instance="vpc")
        assert one.import_token == other.import_token
        assert client.describe_key(key_id=key_id, instance="vpc").key.instance == "vpc"
    assert emulator.calls["GetParametersForImport"] == 1

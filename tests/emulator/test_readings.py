"""Every reading, both ways: contract sections 6 and 9."""

import pytest

from kms_emulator import Emulator, EmulatorSettings, Readings
from tests.emulator.builders import MATERIAL, OAEP, filters_json, import_blob, import_material, wrapped_b64
from tests.emulator.client import Client


def test_same_material_reimport_off_refuses_any_second_import(client: Client, emulator: Emulator) -> None:
    emulator.set_readings(same_material_reimport=False)
    key_id = emulator.create_key()
    der, token = emulator.issue_parameters(key_id, OAEP)
    blob = wrapped_b64(der, MATERIAL)
    assert import_blob(client, key_id, token, blob).status == 200
    assert import_blob(client, key_id, token, blob).code == "InvalidKeyMaterial"
    assert import_material(client, key_id, MATERIAL).code == "InvalidKeyMaterial"
    assert client.state(key_id) == "Enabled"


@pytest.mark.parametrize(("newest_only", "code"), [(False, ""), (True, "InvalidImportToken")])
def test_older_token_after_a_newer_one(client: Client, emulator: Emulator, newest_only: bool, code: str) -> None:  # noqa: FBT001
    emulator.set_readings(newest_token_only=newest_only)
    key_id, other = emulator.create_key(), emulator.create_key()
    old_der, old_token = emulator.issue_parameters(key_id, OAEP)
    new_der, new_token = emulator.issue_parameters(key_id, OAEP)
    emulator.issue_parameters(other, OAEP)
    assert import_blob(client, key_id, old_token, wrapped_b64(old_der, MATERIAL)).code == code
    assert import_blob(client, key_id, new_token, wrapped_b64(new_der, MATERIAL)).status == 200


@pytest.mark.parametrize("state", ["PendingImport", "Enabled"])
def test_cancel_key_deletion_of_an_empty_key(client: Client, emulator: Emulator, state: str) -> None:
    emulator.set_readings(cancel_empty_key_state=state)
    key_id = emulator.create_key(state="PendingDeletion")
    client.ok("CancelKeyDeletion", KeyId=key_id)
    assert client.state(key_id) == state
    assert client.call("Encrypt", KeyId=key_id, Plaintext="QQ==").code == "Rejected.PendingImport"
    assert import_material(client, key_id).status == 200
    assert client.state(key_id) == "Enabled"


def tagged(client: Client, value: str = "42") -> int:
    count: int = client.ok("ListKeys", Filters=filters_json(TagKey=["request"], TagValue=[value]))["TotalCount"]
    return count


def test_tag_filter_lag_finds_a_tag_only_when_it_is_old_enough(client: Client, emulator: Emulator) -> None:
    emulator.set_readings(tag_filter_lag_seconds=30)
    key_id = emulator.create_key(tags={"request": "42"})
    assert tagged(client) == 0
    assert client.ok("ListResourceTags", KeyId=key_id)["Tags"]["Tag"] != []
    emulator.clock.advance(29)
    assert tagged(client) == 0
    emulator.clock.advance(1)
    assert tagged(client) == 1
    assert tagged(client, "43") == 0


def test_tag_filters_ignored_finds_every_key(client: Client, emulator: Emulator) -> None:
    emulator.set_readings(tag_filters_ignored=True)
    emulator.create_key()
    emulator.create_key(tags={"request": "41"}, state="Enabled")
    assert tagged(client) == 2
    both = filters_json(TagKey=["request"], KeyState=["Enabled"])
    assert client.ok("ListKeys", Filters=both)["TotalCount"] == 1


def shown(client: Client, key_id: str) -> tuple[str, int]:
    """What DescribeKey shows, and how many Enabled keys ListKeys finds."""
    found: int = client.ok("ListKeys", Filters=filters_json(KeyState=["Enabled"]))["TotalCount"]
    return client.state(key_id), found


def test_enabled_lag_seconds_shows_enabled_late(client: Client, emulator: Emulator) -> None:
    emulator.set_readings(enabled_lag_seconds=20.0)
    key_id = emulator.create_key()
    assert import_material(client, key_id).status == 200
    assert shown(client, key_id) == ("PendingImport", 0)
    assert emulator.key_state(key_id) == "Enabled"
    emulator.clock.advance(19)
    assert shown(client, key_id) == ("PendingImport", 0)
    emulator.clock.advance(1)
    assert shown(client, key_id) == ("Enabled", 1)


def test_enabled_lag_describes_shows_enabled_after_so_many(client: Client, emulator: Emulator) -> None:
    emulator.set_readings(enabled_lag_describes=2)
    key_id = emulator.create_key()
    assert client.state(key_id) == "PendingImport"
    assert import_material(client, key_id).status == 200
    assert [client.state(key_id) for _ in range(4)] == ["PendingImport", "PendingImport", "Enabled", "Enabled"]


def test_enabled_lag_starts_with_the_first_import_only(client: Client, emulator: Emulator) -> None:
    emulator.set_readings(enabled_lag_seconds=20)
    key_id = emulator.create_key()
    assert import_material(client, key_id).status == 200
    emulator.clock.advance(20)
    assert import_material(client, key_id).status == 200
    assert client.state(key_id) == "Enabled"


def test_readings_come_with_the_settings(client: Client) -> None:
    emulator = Emulator(EmulatorSettings(readings=Readings(newest_token_only=True)))
    assert emulator.readings.newest_token_only
    emulator.set_readings(enabled_lag_describes=3)
    assert emulator.readings == Readings(newest_token_only=True, enabled_lag_describes=3)


BAD = {
    "unknown": ({"colour": "red"}, ValueError, "unknown reading: colour"),
    "text for a switch": ({"newest_token_only": "yes"}, TypeError, "newest_token_only"),
    "number for a switch": ({"newest_token_only": 1}, TypeError, "newest_token_only"),
    "switch for a number": ({"enabled_lag_describes": True}, TypeError, "enabled_lag_describes"),
    "fraction for a count": ({"enabled_lag_describes": 0.5}, TypeError, "enabled_lag_describes"),
    "text for a number": ({"enabled_lag_seconds": "1"}, TypeError, "enabled_lag_seconds"),
    "negative": ({"enabled_lag_seconds": -1}, ValueError, "enabled_lag_seconds"),
    "not a number": ({"enabled_lag_seconds": float("nan")}, ValueError, "enabled_lag_seconds"),
    "unknown state": ({"cancel_empty_key_state": "Disabled"}, ValueError, "cancel_empty_key_state"),
}


@pytest.mark.parametrize(("changes", "kind", "message"), BAD.values(), ids=BAD)
def test_set_readings_with_what_does_not_fit_names_it_and_changes_nothing(
    emulator: Emulator, changes: dict[str, object], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        emulator.set_readings(**changes)
    assert emulator.readings == Readings()


TEXTS = {
    "same_material_reimport=false": Readings(same_material_reimport=False),
    "newest_token_only=true": Readings(newest_token_only=True),
    "cancel_empty_key_state=Enabled": Readings(cancel_empty_key_state="Enabled"),
    "enabled_lag_seconds=1.5": Readings(enabled_lag_seconds=1.5),
    "enabled_lag_describes=2": Readings(enabled_lag_describes=2),
}


@pytest.mark.parametrize(("text", "readings"), TEXTS.items())
def test_changed_by_text_reads_an_assignment(text: str, readings: Readings) -> None:
    assert Readings().changed_by_text(text) == readings


@pytest.mark.parametrize("text", ["newest_token_only", "newest_token_only=1", "enabled_lag_describes=x", "colour=red"])
def test_changed_by_text_with_what_does_not_fit_raises(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be|could not convert|invalid literal|unknown reading"):
        Readings().changed_by_text(text)

"""What the emulator lets a test see of its CMKs."""

from datetime import timedelta

import pytest

from kms_emulator import Emulator, KmsError
from tests.emulator.builders import MATERIAL, OAEP, OTHER_MATERIAL, import_material, tags_json
from tests.emulator.client import DAY, Client


def test_keys_made_by_create_key_are_listed_apart_from_seeded_ones(client: Client, emulator: Emulator) -> None:
    seeded = emulator.create_key()
    created = [client.ok("CreateKey")["KeyMetadata"]["KeyId"] for _ in range(2)]
    assert emulator.created_key_ids == created
    assert emulator.key_ids == [seeded, *created]
    client.ok("ScheduleKeyDeletion", KeyId=created[0], PendingWindowInDays=7)
    emulator.clock.advance(8 * DAY)
    assert emulator.created_key_ids == created
    assert emulator.key_ids == [seeded, created[1]]


def test_refused_create_key_is_not_listed(client: Client, emulator: Emulator) -> None:
    assert client.call("CreateKey", KeySpec="EC_P256").status == 400
    assert emulator.created_key_ids == []


def test_accepted_imports_are_counted_and_their_materials_kept(client: Client, emulator: Emulator) -> None:
    key_id = emulator.create_key()
    assert (emulator.accepted_imports(key_id), emulator.successful_imports(key_id)) == ([], 0)
    answers = [import_material(client, key_id, material).status for material in (MATERIAL, OTHER_MATERIAL, MATERIAL)]
    assert answers == [200, 400, 200]
    assert (emulator.accepted_imports(key_id), emulator.successful_imports(key_id)) == ([MATERIAL], 2)


def test_seeded_import_is_accepted_but_is_no_call(emulator: Emulator) -> None:
    key_id = emulator.create_key()
    emulator.import_material(key_id, MATERIAL)
    assert (emulator.accepted_imports(key_id), emulator.successful_imports(key_id)) == ([MATERIAL], 0)
    with pytest.raises(KmsError, match="InvalidKeyMaterial"):
        emulator.import_material(key_id, OTHER_MATERIAL)
    assert emulator.accepted_imports(key_id) == [MATERIAL]


def test_rule_that_was_broken_would_show(emulator: Emulator) -> None:
    """The evidence does not rest on the rule it proves."""
    key_id = emulator.create_key(material=MATERIAL)
    emulator._kms.keyring.find(key_id, emulator.clock.now()).bind(OTHER_MATERIAL)
    assert emulator.accepted_imports(key_id) == [MATERIAL, OTHER_MATERIAL]


def test_tags_and_aliases_are_seen_whatever_filters_show(client: Client, emulator: Emulator) -> None:
    emulator.set_readings(tag_filter_lag_seconds=60)
    key_id = client.ok("CreateKey", Tags=tags_json({"owner": "broker"}))["KeyMetadata"]["KeyId"]
    client.ok("CreateAlias", KeyId=key_id, AliasName="alias/one")
    assert emulator.tags(key_id) == {"owner": "broker"}
    assert emulator.aliases == {"alias/one": key_id}


def test_pairs_are_listed_with_their_times(client: Client, emulator: Emulator) -> None:
    key_id, other = emulator.create_key(), emulator.create_key()
    before = emulator.clock.now()
    parameters = {"WrappingKeySpec": "RSA_2048", "WrappingAlgorithm": OAEP}
    client.ok("GetParametersForImport", KeyId=key_id, **parameters)
    emulator.clock.advance(2 * DAY)
    emulator.issue_parameters(key_id)
    first, second = emulator.issued_pairs(key_id)
    assert before <= first.issued_at <= second.issued_at - timedelta(days=2)
    assert first.expires_at == (first.issued_at + timedelta(days=1)).replace(microsecond=0)
    assert emulator.issued_pairs(other) == []


def test_truth_of_an_unknown_key_raises(emulator: Emulator) -> None:
    for look in (emulator.tags, emulator.accepted_imports, emulator.successful_imports, emulator.issued_pairs):
        with pytest.raises(KmsError, match=r"Forbidden\.KeyNotFound"):
            look("key-nobody")

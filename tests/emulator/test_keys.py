"""CreateKey, DescribeKey, ListKeys: contract sections 1.1, 1.2, 1.7 and 2."""

import json
import re
from datetime import UTC, datetime

import pytest

from kms_emulator import Emulator, EmulatorSettings
from tests.emulator.builders import filters_json, tags_json
from tests.emulator.client import DAY, Client, in_process

INSTANCE = "kst-example"
INSTANCE_KEY_ID = re.compile(r"key-hzz[a-z0-9]{17}")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def create(client: Client, **parameters: object) -> dict[str, str]:
    return client.ok("CreateKey", **{"Origin": "EXTERNAL", "DKMSInstanceId": INSTANCE, **parameters})["KeyMetadata"]


def test_create_key_external_in_instance_waits_for_its_material(client: Client) -> None:
    metadata = create(client, KeySpec="Aliyun_AES_192", Description="für Zahlungen +~*")
    assert INSTANCE_KEY_ID.fullmatch(metadata.pop("KeyId"))
    assert re.fullmatch(r"acs:kms:cn-hangzhou:1540355698840000:key/key-hzz[a-z0-9]{17}", metadata.pop("Arn"))
    assert UUID.fullmatch(metadata.pop("PrimaryKeyVersion"))
    assert INSTANT.fullmatch(metadata.pop("CreationDate"))
    assert INSTANT.fullmatch(metadata.pop("LastRotationDate"))
    assert metadata == {
        "Creator": "1540355698840000",
        "Description": "für Zahlungen +~*",
        "KeyState": "PendingImport",
        "KeyUsage": "ENCRYPT/DECRYPT",
        "KeySpec": "Aliyun_AES_192",
        "Origin": "EXTERNAL",
        "ProtectionLevel": "HSM",
        "DKMSInstanceId": INSTANCE,
        "AutomaticRotation": "Disabled",
        "DeleteDate": "",
        "MaterialExpireTime": "",
    }


def test_create_key_without_anything_is_an_enabled_default_key(client: Client) -> None:
    metadata = client.ok("CreateKey")["KeyMetadata"]
    assert UUID.fullmatch(metadata["KeyId"])
    assert metadata["KeyState"] == "Enabled"
    assert metadata["KeySpec"] == "Aliyun_AES_256"
    assert (metadata["Origin"], metadata["ProtectionLevel"]) == ("Aliyun_KMS", "SOFTWARE")


def test_create_key_in_another_region_and_account_shows_in_the_arn() -> None:
    client = in_process(Emulator(EmulatorSettings(region="cn-shanghai", account_id="42")))
    assert create(client)["Arn"].startswith("acs:kms:cn-shanghai:42:key/")


REFUSED = {
    "origin in lower case": ({"Origin": "external"}, "InvalidParameter"),
    "unknown spec": ({"KeySpec": "Aliyun_AES_512"}, "InvalidParameter"),
    "AES_128 outside an instance": ({"KeySpec": "Aliyun_AES_128", "DKMSInstanceId": ""}, "InvalidParameter"),
    "AES_192 outside an instance": ({"KeySpec": "Aliyun_AES_192", "DKMSInstanceId": ""}, "InvalidParameter"),
    "SIGN/VERIFY": ({"KeyUsage": "SIGN/VERIFY"}, "InvalidParameter"),
    "unknown instance": ({"DKMSInstanceId": "kst-other"}, "Forbidden.ResourceNotFound"),
    "description of 8193 characters": ({"Description": "x" * 8193}, "InvalidParameter"),
    "unknown protection level": ({"ProtectionLevel": "NONE"}, "InvalidParameter"),
    "unknown mechanism": ({"KeyStorageMechanism": "Paper"}, "InvalidParameter"),
    "rotation of an external key": ({"EnableAutomaticRotation": "true"}, "Unsupported.Origin"),
    "rotation": ({"EnableAutomaticRotation": "true", "Origin": "Aliyun_KMS"}, "UnsupportedOperation"),
    "rotation neither true nor false": ({"EnableAutomaticRotation": "maybe"}, "InvalidParameter"),
    "policy outside an instance": ({"Policy": "{}", "DKMSInstanceId": ""}, "InvalidParameter"),
    "policy of 32769 bytes": ({"Policy": json.dumps("x" * 32767)}, "InvalidParameter"),
    "policy that is no JSON": ({"Policy": "{"}, "InvalidParameter"),
    "21 tags": ({"Tags": tags_json({f"k{n}": "v" for n in range(21)})}, "InvalidParameter"),
    "tags that are no JSON": ({"Tags": "[{"}, "InvalidParameter"),
    "tags that are no list": ({"Tags": '{"TagKey":"k","TagValue":"v"}'}, "InvalidParameter"),
    "tag without value": ({"Tags": '[{"TagKey":"k"}]'}, "InvalidParameter"),
    "tag key of 129 characters": ({"Tags": tags_json({"k" * 129: "v"})}, "InvalidParameter"),
    "tag value of 129 characters": ({"Tags": tags_json({"k": "v" * 129})}, "InvalidParameter"),
    "tag key that is empty": ({"Tags": tags_json({"": "v"})}, "InvalidParameter"),
    "tag key of aliyun": ({"Tags": tags_json({"aliyun-x": "v"})}, "InvalidParameter"),
    "tag key of acs": ({"Tags": tags_json({"acs:x": "v"})}, "InvalidParameter"),
}


@pytest.mark.parametrize(("parameters", "code"), REFUSED.values(), ids=REFUSED)
def test_create_key_with_a_value_out_of_range_is_refused(client: Client, parameters: dict[str, str], code: str) -> None:
    answer = client.call("CreateKey", **{"Origin": "EXTERNAL", "DKMSInstanceId": INSTANCE, **parameters})
    assert answer.code == code
    assert client.ok("ListKeys")["TotalCount"] == 0


AT_THE_LIMIT = {
    "description of 8192 characters": {"Description": "x" * 8192},
    "20 tags": {"Tags": tags_json({f"k{n}": "v" for n in range(20)})},
    "tag of 128 and 128 characters": {"Tags": tags_json({"k" * 128: "v" * 128})},
    "policy of 32768 bytes": {"Policy": json.dumps("x" * 32766)},
    "software in an instance": {"ProtectionLevel": "SOFTWARE"},
    "rotation off": {"EnableAutomaticRotation": "false"},
}


@pytest.mark.parametrize("parameters", AT_THE_LIMIT.values(), ids=AT_THE_LIMIT)
def test_create_key_at_the_limit_succeeds(client: Client, parameters: dict[str, str]) -> None:
    assert create(client, **parameters)["ProtectionLevel"] == "HSM"


def test_create_key_beyond_max_keys_is_refused() -> None:
    client = in_process(Emulator(EmulatorSettings(max_keys=2)))
    create(client)
    create(client)
    assert client.call("CreateKey").code == "Rejected.LimitExceeded"


def test_create_key_repeated_makes_another_key(client: Client) -> None:
    assert create(client)["KeyId"] != create(client)["KeyId"]


def test_describe_key_adds_deletion_protection(client: Client) -> None:
    created = create(client)
    described = client.ok("DescribeKey", KeyId=created["KeyId"])["KeyMetadata"]
    protection = {"DeletionProtection": "Disabled", "DeletionProtectionDescription": ""}
    assert described == {**created, **protection}


def test_describe_key_takes_id_alias_and_arn(client: Client) -> None:
    created = create(client)
    client.ok("CreateAlias", KeyId=created["KeyId"], AliasName="alias/payments")
    for reference in (created["KeyId"], "alias/payments", created["Arn"]):
        assert client.ok("DescribeKey", KeyId=reference)["KeyMetadata"]["KeyId"] == created["KeyId"]


NOT_FOUND = {
    "unknown id": ("key-hzz00000000000000000", "Forbidden.KeyNotFound"),
    "unknown alias": ("alias/nobody", "Forbidden.AliasNotFound"),
    "ARN of another region": ("acs:kms:cn-beijing:1540355698840000:key/{key_id}", "Forbidden.KeyNotFound"),
    "ARN of another account": ("acs:kms:cn-hangzhou:1:key/{key_id}", "Forbidden.KeyNotFound"),
}


@pytest.mark.parametrize(("reference", "code"), NOT_FOUND.values(), ids=NOT_FOUND)
def test_describe_key_of_an_unknown_key_is_404(client: Client, reference: str, code: str) -> None:
    answer = client.call("DescribeKey", KeyId=reference.format(key_id=create(client)["KeyId"]))
    assert (answer.status, answer.code) == (404, code)


def listed(client: Client, **parameters: object) -> list[str]:
    return [item["KeyId"] for item in client.ok("ListKeys", **parameters)["Keys"]["Key"]]


def test_list_keys_gives_pages_in_the_order_of_creation(client: Client, emulator: Emulator) -> None:
    key_ids = [emulator.create_key() for _ in range(12)]
    assert listed(client) == key_ids[:10]
    assert listed(client, PageNumber=2) == key_ids[10:]
    assert listed(client, PageNumber=3) == []
    body = client.ok("ListKeys", PageNumber=2, PageSize=5)
    assert (body["TotalCount"], body["PageNumber"], body["PageSize"]) == (12, 2, 5)
    assert body["Keys"]["Key"][0] == {
        "KeyId": key_ids[5],
        "KeyArn": f"acs:kms:cn-hangzhou:1540355698840000:key/{key_ids[5]}",
    }


@pytest.mark.parametrize("page", [{"PageNumber": 0}, {"PageSize": 0}, {"PageSize": 101}, {"PageSize": "ten"}], ids=str)
def test_list_keys_with_a_page_out_of_range_is_refused(client: Client, page: dict[str, object]) -> None:
    assert client.call("ListKeys", **page).code == "InvalidParameter"


FILTERS = {
    "state": ({"KeyState": ["PendingImport"]}, {"external"}),
    "two states": ({"KeyState": ["PendingImport", "Enabled"]}, {"external", "default"}),
    "spec": ({"KeySpec": ["Aliyun_AES_128"]}, {"external"}),
    "usage": ({"KeyUsage": ["ENCRYPT/DECRYPT"]}, {"external", "default", "disabled"}),
    "level": ({"ProtectionLevel": ["SOFTWARE"]}, {"default"}),
    "creator type": ({"CreatorType": ["Service"]}, set()),
    "creator": ({"Creator": ["1540355698840000"]}, {"external", "default", "disabled"}),
    "instance": ({"DKMSInstanceId": ["kst-example"]}, {"external", "disabled"}),
    "alias": ({"AliasName": ["alias/x"]}, {"external"}),
    "tag key": ({"TagKey": ["team"]}, {"external", "disabled"}),
    "tag value": ({"TagValue": ["red"]}, {"external"}),
    "tag key and value of one tag": ({"TagKey": ["team"], "TagValue": ["red"]}, {"external"}),
    "tag key and value of two tags": ({"TagKey": ["team"], "TagValue": ["eu"]}, set()),
    "and across": ({"KeyState": ["Disabled"], "TagKey": ["team"]}, {"disabled"}),
    "no values": ({"KeyState": []}, set()),
}


@pytest.mark.parametrize(("filters", "names"), FILTERS.values(), ids=FILTERS)
def test_list_keys_with_filters_gives_the_matching_keys(
    client: Client, emulator: Emulator, filters: dict[str, list[str]], names: set[str]
) -> None:
    keys = {
        "external": emulator.create_key(
            key_spec="Aliyun_AES_128", alias="alias/x", tags={"team": "red", "region": "eu"}
        ),
        "default": emulator.create_key(origin="Aliyun_KMS", dkms_instance_id=""),
        "disabled": emulator.create_key(state="Disabled", tags={"team": "blue"}),
    }
    assert set(listed(client, Filters=filters_json(**filters))) == {keys[name] for name in names}


def test_list_keys_by_key_id_takes_both_spellings(client: Client, emulator: Emulator) -> None:
    key_id = emulator.create_key()
    emulator.create_key()
    for name in ("KeyId", "keyId"):
        assert listed(client, Filters=filters_json(**{name: [key_id]})) == [key_id]


BAD_FILTERS = {
    "no JSON": "[",
    "no list": '{"Key":"KeyState","Values":[]}',
    "unknown key": '[{"Key":"Colour","Values":["red"]}]',
    "values that are no list": '[{"Key":"KeyState","Values":"Enabled"}]',
    "values that are no texts": '[{"Key":"KeyState","Values":[1]}]',
    "the same key twice": '[{"Key":"KeyState","Values":[]},{"Key":"KeyState","Values":[]}]',
    "11 filters": json.dumps([{"Key": "KeyState", "Values": []}] * 11),
}


@pytest.mark.parametrize("filters", BAD_FILTERS.values(), ids=BAD_FILTERS)
def test_list_keys_with_a_malformed_filter_is_refused(client: Client, filters: str) -> None:
    assert client.call("ListKeys", Filters=filters).code == "InvalidParameter"


def test_schedule_key_deletion_sets_the_date_and_the_key_vanishes_then(client: Client, emulator: Emulator) -> None:
    key_id = create(client)["KeyId"]
    client.ok("CreateAlias", KeyId=key_id, AliasName="alias/gone")
    scheduled_at = datetime.now(UTC)
    client.ok("ScheduleKeyDeletion", KeyId=key_id, PendingWindowInDays=7)
    metadata = client.ok("DescribeKey", KeyId=key_id)["KeyMetadata"]
    delete_at = datetime.fromisoformat(metadata["DeleteDate"])
    assert abs((delete_at - scheduled_at).total_seconds() - 7 * DAY) < 60
    assert metadata["KeyState"] == "PendingDeletion"
    emulator.clock.advance(7 * DAY - 60)
    assert client.state(key_id) == "PendingDeletion"
    emulator.clock.advance(120)
    assert client.call("DescribeKey", KeyId=key_id).code == "Forbidden.KeyNotFound"
    assert client.call("DescribeKey", KeyId="alias/gone").code == "Forbidden.AliasNotFound"
    assert client.ok("ListKeys")["TotalCount"] == 0
    assert client.ok("ListAliases")["TotalCount"] == 0
    client.ok("CreateAlias", KeyId=create(client)["KeyId"], AliasName="alias/gone")


@pytest.mark.parametrize("days", ["6", "367", "-7", "7.5", "a week"])
def test_schedule_key_deletion_with_a_window_out_of_range_is_refused(
    client: Client, emulator: Emulator, days: str
) -> None:
    key_id = emulator.create_key()
    answer = client.call("ScheduleKeyDeletion", KeyId=key_id, PendingWindowInDays=days)
    assert answer.code == "InvalidParameter"
    assert emulator.key_state(key_id) == "PendingImport"


@pytest.mark.parametrize("days", [7, 366])
def test_schedule_key_deletion_at_the_limits_succeeds(client: Client, emulator: Emulator, days: int) -> None:
    client.ok("ScheduleKeyDeletion", KeyId=emulator.create_key(), PendingWindowInDays=days)


@pytest.mark.parametrize("state", ["Enabled", "Disabled"])
def test_cancel_key_deletion_of_a_key_with_material_enables_it(client: Client, emulator: Emulator, state: str) -> None:
    key_id = emulator.create_key(state=state)
    client.ok("ScheduleKeyDeletion", KeyId=key_id, PendingWindowInDays=30)
    client.ok("CancelKeyDeletion", KeyId=key_id)
    metadata = client.ok("DescribeKey", KeyId=key_id)["KeyMetadata"]
    assert (metadata["KeyState"], metadata["DeleteDate"]) == ("Enabled", "")
    emulator.clock.advance(31 * DAY)
    assert client.state(key_id) == "Enabled"

"""Aliases and tags: contract sections 1.8 and 1.11."""

import pytest

from kms_emulator import Emulator
from tests.emulator.builders import filters_json, tags_json
from tests.emulator.client import Client

ARN = "acs:kms:cn-hangzhou:1540355698840000:"


@pytest.fixture
def key_id(emulator: Emulator) -> str:
    return emulator.create_key()


def aliases(client: Client, **parameters: object) -> list[str]:
    operation = "ListAliasesByKeyId" if "KeyId" in parameters else "ListAliases"
    return [item["AliasName"] for item in client.ok(operation, **parameters)["Aliases"]["Alias"]]


def test_alias_can_be_created_listed_moved_and_deleted(client: Client, emulator: Emulator, key_id: str) -> None:
    other = emulator.create_key()
    for name in ("alias/a", "alias/b"):
        client.ok("CreateAlias", KeyId=key_id, AliasName=name)
    assert aliases(client, KeyId=key_id) == ["alias/a", "alias/b"]
    client.ok("UpdateAlias", KeyId=other, AliasName="alias/b")
    assert aliases(client, KeyId=other) == ["alias/b"]
    client.ok("DeleteAlias", AliasName="alias/a")
    assert aliases(client) == ["alias/b"]
    assert client.ok("ListAliases")["Aliases"]["Alias"] == [
        {"AliasName": "alias/b", "KeyId": other, "AliasArn": f"{ARN}alias/b"}
    ]


def test_list_aliases_gives_pages(client: Client, key_id: str) -> None:
    for number in range(12):
        client.ok("CreateAlias", KeyId=key_id, AliasName=f"alias/{number}")
    assert len(aliases(client)) == 10
    assert aliases(client, KeyId=key_id, PageNumber=2) == ["alias/10", "alias/11"]
    assert client.ok("ListAliases", PageSize=100)["TotalCount"] == 12


def test_create_alias_with_a_name_in_use_is_refused(client: Client, emulator: Emulator, key_id: str) -> None:
    client.ok("CreateAlias", KeyId=key_id, AliasName="alias/a")
    for target in (key_id, emulator.create_key()):
        answer = client.call("CreateAlias", KeyId=target, AliasName="alias/a")
        assert (answer.status, answer.code) == (400, "AliasAlreadyExists")


@pytest.mark.parametrize("name", ["alias/", "a", "Alias/a", "alias/acs", "alias/acs/kms", "alias/" + "x" * 256])
def test_create_alias_with_a_name_out_of_form_is_refused(client: Client, key_id: str, name: str) -> None:
    assert client.call("CreateAlias", KeyId=key_id, AliasName=name).code == "InvalidParameter"


@pytest.mark.parametrize("name", ["alias/x", "alias/" + "x" * 255, "alias/mein schlüssel ~*+"])
def test_create_alias_with_a_name_at_the_limits_succeeds(client: Client, key_id: str, name: str) -> None:
    client.ok("CreateAlias", KeyId=key_id, AliasName=name)
    assert client.ok("DescribeKey", KeyId=name)["KeyMetadata"]["KeyId"] == key_id


def test_unknown_alias_is_404(client: Client, key_id: str) -> None:
    for answer in (
        client.call("DeleteAlias", AliasName="alias/nobody"),
        client.call("UpdateAlias", KeyId=key_id, AliasName="alias/nobody"),
    ):
        assert (answer.status, answer.code) == (404, "Forbidden.AliasNotFound")


@pytest.mark.parametrize("operation", ["CreateAlias", "UpdateAlias", "ListAliasesByKeyId", "EnableKey", "TagResource"])
def test_operation_that_needs_a_key_id_refuses_an_alias(client: Client, emulator: Emulator, operation: str) -> None:
    emulator.create_key(alias="alias/a", state="Enabled")
    answer = client.call(operation, KeyId="alias/a", AliasName="alias/b", Tags=tags_json({"k": "v"}))
    assert answer.code == "Unsupported.Alias"


def tags(client: Client, key_id: str) -> dict[str, str]:
    listed = client.ok("ListResourceTags", KeyId=key_id)["Tags"]["Tag"]
    assert all(item["KeyId"] == key_id for item in listed)
    return {item["TagKey"]: item["TagValue"] for item in listed}


def test_tag_resource_adds_and_overwrites(client: Client, key_id: str) -> None:
    client.ok("TagResource", KeyId=key_id, Tags=tags_json({"a": "1", "b": "2"}))
    client.ok("TagResource", KeyId=key_id, Tags=tags_json({"b": "3"}))
    assert tags(client, key_id) == {"a": "1", "b": "3"}


def test_create_key_with_tags_has_them_at_once(client: Client) -> None:
    created = client.ok("CreateKey", Tags=tags_json({"request": "42"}))["KeyMetadata"]["KeyId"]
    assert tags(client, created) == {"request": "42"}
    assert client.ok("ListKeys", Filters=filters_json(TagKey=["request"], TagValue=["42"]))["TotalCount"] == 1


BAD_TAGS = {
    "11 tags": ({"Tags": tags_json({f"k{n}": "v" for n in range(11)})}, "InvalidParameter"),
    "reserved": ({"Tags": tags_json({"acs:k": "v"})}, "InvalidParameter"),
    "key and secret": ({"SecretName": "s", "Tags": tags_json({"k": "v"})}, "InvalidParameter"),
    "secret": ({"KeyId": "", "SecretName": "s", "Tags": tags_json({"k": "v"})}, "Forbidden.ResourceNotFound"),
    "neither": ({"KeyId": "", "Tags": tags_json({"k": "v"})}, "InvalidParameter"),
    "no tags": ({}, "MissingParameter"),
}


@pytest.mark.parametrize(("parameters", "code"), BAD_TAGS.values(), ids=BAD_TAGS)
def test_tag_resource_with_bad_input_is_refused(
    client: Client, key_id: str, parameters: dict[str, str], code: str
) -> None:
    assert client.call("TagResource", **{"KeyId": key_id, **parameters}).code == code
    assert tags(client, key_id) == {}


def numbered(key_ids: list[str], **more: str) -> dict[str, str]:
    resources = {f"ResourceId.{number}": key_id for number, key_id in enumerate(key_ids, 1)}
    return {"RegionId": "cn-hangzhou", "ResourceType": "key", "Tag.1.Key": "k", "Tag.1.Value": "v", **resources, **more}


def test_tag_resources_tags_every_key(client: Client, emulator: Emulator, key_id: str) -> None:
    other = emulator.create_key()
    client.ok("TagResources", **numbered([key_id, other], **{"Tag.2.Key": "l", "Tag.2.Value": ""}))
    assert tags(client, key_id) == tags(client, other) == {"k": "v", "l": ""}


BAD_TAG_RESOURCES = {
    "unknown key among them": ({"ResourceId.2": "key-nobody"}, "Forbidden.KeyNotFound"),
    "51 keys": ({f"ResourceId.{n}": "x" for n in range(2, 52)}, "InvalidParameter"),
    "another region": ({"RegionId": "cn-beijing"}, "InvalidParameter"),
    "a secret": ({"ResourceType": "secret"}, "Forbidden.ResourceNotFound"),
    "unknown type": ({"ResourceType": "cup"}, "InvalidParameter"),
    "no tag": ({"Tag.1.Key": ""}, "MissingParameter"),
    "21 tags": ({f"Tag.{n}.Key": f"k{n}" for n in range(1, 22)}, "InvalidParameter"),
    "reserved tag": ({"Tag.1.Key": "aliyun"}, "InvalidParameter"),
}


@pytest.mark.parametrize(("parameters", "code"), BAD_TAG_RESOURCES.values(), ids=BAD_TAG_RESOURCES)
def test_tag_resources_with_bad_input_tags_nothing(
    client: Client, key_id: str, parameters: dict[str, str], code: str
) -> None:
    assert client.call("TagResources", **numbered([key_id], **parameters)).code == code
    assert tags(client, key_id) == {}


def test_tag_resources_with_the_same_tag_twice_ends(client: Client, key_id: str) -> None:
    client.ok("TagResources", **numbered([key_id], **{"Tag.2.Key": "k", "Tag.2.Value": "w"}))
    assert tags(client, key_id) == {"k": "w"}


def test_tags_beyond_twenty_on_one_key_are_refused(client: Client, emulator: Emulator) -> None:
    full = emulator.create_key(tags={f"k{n}": "v" for n in range(20)})
    other = emulator.create_key()
    assert client.call("TagResource", KeyId=full, Tags=tags_json({"one": "more"})).code == "Rejected.LimitExceeded"
    client.ok("TagResource", KeyId=full, Tags=tags_json({"k0": "again"}))
    assert client.call("TagResources", **numbered([other, full])).code == "Rejected.LimitExceeded"
    assert tags(client, other) == {}

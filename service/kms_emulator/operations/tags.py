"""TagResource, TagResources and ListResourceTags. Source: contract section 1.11."""

import itertools
from collections.abc import Mapping, Sequence

from kms_emulator.errors import KmsError, invalid_parameter
from kms_emulator.keys import Key, Tag
from kms_emulator.kms import Kms
from kms_emulator.operation import Call, KeyReference, Operation, Parameter
from kms_emulator.standing import Standing
from kms_emulator.state_rules import check_state

MAX_TAGS_PER_KEY = 20
MAX_TAGS_PER_TAG_RESOURCE = 10
MAX_RESOURCES = 50
MAX_TAG_LENGTH = 128
RESERVED_PREFIXES = ("aliyun", "acs:")

_RESOURCES = ("KeyId", "SecretName", "CertificateId")


def tags_from_json(call: Call, limit: int) -> dict[str, str]:
    """`[{"TagKey": …, "TagValue": …}]` of parameter Tags; at most `limit` of them."""
    entries = call.json_value("Tags") or []
    if not isinstance(entries, list) or len(entries) > limit:
        raise invalid_parameter("Tags")
    tags = {}
    for entry in entries:
        match entry:
            case {"TagKey": str(name), "TagValue": str(value)}:
                tags[name] = value
            case _:
                raise invalid_parameter("Tags")
    _check_tags(tags, "Tags")
    return tags


def _check_tags(tags: Mapping[str, str], parameter: str) -> None:
    for name, value in tags.items():
        if not 1 <= len(name) <= MAX_TAG_LENGTH or len(value) > MAX_TAG_LENGTH or name.startswith(RESERVED_PREFIXES):
            raise invalid_parameter(parameter)


def _set_tags(kms: Kms, keys: Sequence[Key], tags: Mapping[str, str]) -> None:
    """All CMKs are checked before the first is tagged."""
    if any(len(key.tags.keys() | tags.keys()) > MAX_TAGS_PER_KEY for key in keys):
        raise KmsError("Rejected.LimitExceeded")
    now = kms.clock.now()
    for key in keys:
        key.tags.update({name: Tag(value, now) for name, value in tags.items()})


def _tag_resource(kms: Kms, call: Call) -> dict[str, object]:
    named = [name for name in _RESOURCES if call.text(name)]
    if len(named) != 1:
        raise invalid_parameter("KeyId")
    if named != ["KeyId"]:
        raise KmsError("Forbidden.ResourceNotFound")
    tags = tags_from_json(call, MAX_TAGS_PER_TAG_RESOURCE)
    with kms.target(call) as key:
        _set_tags(kms, [key], tags)
    return {}


def _tag_resources(kms: Kms, call: Call) -> dict[str, object]:
    if call.text("RegionId") != kms.settings.region:
        raise invalid_parameter("RegionId")
    if call.choice("ResourceType", ("key", "secret")) != "key":
        raise KmsError("Forbidden.ResourceNotFound")
    key_ids = call.numbered("ResourceId")
    if len(key_ids) > MAX_RESOURCES:
        raise invalid_parameter("ResourceId")
    tags = _numbered_tags(call)
    with kms.keyring.lock:
        keys = [kms.keyring.find(key_id, kms.clock.now()) for key_id in key_ids]
        for key in keys:
            check_state(call.operation.name, key.state)
        _set_tags(kms, keys, tags)
    return {}


def _numbered_tags(call: Call) -> dict[str, str]:
    tags = {}
    for number in itertools.count(1):
        name = call.parameters.get(f"Tag.{number}.Key")
        if name is None:
            break
        tags[name] = call.text(f"Tag.{number}.Value")
    if not 1 <= len(tags) <= MAX_TAGS_PER_KEY:
        raise invalid_parameter("Tag")
    _check_tags(tags, "Tag")
    return tags


def _list_resource_tags(kms: Kms, call: Call) -> dict[str, object]:
    with kms.target(call) as key:
        tags = [{"KeyId": key.key_id, "TagKey": name, "TagValue": tag.value} for name, tag in key.tags.items()]
    return {"Tags": {"Tag": tags}}


TAG_OPERATIONS = (
    Operation(
        name="TagResource",
        handler=_tag_resource,
        quota="write",
        source="1.11",
        key_reference=KeyReference.ID_ONLY,
        parameters=(
            Parameter("KeyId", note="exactly one of KeyId, SecretName, CertificateId"),
            Parameter("SecretName", note="there are no secrets", standing=Standing.NOT_IMPLEMENTED),
            Parameter("CertificateId", note="there are no certificates", standing=Standing.NOT_IMPLEMENTED),
            Parameter("Tags", required=True, note=f"JSON, at most {MAX_TAGS_PER_TAG_RESOURCE} tags a call"),
        ),
        note=f"A CMK holds at most {MAX_TAGS_PER_KEY} tags (inferred from CreateKey).",
    ),
    Operation(
        name="TagResources",
        handler=_tag_resources,
        quota="write",
        source="1.11",
        parameters=(
            Parameter("RegionId", required=True, note="the emulated region"),
            Parameter("ResourceType", required=True, note="key; there are no secrets"),
            Parameter("ResourceId.N", required=True, note=f"at most {MAX_RESOURCES} key ids"),
            Parameter("Tag.N.Key", required=True, note=f"at most {MAX_TAGS_PER_KEY} tags"),
            Parameter("Tag.N.Value"),
        ),
        note="All or nothing (inferred).",
    ),
    Operation(
        name="ListResourceTags",
        handler=_list_resource_tags,
        quota="resource-tags",
        source="6, SDK",
        key_reference=KeyReference.ID_ONLY,
        parameters=(Parameter("KeyId", required=True),),
        note="Shows a tag at once, whatever the readings say of filters. Shape of the reply from the SDK.",
    ),
)

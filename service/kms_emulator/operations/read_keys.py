"""DescribeKey and ListKeys. Source: contract sections 1.2 and 1.7."""

from collections.abc import Callable, Mapping

from kms_emulator.errors import invalid_parameter
from kms_emulator.keys import KEY_USAGE, Key
from kms_emulator.kms import Kms
from kms_emulator.operation import Call, KeyReference, Operation, Parameter
from kms_emulator.operations.metadata import key_metadata
from kms_emulator.operations.paging import PAGE_PARAMETERS, paged

MAX_FILTERS = 10
TAG_FILTERS = ("TagKey", "TagValue")

Filters = Mapping[str, frozenset[str]]

_PLAIN_FILTERS: Mapping[str, Callable[[Kms, Key], list[str]]] = {
    "KeyState": lambda kms, key: [key.shown_state(kms.clock.now())],
    "KeySpec": lambda _, key: [key.key_spec],
    "KeyUsage": lambda _, __: [KEY_USAGE],
    "ProtectionLevel": lambda _, key: [key.protection_level],
    "CreatorType": lambda _, __: ["User"],
    "Creator": lambda kms, _: [kms.settings.account_id],
    "DKMSInstanceId": lambda _, key: [key.dkms_instance_id],
    "KeyId": lambda _, key: [key.key_id],
    "keyId": lambda _, key: [key.key_id],
    "AliasName": lambda kms, key: kms.keyring.aliases_of(key.key_id),
}


def _describe_key(kms: Kms, call: Call) -> dict[str, object]:
    with kms.target(call) as key:
        metadata = key_metadata(kms, key)
        key.describes_before_enabled = max(0, key.describes_before_enabled - 1)
    protection = {"DeletionProtection": "Disabled", "DeletionProtectionDescription": ""}
    return {"KeyMetadata": {**metadata, **protection}}


def _list_keys(kms: Kms, call: Call) -> dict[str, object]:
    filters = _filters(call)
    with kms.keyring.lock:
        matching = [key.key_id for key in kms.keyring.all(kms.clock.now()) if _matches(kms, key, filters)]
    page, counters = paged(call, matching)
    listed = [{"KeyId": key_id, "KeyArn": f"{kms.arn_prefix}key/{key_id}"} for key_id in page]
    return {"Keys": {"Key": listed}, **counters}


def _filters(call: Call) -> Filters:
    """`[{"Key": …, "Values": […]}]`, at most 10; a key that is named twice or unknown is refused."""
    entries = call.json_value("Filters") or []
    if not isinstance(entries, list) or len(entries) > MAX_FILTERS:
        raise invalid_parameter("Filters")
    filters: dict[str, frozenset[str]] = {}
    for entry in entries:
        name, values = _filter_entry(entry)
        if name in filters or name not in (*_PLAIN_FILTERS, *TAG_FILTERS):
            raise invalid_parameter("Filters")
        filters[name] = values
    return filters


def _filter_entry(entry: object) -> tuple[str, frozenset[str]]:
    match entry:
        case {"Key": str(name), "Values": [*values]} if all(isinstance(value, str) for value in values):
            return name, frozenset(values)
        case _:
            raise invalid_parameter("Filters")


def _matches(kms: Kms, key: Key, filters: Filters) -> bool:
    """AND across filters, OR among the values of one."""
    plain = all(
        not values.isdisjoint(_PLAIN_FILTERS[name](kms, key))
        for name, values in filters.items()
        if name in _PLAIN_FILTERS
    )
    return plain and _tags_match(kms, key, filters)


def _tags_match(kms: Kms, key: Key, filters: Filters) -> bool:
    """Whether one tag, old enough by the readings, satisfies TagKey and TagValue together."""
    names, values = (filters.get(name) for name in TAG_FILTERS)
    if kms.readings.tag_filters_ignored or (names is None and values is None):
        return True
    now, lag_seconds = kms.clock.now(), kms.readings.tag_filter_lag_seconds
    return any(
        (names is None or name in names)
        and (values is None or tag.value in values)
        and (now - tag.set_at).total_seconds() >= lag_seconds
        for name, tag in key.tags.items()
    )


READ_KEY_OPERATIONS = (
    Operation(
        name="DescribeKey",
        handler=_describe_key,
        quota="read",
        source="1.2",
        key_reference=KeyReference.ANY,
        parameters=(Parameter("KeyId", required=True),),
        note="Deletion protection is always Disabled.",
    ),
    Operation(
        name="ListKeys",
        handler=_list_keys,
        quota="read",
        source="1.7",
        parameters=(
            *PAGE_PARAMETERS,
            Parameter("Filters", note=f"{', '.join((*_PLAIN_FILTERS, *TAG_FILTERS))}; others are refused"),
        ),
        note="In the order of creation. TagKey and TagValue together have to be met by one tag (inferred).",
    ),
)

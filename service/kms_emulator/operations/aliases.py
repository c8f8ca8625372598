"""Aliases. Source: contract section 1.8."""

from collections.abc import Sequence

from kms_emulator.errors import KmsError, invalid_parameter
from kms_emulator.keyring import ALIAS_PREFIX
from kms_emulator.kms import Kms
from kms_emulator.operation import Call, KeyReference, Operation, Parameter
from kms_emulator.operations.paging import PAGE_PARAMETERS, paged

MAX_ALIAS_LENGTH = 255
RESERVED_PREFIX = "alias/acs"

_KEY_ID = Parameter("KeyId", required=True)
_ALIAS_NAME = Parameter(
    "AliasName",
    required=True,
    note=f"{ALIAS_PREFIX} and 1 to {MAX_ALIAS_LENGTH} characters; {RESERVED_PREFIX}… is reserved",
)


def check_alias_name(name: str) -> str:
    """The name itself; 400 InvalidParameter when the form is not right."""
    bare = name.removeprefix(ALIAS_PREFIX)
    if bare == name or not 1 <= len(bare) <= MAX_ALIAS_LENGTH or name.startswith(RESERVED_PREFIX):
        raise invalid_parameter("AliasName")
    return name


def _create_alias(kms: Kms, call: Call) -> dict[str, object]:
    name = check_alias_name(call.text("AliasName"))
    with kms.target(call) as key:
        if name in kms.keyring.aliases:
            raise KmsError("AliasAlreadyExists")
        kms.keyring.aliases[name] = key.key_id
    return {}


def _update_alias(kms: Kms, call: Call) -> dict[str, object]:
    name = check_alias_name(call.text("AliasName"))
    with kms.target(call) as key:
        if name not in kms.keyring.aliases:
            raise KmsError("Forbidden.AliasNotFound")
        kms.keyring.aliases[name] = key.key_id
    return {}


def _delete_alias(kms: Kms, call: Call) -> dict[str, object]:
    name = check_alias_name(call.text("AliasName"))
    with kms.keyring.lock:
        if kms.keyring.aliases.pop(name, None) is None:
            raise KmsError("Forbidden.AliasNotFound")
    return {}


def _list_aliases(kms: Kms, call: Call) -> dict[str, object]:
    with kms.keyring.lock:
        living = {key.key_id for key in kms.keyring.all(kms.clock.now())}
        aliases = [(name, key_id) for name, key_id in kms.keyring.aliases.items() if key_id in living]
    return _alias_page(kms, call, aliases)


def _list_aliases_by_key_id(kms: Kms, call: Call) -> dict[str, object]:
    with kms.target(call) as key:
        aliases = [(name, key.key_id) for name in kms.keyring.aliases_of(key.key_id)]
    return _alias_page(kms, call, aliases)


def _alias_page(kms: Kms, call: Call, aliases: Sequence[tuple[str, str]]) -> dict[str, object]:
    page, counters = paged(call, aliases)
    listed = [{"AliasName": name, "KeyId": key_id, "AliasArn": f"{kms.arn_prefix}{name}"} for name, key_id in page]
    return {"Aliases": {"Alias": listed}, **counters}


ALIAS_OPERATIONS = (
    Operation(
        name="CreateAlias",
        handler=_create_alias,
        quota="write",
        source="1.8",
        key_reference=KeyReference.ID_ONLY,
        parameters=(_KEY_ID, _ALIAS_NAME),
    ),
    Operation(
        name="UpdateAlias",
        handler=_update_alias,
        quota="write",
        source="1.8",
        key_reference=KeyReference.ID_ONLY,
        parameters=(_KEY_ID, _ALIAS_NAME),
    ),
    Operation(name="DeleteAlias", handler=_delete_alias, quota="write", source="1.8", parameters=(_ALIAS_NAME,)),
    Operation(name="ListAliases", handler=_list_aliases, quota="read", source="1.8", parameters=PAGE_PARAMETERS),
    Operation(
        name="ListAliasesByKeyId",
        handler=_list_aliases_by_key_id,
        quota="read",
        source="1.8",
        key_reference=KeyReference.ID_ONLY,
        parameters=(_KEY_ID, *PAGE_PARAMETERS),
    ),
)

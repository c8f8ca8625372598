"""A row's body: an Attempt as JSON, without what is sealed.

The body holds every field; the columns beside it (schema.py) repeat those that are searched. A body that is not
exactly what this module writes, or columns that say something else, make the row unreadable: nothing is guessed.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any, Protocol, TypeVar

from keybroker.domain.attempt import Attempt, Creation, Evidence, Failure, Kind, State
from keybroker.domain.external_key import CmkName, ExternalKey, KeyState
from keybroker.domain.key_spec import KEY_SPECS

SCHEMA = 1

T = TypeVar("T")


class Row(Protocol):
    """A row of the table, by the names of its columns."""

    def __getitem__(self, name: str, /) -> Any:  # noqa: ANN401  # what SQLite held
        """A column's value."""


class Unreadable(Exception):  # noqa: N818  # reads as what it says
    """The row is not one that this version wrote."""


def columns(attempt: Attempt) -> dict[str, str | int | None]:
    """What stands beside the body."""
    cmk = attempt.cmk
    return {
        "record_id": attempt.record_id,
        "caller": attempt.caller,
        "request_id": attempt.request_id,
        "kind": str(attempt.kind),
        "state": str(attempt.state),
        "version": attempt.version,
        "account": cmk.account if cmk else None,
        "region": cmk.region if cmk else None,
        "key_id": cmk.key_id if cmk else None,
        "tag": attempt.creation.tag if attempt.creation else None,
    }


def encode(attempt: Attempt) -> str:
    """The body: one JSON object, ASCII."""
    tree = {name: _plain(getattr(attempt, name)) for name in _FIELDS}
    return json.dumps({"schema": SCHEMA, **tree}, separators=(",", ":"))


def decode(row: Row) -> Attempt:
    """The Attempt of a row, with nothing in the sealed fields. Raises Unreadable."""
    try:
        tree = json.loads(row["body"])
        if not isinstance(tree, dict) or tree.pop("schema", None) != SCHEMA:
            raise Unreadable
        attempt = Attempt(**_read({**_LATER, **tree}, _FIELDS))
        if any(row[name] != value for name, value in columns(attempt).items()):
            raise Unreadable
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Unreadable from None
    return attempt


def _plain(value: Any) -> Any:  # noqa: ANN401  # what JSON can hold
    match value:
        case datetime():
            return value.isoformat()
        case bytes():
            return value.hex()
        case tuple():
            return [_plain(item) for item in value]
        case CmkName():
            return [value.account, value.region, value.key_id]
        case Creation() | Failure() | ExternalKey():
            return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        case _:
            return getattr(value, "kms_name", value)  # a KeySpec by its name


def _read(tree: Any, readers: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:  # noqa: ANN401
    """Every field by its reader; raises ValueError for a missing or an unknown one."""
    if not isinstance(tree, dict) or tree.keys() != readers.keys():
        raise ValueError
    return {name: read(tree[name]) for name, read in readers.items()}


def _typed(kind: type[T]) -> Callable[[Any], T]:
    def read(value: Any) -> T:  # noqa: ANN401  # what JSON held
        if type(value) is not kind:
            raise ValueError
        return value

    return read


_text, _number, _flag, _list = _typed(str), _typed(int), _typed(bool), _typed(list)
_mapping: Callable[[Any], dict[str, Any]] = _typed(dict)


def _optional(read: Callable[[Any], T]) -> Callable[[Any], T | None]:
    return lambda value: None if value is None else read(value)


def _instant(value: Any) -> datetime:  # noqa: ANN401
    instant = datetime.fromisoformat(_text(value))
    if instant.tzinfo is None:
        raise ValueError
    return instant


def _bytes(value: Any) -> bytes:  # noqa: ANN401
    return bytes.fromhex(_text(value))


def _cmk(value: Any) -> CmkName:  # noqa: ANN401
    account, region, key_id = map(_text, _list(value))
    return CmkName(account, region, key_id)


def _metadata(value: Any) -> tuple[tuple[str, str], ...]:  # noqa: ANN401
    return tuple((_text(name), _text(text)) for name, text in _list(value))


_CREATION: Mapping[str, Callable[[Any], Any]] = {
    "tag": _text,
    "spec": KEY_SPECS.__getitem__,
    "alias": _text,
    "sends": _number,
    "first_sent_at": _optional(_instant),
    "key_id": _text,
    "kms_request_id": _text,
}
_LATER_OF_A_CREATION: Mapping[str, Any] = {"kms_request_id": ""}
_FAILURE: Mapping[str, Callable[[Any], Any]] = {"reason": _text, "message": _text, "metadata": _metadata}
_KEY: Mapping[str, Callable[[Any], Any]] = {
    "name": _cmk,
    "arn": _text,
    "dkms_instance_id": _text,
    "spec": _optional(KEY_SPECS.__getitem__),
    "state": KeyState,
    "origin": _text,
    "created_at": _optional(_instant),
    "delete_at": _optional(_instant),
    "as_of": _optional(_instant),
}
_FIELDS: Mapping[str, Callable[[Any], Any]] = {
    "record_id": _text,
    "caller": _text,
    "request_id": _text,
    "kind": Kind,
    "request_digest": _bytes,
    "region": _text,
    "dkms_instance_id": _text,
    "state": State,
    "version": _number,
    "cmk": _optional(_cmk),
    "creation": _optional(lambda tree: Creation(**_read({**_LATER_OF_A_CREATION, **_mapping(tree)}, _CREATION))),
    "first": _flag,
    "restored": _flag,
    "material_id": _text,
    "algorithm": _text,
    "parameters": _text,
    "sends": _number,
    "refused": _number,
    "pair_expiries": lambda value: tuple(map(_instant, _list(value))),
    "check_value": _bytes,
    "kms_request_id": _text,
    "accepted_at": _optional(_instant),
    "evidence": _optional(Evidence),
    "entropy_source": _text,
    "entropy_tests": _text,
    "wrapping_public_key_digest": _bytes,
    "audit_line": _text,
    "receipt": _text,
    "key": _optional(lambda tree: ExternalKey(**_read(tree, _KEY))),
    "failure": _optional(lambda tree: Failure(**_read(tree, _FAILURE))),
    "created_at": _optional(_instant),
    "updated_at": _optional(_instant),
}
_LATER: Mapping[str, Any] = dict.fromkeys(
    ("entropy_source", "entropy_tests", "wrapping_public_key_digest", "audit_line", "receipt"), ""
)
"""Fields that bodies of schema 1 did not have at first, with what they are read as where they are missing."""

"""Prints answers: a table of names and values for people, protobuf's JSON for programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import MessageToDict

import keybroker_client as kc

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from google.protobuf.internal.enum_type_wrapper import _EnumTypeWrapper
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp

    Row = tuple[str, str]


def show(args: argparse.Namespace, rows: Sequence[Row], fields: dict[str, Any]) -> None:
    """Prints an answer as --output says. Rows without a value are left out."""
    if args.output == "json":
        print(json.dumps(fields, indent=2))
        return
    shown = [(name, printable(value)) for name, value in rows if value]
    width = max(len(name) for name, _ in shown)
    for name, value in shown:
        print(f"{name:<{width}}  {value}")


def show_table(
    args: argparse.Namespace, header: Sequence[str], lines: Sequence[Sequence[str]], fields: dict[str, Any]
) -> None:
    """Prints a list as --output says: a line for each entry under a header; "-" where there is no value."""
    if args.output == "json":
        print(json.dumps(fields, indent=2))
        return
    cells = [tuple(header), *(tuple(printable(cell) or "-" for cell in line) for line in lines)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def as_json(message: Message) -> dict[str, Any]:
    """Protobuf's JSON with the field names of the .proto; fields without a value are there, with their default."""
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def key_rows(key: kc.ExternalKey) -> list[Row]:
    """The rows that describe a CMK."""
    return [
        ("key id", key.key_id),
        ("state", label(kc.KeyState, key.state)),
        ("spec", label(kc.KeySpec, key.key_spec)),
        ("origin", label(kc.KeyOrigin, key.origin)),
        ("instance", f"{key.instance} ({key.dkms_instance_id})" if key.dkms_instance_id else key.instance),
        ("ARN", key.arn),
        ("created", instant(key, "create_time")),
        ("will be deleted", instant(key, "delete_time")),
    ]


def label(enum: _EnumTypeWrapper[Any], value: int) -> str:
    """The name of an enum's value without its prefix; the number if this version has no name for it."""
    names = enum.DESCRIPTOR.values_by_number
    if value not in names:
        return str(value)
    prefix = names[0].name.removesuffix("UNSPECIFIED")
    return names[value].name.removeprefix(prefix)


def instant(message: Message, field: str) -> str:
    """A Timestamp field in UTC; empty if it is not set."""
    if not message.HasField(field):
        return ""
    timestamp: Timestamp = getattr(message, field)
    return f"{timestamp.ToDatetime():%Y-%m-%d %H:%M:%S} UTC"


def check_value_text(value: kc.KeyCheckValue) -> str:
    """A key check value as people compare it, with its method: "cmac-aes:1a2b3c"."""
    if not value.value:
        return ""
    method = label(kc.KeyCheckValueMethod, value.method).lower().replace("_", "-")
    return f"{method}:{value.value.hex()}"


def printable(text: str) -> str:
    """Text of somebody else without what could steer a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)

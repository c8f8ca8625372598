"""PageNumber and PageSize, the same in every list. Source: contract sections 1.7 and 1.8."""

from collections.abc import Sequence
from typing import TypeVar

from kms_emulator.operation import Call, Parameter

DEFAULT_PAGE_SIZE = 10
MAX_PAGE_SIZE = 100

PAGE_PARAMETERS = (
    Parameter("PageNumber", note="from 1 (default 1)"),
    Parameter("PageSize", note=f"1 to {MAX_PAGE_SIZE} (default {DEFAULT_PAGE_SIZE})"),
)

Item = TypeVar("Item")


def paged(call: Call, items: Sequence[Item]) -> tuple[Sequence[Item], dict[str, object]]:
    """The page asked for, empty beyond the last, and the counters that go with it."""
    number = call.integer("PageNumber", 1, low=1)
    size = call.integer("PageSize", DEFAULT_PAGE_SIZE, low=1, high=MAX_PAGE_SIZE)
    start = (number - 1) * size
    return items[start : start + size], {"TotalCount": len(items), "PageNumber": number, "PageSize": size}

"""Switches for the places where the contract is open: each value is a reading of the documentation.

The live service was never asked, so a client has to be safe under every combination. Source: contract
sections 6 and 9.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace


@dataclass(frozen=True, slots=True)
class Readings:
    """One value per open question; the defaults are what the contract suggests.

    Each field's metadata holds its meaning and the contract's section. A wrong value raises ValueError, a wrong type
    TypeError; both name the reading.
    """

    same_material_reimport: bool = field(
        default=True,
        metadata={
            "meaning": "true: the bound material may be imported again; false: any second import is refused",
            "source": "2, 6, 9.1",
        },
    )
    newest_token_only: bool = field(
        default=False,
        metadata={
            "meaning": "false: every unexpired import token of a CMK is valid; true: only the one issued last",
            "source": "6, 9.4",
        },
    )
    cancel_empty_key_state: str = field(
        default="PendingImport",
        metadata={
            "meaning": "what CancelKeyDeletion makes of a CMK without material: PendingImport or Enabled",
            "source": "1.6, 9.5",
        },
    )
    tag_filters_ignored: bool = field(
        default=False,
        metadata={
            "meaning": "true: ListKeys takes TagKey and TagValue filters and does not apply them",
            "source": "1.7",
        },
    )
    tag_filter_lag_seconds: float = field(
        default=0.0,
        metadata={"meaning": "how long after it was set a tag is first found by a filter of ListKeys", "source": "1.7"},
    )
    enabled_lag_seconds: float = field(
        default=0.0,
        metadata={
            "meaning": "how long after the import DescribeKey and ListKeys still show PendingImport",
            "source": "9.7",
        },
    )
    enabled_lag_describes: int = field(
        default=0,
        metadata={"meaning": "how many DescribeKeys after the import still show PendingImport", "source": "9.7"},
    )

    def __post_init__(self) -> None:
        for item in fields(self):
            _check(item.name, getattr(self, item.name), item.default)

    def changed(self, changes: Mapping[str, object]) -> "Readings":
        """A copy with `changes` applied; ValueError or TypeError when a name or value does not fit."""
        unknown = sorted(set(changes) - {item.name for item in fields(self)})
        if unknown:
            raise ValueError(f"unknown reading: {', '.join(unknown)}")
        return replace(self, **changes)  # type: ignore[arg-type]  # __post_init__ checks types at run time

    def to_mapping(self) -> dict[str, object]:
        """The values by name, as JSON takes them."""
        return asdict(self)

    def changed_by_text(self, assignment: str) -> "Readings":
        """A copy with one `name=value` applied, as a command line gives it; ValueError when it does not fit."""
        name, _, text = assignment.partition("=")
        default = next((item.default for item in fields(self) if item.name == name), None)
        if isinstance(default, bool):
            if text not in {"true", "false"}:
                raise ValueError(f"{name} must be true or false")
            return self.changed({name: text == "true"})
        if isinstance(default, int | float):
            return self.changed({name: type(default)(text)})
        return self.changed({name: text})


def _check(name: str, value: object, default: object) -> None:
    if isinstance(default, bool) != isinstance(value, bool):
        raise TypeError(f"{name} must be of type {type(default).__name__}")
    if isinstance(default, float) and not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number")
    if not isinstance(default, float) and not isinstance(value, type(default)):
        raise TypeError(f"{name} must be of type {type(default).__name__}")
    if isinstance(value, int | float) and not 0 <= value < float("inf"):
        raise ValueError(f"{name} must not be negative")
    if name == "cancel_empty_key_state" and value not in {"PendingImport", "Enabled"}:
        raise ValueError(f"{name} must be PendingImport or Enabled")

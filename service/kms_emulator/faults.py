"""One fault of the dial: what goes wrong, where, and how often.

A fault of the call strikes one operation before its commit (nothing happened yet) or after it (it happened, the answer
is not what it should be). A public-key fault makes GetParametersForImport give a wrapping public key that a careful
client refuses. What a struck call then suffers is kms_emulator.fault_effects.
"""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Literal, get_args

from kms_emulator.errors import rule_for_code

When = Literal["before", "after"]
Action = Literal[
    "drop",
    "reset",
    "delay",
    "hold",
    "late",
    "foreign_import",
    "error",
    "truncated",
    "garbage",
    "oversize",
    "public_key_unparsable",
    "public_key_short",
    "public_key_exponent_3",
    "public_key_tiny_factor",
    "public_key_swapped",
]

ACTION_MEANINGS: Mapping[str, str] = {
    "drop": "close the connection without an answer",
    "reset": "reset the connection (RST) without an answer",
    "delay": "wait `delay_seconds` (real time), then go on",
    "hold": "wait until the held calls are released, then go on",
    "late": "before only: no answer, after `delay_seconds` (real time) close the connection; the call is checked and "
    "performed `late_seconds` after its arrival, by real time or a moved clock (0: when late calls are told to land); "
    "with `checked_first` an ImportKeyMaterial is checked on arrival and binds then",
    "foreign_import": "another importer binds random material to the call's CMK, if it has none; then go on",
    "error": "answer `status` and `code`; the error table gives what is left out",
    "truncated": "full Content-Length, half the body, then close",
    "garbage": "200 with a body that is not JSON",
    "oversize": "200 with a valid body padded to `size_bytes`",
    "public_key_unparsable": "PublicKey is base64, but no key",
    "public_key_short": "PublicKey is RSA-1024",
    "public_key_exponent_3": "PublicKey is RSA-2048 with public exponent 3",
    "public_key_tiny_factor": "PublicKey is RSA-2048 with a modulus divisible by 3",
    "public_key_swapped": "PublicKey is sound, but belongs to another token",
}

ANY_OPERATION = "*"
CHECKED_FIRST_OPERATION = "ImportKeyMaterial"
"""The operation whose checks and commit can lie apart: the others have nothing that ages in between."""

_PUBLIC_KEY_PREFIX = "public_key_"
_ACCEPTED_TYPES: Mapping[object, tuple[type, ...]] = {float: (int, float), int: (int,), bool: (bool,)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One entry of the dial.

    It strikes `count` times (0 = for ever) after letting `skip` matching calls pass, each time with `probability`.
    `when` means nothing for a public-key fault. `retry_after_ms` adds header x-acs-retry-after to an error.
    `late_seconds` and `checked_first` belong to a late fault; `checked_first` names ImportKeyMaterial as its operation.
    ValueError or TypeError names the field that does not fit.
    """

    operation: str = ANY_OPERATION
    when: When = "before"
    action: Action
    count: int = 1
    skip: int = 0
    probability: float = 1.0
    delay_seconds: float = 0.0
    late_seconds: float = 0.0
    checked_first: bool = False
    status: int = 0
    code: str = ""
    message: str = ""
    retry_after_ms: int = 0
    size_bytes: int = 8 * 1024 * 1024

    def __post_init__(self) -> None:
        for item in fields(self):
            _check_type(item.name, getattr(self, item.name), item.type)
        self._check_values()
        self._check_late()

    @property
    def public_key(self) -> bool:
        """Whether it changes the wrapping public key instead of the transport."""
        return self.action.startswith(_PUBLIC_KEY_PREFIX)

    def _check_values(self) -> None:
        if self.when not in get_args(When):
            raise ValueError("when must be before or after")
        if self.action not in get_args(Action):
            raise ValueError(f"action must be one of {', '.join(get_args(Action))}")
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError("probability must be between 0 and 1")
        if self.action == "error" and not self.status and rule_for_code(self.code) is None:
            raise ValueError("an error needs status, or a code of the error table")

    def _check_late(self) -> None:
        if self.action == "late" and self.when != "before":
            raise ValueError("when must be before for a late fault")
        if self.checked_first and (self.action, self.operation) != ("late", CHECKED_FIRST_OPERATION):
            raise ValueError(f"checked_first needs action late and operation {CHECKED_FIRST_OPERATION}")

    @classmethod
    def from_mapping(cls, values: Mapping[str, object]) -> "Fault":
        """A fault from JSON; ValueError or TypeError names what does not fit."""
        unknown = sorted(set(values) - {item.name for item in fields(cls)})
        if unknown:
            raise ValueError(f"unknown field of a fault: {', '.join(unknown)}")
        if "action" not in values:
            raise ValueError("action is needed")
        return cls(**values)  # type: ignore[arg-type]  # __post_init__ checks types at run time

    @classmethod
    def from_text(cls, text: str) -> "Fault":
        """A fault from `name=value,name=value`, as a command line gives it."""
        values: dict[str, object] = {}
        types = {item.name: type(item.default) for item in fields(cls) if item.default is not MISSING}
        for assignment in text.split(","):
            name, _, value = assignment.partition("=")
            convert = types.get(name, str)
            try:
                values[name] = _flag(value) if convert is bool else convert(value)
            except ValueError as error:
                raise ValueError(f"{name} must be of type {convert.__name__}") from error
        return cls.from_mapping(values)

    def to_mapping(self) -> dict[str, object]:
        """The fields as JSON takes them."""
        return asdict(self)


def _flag(text: str) -> bool:
    if text not in {"true", "false"}:
        raise ValueError(text)
    return text == "true"


def _check_type(name: str, value: object, declared: object) -> None:
    wanted = _ACCEPTED_TYPES.get(declared, (str,))
    if isinstance(value, bool) != (declared is bool) or not isinstance(value, wanted):
        raise TypeError(f"{name} must be of type {wanted[-1].__name__}")
    if isinstance(value, int | float) and not 0 <= value < float("inf"):
        raise ValueError(f"{name} must not be negative")

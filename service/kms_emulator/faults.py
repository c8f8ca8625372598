"""The fault dial: what goes wrong, where, and how often.

A transport fault strikes one operation before its commit (nothing happened) or after it (it happened, the answer is
not what it should be). A public-key fault makes GetParametersForImport give a wrapping public key that a careful
client refuses.
"""

import random
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Literal, get_args

from kms_emulator.errors import rule_for_code

When = Literal["before", "after"]
Action = Literal[
    "drop",
    "delay",
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
    "delay": "wait `delay_seconds` (real time), then go on",
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
_PUBLIC_KEY_PREFIX = "public_key_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One entry of the dial.

    It strikes `count` times (0 = for ever) after letting `skip` matching calls pass, each time with `probability`.
    `when` means nothing for a public-key fault. `retry_after_ms` adds header x-acs-retry-after to an error.
    ValueError or TypeError names the field that does not fit.
    """

    operation: str = ANY_OPERATION
    when: When = "before"
    action: Action
    count: int = 1
    skip: int = 0
    probability: float = 1.0
    delay_seconds: float = 0.0
    status: int = 0
    code: str = ""
    message: str = ""
    retry_after_ms: int = 0
    size_bytes: int = 8 * 1024 * 1024

    def __post_init__(self) -> None:
        for item in fields(self):
            _check_type(item.name, getattr(self, item.name), item.type)
        if self.when not in get_args(When):
            raise ValueError("when must be before or after")
        if self.action not in get_args(Action):
            raise ValueError(f"action must be one of {', '.join(get_args(Action))}")
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError("probability must be between 0 and 1")
        if self.action == "error" and not self.status and rule_for_code(self.code) is None:
            raise ValueError("an error needs status, or a code of the error table")

    @property
    def public_key(self) -> bool:
        """Whether it changes the wrapping public key instead of the transport."""
        return self.action.startswith(_PUBLIC_KEY_PREFIX)

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
                values[name] = convert(value)
            except ValueError as error:
                raise ValueError(f"{name} must be of type {convert.__name__}") from error
        return cls.from_mapping(values)

    def to_mapping(self) -> dict[str, object]:
        """The fields as JSON takes them."""
        return asdict(self)


def _check_type(name: str, value: object, declared: object) -> None:
    wanted: tuple[type, ...] = (int, float) if declared is float else (int,) if declared is int else (str,)
    if isinstance(value, bool) or not isinstance(value, wanted):
        raise TypeError(f"{name} must be of type {wanted[-1].__name__}")
    if isinstance(value, int | float) and not 0 <= value < float("inf"):
        raise ValueError(f"{name} must not be negative")


@dataclass(slots=True)
class _Armed:
    fault: Fault
    seen: int = 0
    struck: int = 0

    @property
    def spent(self) -> bool:
        return 0 < self.fault.count <= self.struck


class FaultDial:
    """The faults in force, in the order they were added; safe to use from many threads."""

    def __init__(self, faults: Iterable[Fault] = (), *, seed: int | None = None) -> None:
        self._lock = threading.Lock()
        self._random = random.Random(seed)  # noqa: S311 -- chance of a fault, nothing secret
        self._armed: list[_Armed] = [_Armed(fault) for fault in faults]

    def add(self, fault: Fault) -> None:
        """Arm one more fault."""
        with self._lock:
            self._armed.append(_Armed(fault))

    def clear(self) -> None:
        """Disarm all."""
        with self._lock:
            self._armed.clear()

    def armed(self) -> list[tuple[Fault, int]]:
        """Faults that may still strike, each with how often it has struck."""
        with self._lock:
            return [(entry.fault, entry.struck) for entry in self._armed]

    def strike(self, operation: str, when: When) -> list[Fault]:
        """The transport faults that strike this call at this moment."""
        return self._strike(lambda fault: not fault.public_key and fault.when == when, operation)

    def strike_public_key(self, operation: str) -> Fault | None:
        """The public-key fault that strikes this call, if any."""
        return next(iter(self._strike(lambda fault: fault.public_key, operation)), None)

    def _strike(self, concerns: Callable[[Fault], bool], operation: str) -> list[Fault]:
        with self._lock:
            matching = [
                entry
                for entry in self._armed
                if entry.fault.operation in {ANY_OPERATION, operation} and concerns(entry.fault)
            ]
            struck = [entry.fault for entry in matching if self._hits(entry)]
            self._armed = [entry for entry in self._armed if not entry.spent]
            return struck

    def _hits(self, entry: _Armed) -> bool:
        entry.seen += 1
        if entry.seen <= entry.fault.skip or self._random.random() >= entry.fault.probability:
            return False
        entry.struck += 1
        return True

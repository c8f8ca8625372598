"""What an operation of the API is, and one call of it with its parameters read by the documented rules."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from kms_emulator.errors import KmsError, invalid_parameter
from kms_emulator.standing import Standing

if TYPE_CHECKING:
    from kms_emulator.kms import Kms

API_VERSION = "2016-01-20"

Commit = Callable[[], dict[str, object]]
"""What performs a call whose checks have passed; the reply without its RequestId."""

_LOGGED_LENGTH = 300


class KeyReference(Enum):
    """What the parameter KeyId of an operation may hold."""

    NONE = "no CMK"
    ID_ONLY = "key id"
    ANY = "key id, alias or ARN"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One request parameter: a row of the fidelity document, and the check that it is there."""

    name: str
    required: bool = False
    note: str = ""
    standing: Standing = Standing.DOCUMENTED


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of the API.

    `quota` names a class of kms_emulator.quotas. `external_only` refuses CMKs whose origin is not EXTERNAL.
    `handler` returns the reply without its RequestId. `check`, where checks and commit can lie apart, does the checks
    and returns the commit.
    """

    name: str
    handler: "Callable[[Kms, Call], dict[str, object]]"
    quota: str
    source: str
    parameters: tuple[Parameter, ...]
    key_reference: KeyReference = KeyReference.NONE
    external_only: bool = False
    note: str = ""
    standing: Standing = Standing.DOCUMENTED
    check: "Callable[[Kms, Call], Commit] | None" = None


@dataclass(slots=True)
class Call:
    """One request for an operation.

    `key_id` is for the call log: what the request says, cut to 300 characters, until the CMK itself is known.
    """

    operation: Operation
    parameters: Mapping[str, str] = field(default_factory=dict)
    key_id: str = ""

    def take(self, parameters: Mapping[str, str]) -> None:
        """The parameters, once the sender is authenticated."""
        self.parameters = parameters
        self.key_id = self.text("KeyId")[:_LOGGED_LENGTH]

    def check_required(self) -> None:
        """400 MissingParameter for the first required parameter that is absent or empty."""
        for parameter in self.operation.parameters:
            if parameter.required and not self.parameters.get(parameter.name.replace(".N", ".1")):
                raise KmsError("MissingParameter", variables={"name": parameter.name})

    def text(self, name: str, default: str = "") -> str:
        """The value as it came."""
        return self.parameters.get(name, default)

    def choice(self, name: str, allowed: tuple[str, ...], default: str = "") -> str:
        """A value out of a closed, case-sensitive set; `default` when absent or empty."""
        value = self.parameters.get(name) or default
        if value not in allowed:
            raise invalid_parameter(name)
        return value

    def flag(self, name: str) -> bool:
        """`true` or `false` in any case; absent is false."""
        value = (self.parameters.get(name) or "false").lower()
        if value not in {"true", "false"}:
            raise invalid_parameter(name)
        return value == "true"

    def integer(self, name: str, default: int, *, low: int = 0, high: float = math.inf) -> int:
        """A decimal integer of at most 19 digits, low ≤ value ≤ high; `default` when absent or empty."""
        text = self.parameters.get(name)
        if not text:
            return default
        if not text.isascii() or not text.lstrip("-").isdigit() or len(text) > len("-9223372036854775808"):
            raise invalid_parameter(name)
        value = int(text)
        if not low <= value <= high:
            raise invalid_parameter(name)
        return value

    def json_value(self, name: str) -> object:
        """The value parsed as JSON; None when absent or empty."""
        text = self.parameters.get(name)
        if not text:
            return None
        try:
            parsed: object = json.loads(text)
        except ValueError as error:
            raise invalid_parameter(name) from error
        return parsed

    def numbered(self, name: str) -> list[str]:
        """`name.1`, `name.2`, … up to the first gap. Source: contract section 3.1."""
        values: list[str] = []
        while (value := self.parameters.get(f"{name}.{len(values) + 1}")) is not None:
            values.append(value)
        return values

"""What every section of the configuration is built from."""

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

_ADDRESS = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^\[\]:]+):(?P<port>[0-9]{1,5})")

_MAX_PORT = 65535

InstanceName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]

RequestsPerSecond = Annotated[int, Field(ge=1, le=100_000)]

Seconds = Annotated[float, Field(gt=0, le=2_000_000)]  # grpc takes milliseconds as 32 bits with a sign


class ConfigurationError(ValueError):
    """The configuration can't be used. The text says which key is wrong and why; it quotes no secret."""


class Section(BaseModel):
    """A mapping of the configuration: unknown keys are errors, and no value is quoted in one."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @field_validator("*")
    @classmethod
    def _can_be_paths(cls, value: object) -> object:
        """What no file can be called would be an error of another kind when the file is opened."""
        for path in value if isinstance(value, list) else [value]:
            if isinstance(path, Path) and not _can_be_path(str(path)):
                raise ValueError("is not a path")
        return value


def split_address(value: str) -> tuple[str, int]:
    """Host and port of "host:port" or "[v6]:port". Raises ValueError."""
    match = _ADDRESS.fullmatch(value)
    if match is None or int(match["port"]) > _MAX_PORT:
        raise ValueError("must be HOST:PORT, with an IPv6 host in brackets")
    return match["host"].strip("[]"), int(match["port"])


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host: localhost, 127.0.0.0/8 or ::1. A name is not looked up."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _can_be_path(text: str) -> bool:
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False

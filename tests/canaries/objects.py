"""One instance of every class of keybroker that has something to show, each text in it a secret of its own.

A class that shows no more than its name and address, as Python's objects do, has nothing to show. Instances are built
from the types of their fields; what can't be built so has a maker in MAKERS.
"""

import enum
import importlib
import inspect
import os
import pkgutil
import secrets
import types
import typing
from collections import abc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, SecretStr

import keybroker
from keybroker.adapters.audit.stream import StreamStoppedError
from keybroker.adapters.entropy.failures import HealthTestFailed, SourceFailed
from keybroker.adapters.kms import connections
from keybroker.adapters.kms.credentials import CredentialsError
from keybroker.adapters.receipts import ReceiptKey
from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import BrokerError, InvalidField, KmsError, Reason
from keybroker.domain.key_material import KeyMaterial
from keybroker.strict_yaml import DuplicateKeyError
from keybroker.telemetry.logs import _LossyLogger, _OfLibraries
from tests.canaries.search import Secret

_SHOWING = ("__repr__", "__str__", "__format__")
_NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def all_classes() -> Iterator[type[Any]]:
    """Those of keybroker that can be instantiated, without enums: their values are written in the code."""
    for module_info in pkgutil.walk_packages(keybroker.__path__, "keybroker."):
        if not module_info.name.endswith("__main__"):
            module = importlib.import_module(module_info.name)
            for value in vars(module).values():
                if inspect.isclass(value) and value.__module__ == module.__name__ and not _is_abstract(value):
                    yield value


def name_of(cls: type[Any]) -> str:
    """Module and class, without what all have in common."""
    return f"{cls.__module__.removeprefix('keybroker.')}.{cls.__qualname__}"


def shows_something(cls: type[Any]) -> bool:
    """Whether it says more of itself than its name and address."""
    return any(getattr(cls, name) is not getattr(object, name) for name in _SHOWING)


class Maker:
    """Builds instances. `secrets` has what was put into them: each is named after the class and the field."""

    def __init__(self) -> None:
        self.secrets: list[Secret] = []

    def make(self, cls: type[Any]) -> Any:
        """One instance, full of secrets."""
        if cls in MAKERS:
            return MAKERS[cls](self)
        if name_of(cls) in PLAIN_EXCEPTIONS:
            return cls(self.text(name_of(cls), "text"))
        if issubclass(cls, BaseModel):
            values = {
                name: self.value(field.annotation, name_of(cls), name) for name, field in cls.model_fields.items()
            }
            return cls.model_construct(**values)
        if is_dataclass(cls):
            hints = get_type_hints(cls, vars(importlib.import_module(cls.__module__)))
            made = [field for field in fields(cls) if field.init]
            return cls(**{field.name: self.value(hints[field.name], name_of(cls), field.name) for field in made})
        raise TypeError(
            f"{name_of(cls)} has its own way to show itself: write a maker for it in tests/canaries/objects.py"
        )

    def text(self, owner: str, field: str) -> str:
        """A secret text."""
        value = secrets.token_hex(16)
        self.secrets.append(Secret(f"{owner}.{field}", value.encode()))
        return value

    def binary(self, owner: str, field: str) -> bytes:
        """Secret bytes."""
        value = os.urandom(32)
        self.secrets.append(Secret(f"{owner}.{field}", value))
        return value

    def value(self, hint: Any, owner: str, field: str) -> Any:  # noqa: PLR0911  # one for each kind of type
        """Something of this type."""
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is typing.Annotated:
            return self.value(arguments[0], owner, field)
        if origin in {types.UnionType, typing.Union}:
            return self.value(next(each for each in arguments if each is not type(None)), owner, field)
        if origin is Literal:
            return arguments[0]
        if origin in {abc.Mapping, dict}:
            return {self.value(arguments[0], owner, field): self.value(arguments[1], owner, field)}
        if origin is tuple and arguments[-1] is not Ellipsis:
            return tuple(self.value(each, owner, field) for each in arguments)
        if origin in _COLLECTIONS:
            return _COLLECTIONS[origin]([self.value(arguments[0], owner, field)])
        return self._single(hint, owner, field)

    def _single(self, hint: Any, owner: str, field: str) -> Any:  # noqa: PLR0911  # as above
        if hint is str:
            return self.text(owner, field)
        if hint is bytes:
            return self.binary(owner, field)
        if hint is SecretStr:
            return SecretStr(self.text(owner, field))
        if hint in _HARMLESS:
            return _HARMLESS[hint]
        if inspect.isclass(hint) and issubclass(hint, enum.Enum):
            return next(iter(hint))
        if inspect.isclass(hint) and hint.__module__.startswith("keybroker.") and shows_something(hint):
            return self.make(hint) if not _is_abstract(hint) else object()
        return object()


_COLLECTIONS: Mapping[Any, Callable[[list[Any]], Any]] = {
    abc.Sequence: tuple,
    abc.Collection: tuple,
    abc.Iterable: tuple,
    tuple: tuple,
    list: list,
    frozenset: frozenset,
    set: set,
}
_HARMLESS: Mapping[Any, Any] = {
    bool: True,
    int: 3,
    float: 1.5,
    datetime: _NOON,
    timedelta: timedelta(hours=1),
    Path: Path("/some/path"),
    UUID: UUID(int=5),
    type(None): None,
}


def _material(maker: Maker) -> KeyMaterial:
    def fill(buffer: memoryview) -> None:
        buffer[:] = maker.binary("domain.key_material.KeyMaterial", "material")

    return KeyMaterial(32, fill=fill)


def _broker_error(maker: Maker, cls: type[BrokerError] = BrokerError) -> BrokerError:
    owner = name_of(BrokerError)
    metadata = {"key_id": maker.text(owner, "metadata")}
    return BrokerError(Reason.KMS_UNAVAILABLE, maker.text(owner, "message"), metadata=metadata)


def _kms_error(maker: Maker) -> KmsError:
    owner = name_of(KmsError)
    error = KmsError(
        Reason.KMS_UNAVAILABLE,
        maker.text(owner, "message"),
        kms_code=maker.text(owner, "kms_code"),
        committed_nothing=True,
        kms_request_id=maker.text(owner, "kms_request_id"),
    )
    error.__cause__ = ValueError(maker.text(owner, "cause"))
    return error


def _receipt_key(maker: Maker) -> ReceiptKey:
    seed = maker.binary(name_of(ReceiptKey), "private_key")
    return ReceiptKey(Ed25519PrivateKey.from_private_bytes(seed))


def _texts(cls: Callable[..., Any], *names: str) -> Callable[[Maker], Any]:
    def make(maker: Maker) -> Any:
        return cls(*(maker.text(name_of(cls), name) for name in names))  # type: ignore[arg-type]

    return make


def _pool(cls: type[Any]) -> Callable[[Maker], Any]:
    """Connections are made without a URL: its path and query come with a request."""
    return lambda maker: cls("kms.example", 443)


MAKERS: Mapping[Any, Callable[[Maker], Any]] = {
    KeyMaterial: _material,
    _LossyLogger: lambda _: _LossyLogger(),
    ReceiptKey: _receipt_key,
    StreamStoppedError: lambda maker: StreamStoppedError(
        OSError(5, maker.text(name_of(StreamStoppedError), "cause")), 3
    ),
    Deadline: lambda maker: Deadline(5.0, monotonic=lambda: 1.0, caller=maker.text(name_of(Deadline), "caller")),
    BrokerError: _broker_error,
    InvalidField: _texts(InvalidField, "field", "message"),
    KmsError: _kms_error,
    SourceFailed: _texts(SourceFailed, "kind"),
    HealthTestFailed: _texts(HealthTestFailed, "test"),
    CredentialsError: _texts(CredentialsError, "kind"),
    DuplicateKeyError: lambda maker: DuplicateKeyError(None, None, maker.text(name_of(DuplicateKeyError), "problem")),
    _OfLibraries: lambda maker: _OfLibraries(),
    connections._PlainPool: _pool(connections._PlainPool),
    connections._TlsPool: _pool(connections._TlsPool),
    connections._PlainConnection: _pool(connections._PlainConnection),
    connections._TlsConnection: _pool(connections._TlsConnection),
}
"""For what can't be built from its fields, exceptions among it: what they are given is shown."""

PLAIN_EXCEPTIONS = {
    "adapters.audit.file.AuditFileError",
    "adapters.audit.lines.NotALineError",
    "adapters.kms.pacer.CalledOff",
    "adapters.ledger.files.LedgerFileError",
    "adapters.ledger.records.Unreadable",
    "adapters.ledger.sealing.CannotOpen",
    "ports.CmkHeld",
    "ports.RequestKnown",
    "ports.StaleVersion",
    "probe.course.ProbeStopped",
    "probe.throwaways.CannotTell",
    "self_tests.SelfTestFailed",
    "settings.base.ConfigurationError",
}
"""Those that are raised with one text. What is in it where a secret is at hand is tried in test_refusals.py."""


def _is_abstract(cls: type[Any]) -> bool:
    return issubclass(cls, enum.Enum) or bool(getattr(cls, "_is_protocol", False)) or isinstance(cls, TypeVar)

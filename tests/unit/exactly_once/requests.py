"""Who asks for what."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from uuid import NAMESPACE_OID, uuid5

from keybroker.domain.attempt import Kind
from keybroker.domain.external_key import NewKey
from keybroker.domain.key_spec import AES_128, AES_256
from keybroker.usecases.import_wrapped_key_material import Given

OAEP = "RSAES_OAEP_SHA_256"
PKCS1 = "RSAES_PKCS1_V1_5"


@dataclass(eq=False, slots=True)
class Request:
    """`target`: the place of an existing CMK in the site's list, or a CMK to make. `given`: once the caller wrapped."""

    name: str
    caller: str
    kind: Kind
    target: int | NewKey
    algorithm: str = OAEP
    given: Given | None = None

    @property
    def request_id(self) -> str:
        return str(uuid5(NAMESPACE_OID, self.name))

    @property
    def identity(self) -> tuple[str, str]:
        return self.caller, self.request_id


def importing(name: str, target: int | NewKey = 0, *, caller: str = "a caller", algorithm: str = OAEP) -> Request:
    """ImportExternalKey."""
    return Request(name, caller, Kind.IMPORT, target, algorithm)


def wrapping(name: str, target: int = 0, *, caller: str = "a caller") -> Request:
    """ImportWrappedKeyMaterial."""
    return Request(name, caller, Kind.IMPORT_WRAPPED, target)


def creating(name: str, new_key: NewKey, *, caller: str = "a caller") -> Request:
    """CreateExternalKey."""
    return Request(name, caller, Kind.CREATE, new_key)


@dataclass(frozen=True, slots=True)
class People:
    """Who asks together, and how many CMKs there are for them."""

    name: str
    cmks: int

    def requests(self, generation: int, first: int) -> list[Request]:
        """New requests, for CMKs from the `first` of the site's list on."""
        return _PEOPLE[self.name](str(generation), first)


def _everybody(nth: str, first: int) -> list[Request]:
    return [
        importing(f"one {nth}", first),
        importing(f"two {nth}", first, caller="another"),
        importing(f"three {nth}", first, algorithm=PKCS1),
        importing(f"one {nth}", first + 1, caller="another"),
        wrapping(f"four {nth}", first),
        wrapping(f"five {nth}", first + 1, caller="another"),
        importing(f"six {nth}", NewKey(AES_128, alias=f"alias/six-{nth}")),
        importing(f"seven {nth}", NewKey(AES_256), caller="another"),
        creating(f"eight {nth}", NewKey(AES_128)),
    ]


def _rivals(nth: str, first: int) -> list[Request]:
    return [
        importing(f"one {nth}", first),
        importing(f"two {nth}", first, caller="another"),
        importing(f"three {nth}", first, algorithm=PKCS1),
        wrapping(f"four {nth}", first, caller="another"),
    ]


def _makers(nth: str, first: int) -> list[Request]:  # their CMKs are to be made
    return [
        importing(f"six {nth}", NewKey(AES_128, alias=f"alias/six-{nth}")),
        importing(f"seven {nth}", NewKey(AES_256), caller="another"),
        creating(f"eight {nth}", NewKey(AES_128), caller="another"),
    ]


_PEOPLE: Mapping[str, Callable[[str, int], list[Request]]] = {
    "everybody": _everybody,
    "rivals": _rivals,
    "makers": _makers,
}

EVERYBODY = People("everybody", 2)
"""Two callers and all kinds of requests; they use one request id both."""

RIVALS = People("rivals", 1)
"""All want the same CMK."""

MAKERS = People("makers", 1)
"""All want CMKs of their own; one is there that is nobody's."""

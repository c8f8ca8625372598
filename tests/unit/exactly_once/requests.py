"""Who asks for what."""

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


def everybody() -> list[Request]:
    """Two callers, all kinds of requests, most of them for the same CMK; one request id is used by both."""
    return [
        importing("one"),
        importing("two", caller="another"),
        importing("three", algorithm=PKCS1),
        importing("one", 1, caller="another"),
        wrapping("four"),
        wrapping("five", 1, caller="another"),
        importing("six", NewKey(AES_128, alias="alias/six")),
        importing("seven", NewKey(AES_256), caller="another"),
        creating("eight", NewKey(AES_128)),
    ]


def rivals() -> list[Request]:
    """All want the same CMK."""
    return [
        importing("one"),
        importing("two", caller="another"),
        importing("three", algorithm=PKCS1),
        wrapping("four", caller="another"),
    ]


def makers() -> list[Request]:
    """All want CMKs of their own."""
    return [
        importing("six", NewKey(AES_128, alias="alias/six")),
        importing("seven", NewKey(AES_256), caller="another"),
        creating("eight", NewKey(AES_128), caller="another"),
    ]

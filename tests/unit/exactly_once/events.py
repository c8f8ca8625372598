"""What can happen at a site, as values: Hypothesis draws them, scenarios are lists of them, failures print them."""

from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Literal

Fate = Literal["before", "after", "late", "checked"]


class What(StrEnum):
    """Kinds of events. `number` says which one, or how much."""

    CALL = auto()  # request `number`, first time or repeated
    CONSENT = auto()  # the same, with consent to a second CMK
    RENEW = auto()  # the same people come with new requests, for new CMKs: from now on these are meant
    RECOVER = auto()  # a pass of the background recovery
    HAND_OUT = auto()  # import parameters of CMK `number` go to a caller
    DELETE_ORPHAN = auto()  # CMK `number`
    RESTART = auto()
    FOREIGN_IMPORT = auto()  # into CMK `number`, by somebody beside the broker
    FOREIGN_FETCH = auto()  # a pair for CMK `number`, by somebody beside the broker
    FOREIGN_TAG = auto()  # CMK `number` gets a copy of the tag of a request for a CMK of another spec
    FOREIGN_ALIAS = auto()  # CMK `number` gets the alias that a request wants
    LAND = auto()  # messages that are under way arrive
    MOVE = auto()  # `number` seconds pass
    LOCAL_CLOCK = auto()  # the broker's clock is set `number` seconds forward or back, the KMS's is not
    COPY_LEDGER = auto()
    RESTORE_LEDGER = auto()  # all processes stop, the copy takes the ledger's place, they start
    CRASH = auto()  # only as an interrupt: this process dies here
    LEDGER_FAILS = auto()  # only as an interrupt: this write is reported as failed


@dataclass(frozen=True, slots=True)
class Fault:
    """The next requests of this operation: what becomes of them, and what their sender is told."""

    operation: str
    error: str = "timeout"  # a name of faults.ERRORS
    fate: Fate = "before"
    times: int = 1


@dataclass(frozen=True, slots=True)
class Interrupt:
    """At the `nth` time that the process comes to `place`, `event` happens while it stands still there."""

    place: str
    event: "Event"
    nth: int = 1


@dataclass(frozen=True, slots=True)
class Event:
    """`process` is who acts, where it is a process."""

    what: What
    number: int = 0
    process: int = 0
    faults: tuple[Fault, ...] = ()
    interrupts: tuple[Interrupt, ...] = ()


WRITES = tuple(
    f"{name}: {when}"
    for name in (
        "claim",
        "prepare",
        "resend",
        "rewrap",
        "acceptance",
        "refusal",
        "release",
        "finish",
        "create",
        "create refused",
        "created",
    )
    for when in ("before", "after")
)
"""Places of usecases/rows.py where the ledger is written."""

REQUESTS = tuple(
    f"{operation}: {when}"
    for operation in (
        "CreateKey",
        "CreateAlias",
        "DescribeKey",
        "GetParametersForImport",
        "ImportKeyMaterial",
        "ListKeys",
        "Encrypt",
    )
    for when in ("before", "after")
)
"""Before a request arrives at the KMS; after it had its effect, before its answer is read."""

PLACES = (
    *WRITES,
    *REQUESTS,
    "pair: in hand",
    "material: generated",
    "send: before",
    "send: accepted",
    "send: refused",
    "rewrap: pair in hand",
    "create: before",
    "create: accepted",
)

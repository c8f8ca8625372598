"""What the matrix is made of: where a fault strikes, what it does, how the KMS is read, and the cells of all these."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import product

from kms_emulator import Fault

DEADLINE_SECONDS = 3.0
READ_TIMEOUT_SECONDS = 1.0
PAST_THE_DEADLINE_SECONDS = 3.5
TAG_LAG_SECONDS = 4.0

EXISTING = "existing"
NEW = "new"
IMPORT = "ImportKeyMaterial"
CONFIRM = "DescribeKey, to confirm"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a fault strikes: an operation, after letting some calls of it pass.

    `alias`: the new CMK is to have one. `lost_creation`: the answer to CreateKey is lost, so that it is looked for.
    """

    title: str
    operation: str
    skip: int = 0
    alias: bool = False
    lost_creation: bool = False


PLACES: Mapping[str, tuple[Place, ...]] = {
    EXISTING: (
        Place("DescribeKey, before the claim", "DescribeKey"),
        Place("GetParametersForImport", "GetParametersForImport"),
        Place(IMPORT, "ImportKeyMaterial"),
        Place(CONFIRM, "DescribeKey", skip=1),
    ),
    NEW: (
        Place("CreateKey", "CreateKey"),
        Place("ListKeys, after a lost CreateKey", "ListKeys", lost_creation=True),
        Place("CreateAlias", "CreateAlias", alias=True),
        Place("GetParametersForImport", "GetParametersForImport"),
        Place(IMPORT, "ImportKeyMaterial"),
        Place(CONFIRM, "DescribeKey"),
    ),
}
CREATING_PLACES = ("CreateKey", "ListKeys, after a lost CreateKey")
UNTOUCHED_BY_IMPORT_READINGS = (*CREATING_PLACES, "CreateAlias", "DescribeKey, before the claim")


class Length(StrEnum):
    """How long a fault lasts."""

    ONCE = "once"
    STANDING = "standing"  # until the call has its answer


@dataclass(frozen=True, slots=True)
class Ill:
    """One kind of fault. `effects` arm the emulator's dial; without any the connection is refused on this side.

    `only`: the places that it makes sense at; empty: all. It is `once` where a second time would change nothing.
    """

    title: str
    effects: tuple[Mapping[str, object], ...] = ()
    only: frozenset[str] = frozenset()
    lengths: tuple[Length, ...] = (Length.ONCE, Length.STANDING)

    def faults(self, place: Place, length: Length) -> list[Fault]:
        """As the dial takes them."""
        count = 1 if length is Length.ONCE else 0
        return [
            Fault(**({"operation": place.operation, "count": count, "skip": place.skip} | dict(effect)))  # type: ignore[arg-type]
            for effect in self.effects
        ]


def _effect(action: str, when: str = "before", **more: object) -> tuple[Mapping[str, object], ...]:
    return ({"action": action, "when": when, **more},)


_FOREIGN = _effect("foreign_import", count=1)
_IMPORT = frozenset({IMPORT})
_ONCE = (Length.ONCE,)

REFUSED = Ill("connection refused")
LATE = Ill("commits late", _effect("late"))
DELAY = Ill("delayed past the deadline", _effect("delay", delay_seconds=PAST_THE_DEADLINE_SECONDS))
ILLS: tuple[Ill, ...] = (
    REFUSED,
    Ill("reset after the commit", _effect("reset", "after")),
    Ill("dropped before the commit", _effect("drop")),
    Ill("dropped after the commit", _effect("drop", "after")),
    LATE,
    Ill("checked on arrival, commits late", _effect("late", checked_first=True), only=_IMPORT),
    DELAY,
    Ill("500 before the commit", _effect("error", status=500, code="InternalFailure")),
    Ill("500 after the commit", _effect("error", "after", status=500, code="InternalFailure")),
    Ill("503 before the commit", _effect("error", status=503, code="ServiceUnavailableTemporary")),
    Ill("503 after the commit", _effect("error", "after", status=503, code="ServiceUnavailableTemporary")),
    Ill("429", _effect("error", status=429, code="Rejected.Throttling")),
    Ill("truncated answer", _effect("truncated", "after")),
    Ill("garbage for an answer", _effect("garbage", "after")),
    Ill(
        "another importer after it",
        _effect("foreign_import", "after"),
        only=frozenset({"DescribeKey, before the claim"}),
        lengths=_ONCE,
    ),
    Ill("another importer before it", _FOREIGN, only=_IMPORT, lengths=_ONCE),
    Ill("another importer, answer dropped", (*_FOREIGN, *_effect("drop", "after")), only=_IMPORT),
    Ill("another importer, 500", (*_FOREIGN, *_effect("error", status=500, code="InternalFailure")), only=_IMPORT),
)


@dataclass(frozen=True, slots=True)
class World:
    """How the KMS is read, and what the broker is configured to do; `key` names it in tables and files."""

    key: str
    title: str
    readings: Mapping[str, object] = field(default_factory=dict)
    pkcs1: bool = False
    prove: bool = False
    places: tuple[str, ...] = ()  # empty: all

    @property
    def filters_off(self) -> bool:
        """Whether ListKeys gives a list of everything."""
        return bool(self.readings.get("tag_filters_ignored"))


def _import_worlds() -> Iterator[World]:
    letters = iter("ABCDEFGH")
    for same, newest, lag in product((True, False), (False, True), (0, 2)):
        title = ", ".join(
            (
                "same material may be re-imported" if same else "any second import refused",
                "newest token only" if newest else "every token valid",
                "Enabled shown late" if lag else "Enabled shown at once",
            )
        )
        readings = {"same_material_reimport": same, "newest_token_only": newest, "enabled_lag_describes": lag}
        yield World(next(letters), title, readings)


WORLDS: Mapping[str, World] = {
    world.key: world
    for world in (
        *_import_worlds(),
        World("I", "as A; ListKeys ignores tag filters", {"tag_filters_ignored": True}, places=CREATING_PLACES),
        World(
            "J",
            f"as A; tags are found {TAG_LAG_SECONDS:.0f} s late",
            {"tag_filter_lag_seconds": TAG_LAG_SECONDS},
            places=CREATING_PLACES,
        ),
        World(
            "K",
            "as E; the broker proves (`imports.prove`)",
            {"same_material_reimport": False},
            prove=True,
            places=(IMPORT, CONFIRM),
        ),
        World(
            "L",
            "as A; RSAES_PKCS1_V1_5: no wrapped material is stored",
            pkcs1=True,
            places=(IMPORT,),
        ),
        World(
            "M",
            "as E; RSAES_PKCS1_V1_5",
            {"same_material_reimport": False},
            pkcs1=True,
            places=(IMPORT,),
        ),
    )
}
_EXTREMES = frozenset("AH")  # for places that the readings of the import do not concern


@dataclass(frozen=True, slots=True)
class Cell:
    """One square of the matrix."""

    world: World
    target: str
    place: Place
    ill: Ill
    length: Length

    @property
    def key(self) -> str:
        """Its name in the record of outcomes."""
        return f"{self.target} | {self.place.title} | {self.ill.title} | {self.length} | {self.world.key}"


GROUPS: Mapping[str, str] = {
    "A": "A",
    "B and C": "BC",
    "D and E": "DE",
    "F and G": "FG",
    "H": "H",
    "tags and PKCS #1": "IJLM",
    "proving": "K",
}
"""Worlds that one broker serves, so that the longest cells of one pass beside those of another."""


def cells_of_group(group: str) -> list[Cell]:
    """Every cell of these worlds, over both targets."""
    return [cell for key in GROUPS[group] for target in PLACES for cell in cells(WORLDS[key], target)]


def cells(world: World, target: str) -> list[Cell]:
    """Every cell of this world and target."""
    return [
        Cell(world, target, place, ill, length)
        for place in PLACES[target]
        if _concerns(world, place)
        for ill in ILLS
        if not ill.only or place.title in ill.only
        for length in ill.lengths
    ]


def _concerns(world: World, place: Place) -> bool:
    if world.places:
        return place.title in world.places
    return place.title not in UNTOUCHED_BY_IMPORT_READINGS or world.key in _EXTREMES

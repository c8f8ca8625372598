"""The cells whose caller is left without a final answer, and those that end ENABLED_UNATTRIBUTED. Reviewed by people.

A test fails on a cell that is so and not listed here, and on one that is listed and not so.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from keybroker.domain.errors import Reason
from tests.integration.fault_matrix.axes import (
    CONFIRM,
    ILLS,
    IMPORT,
    WORLDS,
    Cell,
    Length,
)
from tests.integration.fault_matrix.judgement import ARROW, UNRESOLVED_REASONS

_EVERY_WORLD = "".join(WORLDS)
EVERY_ILL = tuple(ill.title for ill in ILLS if not ill.only)
_NOT_COMMITTED = ("dropped before the commit", "500 before the commit", "503 before the commit")
_COMMITS_AFTERWARDS = ("commits late", "delayed past the deadline")
_IMPORTS_AFTERWARDS = ("checked on arrival, commits late", *_COMMITS_AFTERWARDS)
_COMMITTED = (
    "reset after the commit",
    "dropped after the commit",
    "500 after the commit",
    "503 after the commit",
    "truncated answer",
    "garbage for an answer",
)
_ANOTHER = ("another importer, answer dropped", "another importer, 500")
_BOTH = (Length.ONCE, Length.STANDING)
_STANDING = (Length.STANDING,)
_ONCE = (Length.ONCE,)


@dataclass(frozen=True, slots=True)
class Entry:
    """Some cells of one place: the product of faults, lengths and worlds, for each target that has them."""

    place: str
    ills: tuple[str, ...]
    lengths: tuple[Length, ...]
    worlds: str
    reason: str
    why: str
    settled_by: str

    def has(self, cell: Cell) -> bool:
        """Whether this is one of them."""
        return (
            cell.place.title == self.place
            and cell.ill.title in self.ills
            and cell.length in self.lengths
            and cell.world.key in self.worlds
        )


UNRESOLVED: tuple[Entry, ...] = (
    Entry(
        IMPORT,
        (*_NOT_COMMITTED, *_IMPORTS_AFTERWARDS, *_ANOTHER),
        _STANDING,
        _EVERY_WORLD,
        "IMPORT_UNRESOLVED",
        "no send of the call was answered, and each may have been accepted",
        "the identical resend, by a repeat or the recovery; without stored material (L, M) by DescribeKey Enabled or "
        "token expiry",
    ),
    Entry(
        IMPORT,
        _COMMITTED,
        _STANDING,
        _EVERY_WORLD.replace("K", ""),
        "IMPORT_UNRESOLVED",
        "no send of the call was answered, and nothing but a proof (K) tells whose material the CMK has",
        "as above",
    ),
    Entry(
        CONFIRM,
        EVERY_ILL,
        _STANDING,
        _EVERY_WORLD,
        "IMPORT_UNRESOLVED",
        "the KMS accepted the material, and Enabled was not seen",
        "DescribeKey, by a repeat or the recovery",
    ),
    Entry(
        "CreateKey",
        (*_NOT_COMMITTED, *_COMMITS_AFTERWARDS),
        _BOTH,
        _EVERY_WORLD,
        "CREATE_OUTCOME_UNKNOWN",
        "no answer, and no CMK with the request's tag yet",
        "a repeat, which finds the CMK by its tag; if none was made, or the KMS ignores tag filters (I), by consent",
    ),
    Entry(
        "CreateKey",
        _COMMITTED,
        _BOTH,
        "IJ",
        "CREATE_OUTCOME_UNKNOWN",
        "the CMK exists, and its tag does not find it in time",
        "a repeat once the tag is found (J); consent (I)",
    ),
    Entry(
        "ListKeys, after a lost CreateKey",
        EVERY_ILL,
        _STANDING,
        _EVERY_WORLD,
        "CREATE_OUTCOME_UNKNOWN",
        "the CMK can't be looked for",
        "a repeat; consent (I)",
    ),
    Entry(
        "ListKeys, after a lost CreateKey",
        EVERY_ILL,
        _ONCE,
        "IJ",
        "CREATE_OUTCOME_UNKNOWN",
        "the CMK exists, and its tag does not find it in time",
        "a repeat once the tag is found (J); consent (I)",
    ),
    Entry(
        "CreateAlias",
        (*_NOT_COMMITTED, *_COMMITS_AFTERWARDS),
        _BOTH,
        _EVERY_WORLD,
        "CHANGE_OUTCOME_UNKNOWN",
        "no answer, and the alias does not lead to the CMK yet",
        "a repeat, which gives the alias again: that the CMK has it is success",
    ),
)

UNATTRIBUTED: tuple[Entry, ...] = (
    Entry(
        IMPORT,
        _ANOTHER,
        _BOTH,
        _EVERY_WORLD,
        "ENABLED_UNATTRIBUTED",
        "another importer was first, and the answers that would have told so were lost",
        "",
    ),
    Entry(
        IMPORT,
        _IMPORTS_AFTERWARDS,
        _STANDING,
        "EFGHKLM",
        "ENABLED_UNATTRIBUTED",
        "the material was bound after the call, every answer was lost, and it can't be sent again: refused (E to H, K, "
        "M) or not stored (L, M); with the call the material in hand is gone, and with it the proof (K)",
        "",
    ),
    Entry(
        IMPORT,
        _COMMITTED,
        _STANDING,
        "EFGHLM",
        "ENABLED_UNATTRIBUTED",
        "the material is bound, every answer was lost, and it can't be sent again: refused (E to H, M) or not stored "
        "(L, M)",
        "",
    ),
    Entry(
        IMPORT,
        _COMMITTED,
        _ONCE,
        "EFGHM",
        "ENABLED_UNATTRIBUTED",
        "the material is bound, the answer was lost, and the resend is refused as any second import",
        "",
    ),
)


@dataclass(frozen=True, slots=True)
class Said:
    """The cells that were told first that nobody knows yet, with the reason, and those that ended UNATTRIBUTED."""

    unresolved: dict[str, str]
    unattributed: set[str]


def said(outcomes: Mapping[str, str]) -> Said:
    """What the outcomes say, by the cells' keys."""
    first = {key: outcome.split(ARROW)[0] for key, outcome in outcomes.items()}
    return Said(
        {key: word for key, word in first.items() if word in UNRESOLVED_REASONS},
        {key for key, outcome in outcomes.items() if outcome.endswith(Reason.ENABLED_UNATTRIBUTED)},
    )


def listed_unresolved(cells: Iterable[Cell]) -> dict[str, str]:
    """The cells of UNRESOLVED among `cells`: their reasons by their keys."""
    return {cell.key: entry.reason for cell in cells for entry in UNRESOLVED if entry.has(cell)}


def listed_unattributed(cells: Iterable[Cell]) -> set[str]:
    """The keys of the cells of UNATTRIBUTED among `cells`."""
    return {cell.key for cell in cells for entry in UNATTRIBUTED if entry.has(cell)}

"""The outcomes as they are committed: what the last reviewed run has shown, cell by cell.

Cells that differ in the world only are one entry: {target: {place: {fault: {length: {outcome: worlds}}}}}.
"""

import json
from collections.abc import Mapping
from pathlib import Path

PATH = Path(__file__).with_name("outcomes.json")
SEPARATOR = " | "

Table = dict[str, dict[str, dict[str, dict[str, dict[str, str]]]]]


def nested(outcomes: Mapping[str, str]) -> Table:
    """From outcomes by the cells' keys."""
    table: Table = {}
    for key, outcome in outcomes.items():
        target, place, ill, length, world = key.split(SEPARATOR)
        entry = table.setdefault(target, {}).setdefault(place, {}).setdefault(ill, {}).setdefault(length, {})
        entry[outcome] = "".join(sorted(entry.get(outcome, "") + world))
    return {
        target: {
            place: {
                ill: {length: _by_world(entry) for length, entry in lengths.items()} for ill, lengths in ills.items()
            }
            for place, ills in places.items()
        }
        for target, places in table.items()
    }


def flat(table: Table) -> dict[str, str]:
    """The outcomes by the cells' keys."""
    return {
        SEPARATOR.join((target, place, ill, length, world)): outcome
        for target, places in table.items()
        for place, ills in places.items()
        for ill, lengths in ills.items()
        for length, entry in lengths.items()
        for outcome, worlds in entry.items()
        for world in worlds
    }


def read() -> Table:
    """The committed record."""
    table: Table = json.loads(PATH.read_text(encoding="utf-8"))
    return table


def write(outcomes: Mapping[str, str]) -> None:
    """Replaces it."""
    PATH.write_text(json.dumps(nested(outcomes), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _by_world(entry: Mapping[str, str]) -> dict[str, str]:
    return dict(sorted(entry.items(), key=lambda item: item[1]))

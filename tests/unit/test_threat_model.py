"""docs/threat-model.md: each threat has a test that exists, or says that it is accepted or open."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "threat-model.md").read_text()
ROWS = [
    line.strip("| ").split(" | ") for line in TEXT.partition("\n## Threats")[2].splitlines() if line.startswith("| ")
]
THREATS = [row for row in ROWS if row[0] not in {"threat", "---"}]


def test_each_threat_has_a_test_or_its_acceptance() -> None:
    assert len(THREATS) > 40
    for row in THREATS:
        assert len(row) == 3, row
        assert re.search(r"`tests/[^`]+\.py`|\baccepted\b|\bopen\b", row[2]), row


def test_threat_that_nothing_stops_is_accepted_or_open() -> None:
    unstopped = [row for row in THREATS if row[1] == "nothing"]
    assert unstopped
    assert all(row[2].startswith(("accepted: ", "open: ")) for row in unstopped)


def test_each_test_that_is_named_exists() -> None:
    named = set(re.findall(r"`(tests/[^`]+)`", TEXT))
    assert len(named) > 30
    assert {path for path in named if not (ROOT / path).is_file()} == set()

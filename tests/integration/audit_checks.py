"""What an audit log has to tell of what an emulator saw, whatever happened to the brokers."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keybroker.adapters.audit.reading import verify
from keybroker.domain.errors import Reason
from kms_emulator import Emulator

_OUTCOMES = {Reason.ENABLED_UNATTRIBUTED.value: "ENABLED_UNATTRIBUTED", "IMPORTED": "IMPORTED"}
_FINAL = {"IMPORTED", "ENABLED_UNATTRIBUTED", "NOT_IMPORTED", "ALREADY_BOUND"}


def events(files: Sequence[Path]) -> list[dict[str, Any]]:
    """The events of all files that are there, each once: one can be written twice around a death."""
    lines = [json.loads(line) for file in files if file.exists() for line in file.read_text().splitlines()]
    return list({line["id"]: line for line in lines}.values())


def check_nothing_is_missing(files: Sequence[Path], emulator: Emulator, outcome: str, *, request_id: str = "") -> None:
    """The logs are sound, and told of each change that the emulator saw and of the request's `outcome`, once.

    Without `request_id` there was no other request.
    """
    for file in files:
        with file.open("rb") as lines:
            report = verify([(file.name, lines)])
        assert report.is_sound, report.defects
    told = events(files)
    announced = {line.get("key_id", "") for line in told if line["event"] == "before"}
    sent = {call.key_id for call in emulator.call_log if call.operation == "ImportKeyMaterial"}
    assert sent <= announced
    creations = sum(line["event"] == "before" and line["change"] == "create" for line in told)
    assert creations >= sum(call.operation == "CreateKey" for call in emulator.call_log)
    afters = [line for line in told if line["event"] == "after" and request_id in {"", line["request_id"]}]
    ends = Counter(line["outcome"] for line in afters if line["outcome"] in _FINAL)
    assert ends == {_OUTCOMES.get(outcome, "NOT_IMPORTED"): 1}, ends

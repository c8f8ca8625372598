import json

import pytest

from keybroker.probe.command import exit_status
from keybroker.probe.findings import Answer, Interval, Report, ThrowawayReport, could_not_tell
from keybroker.probe.rendering import as_json, as_text
from tests.unit.probe.support import evidence, report

SCHEDULED = ThrowawayReport("key-a", deletion_scheduled=True, state="PendingDeletion", delete_at="2026-12-01T12:00:07Z")
LEFT = ThrowawayReport("key-b", deletion_scheduled=False, state="Enabled", delete_at="")


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (report(cmks=(SCHEDULED,)), 0),
        (report(cmks=(SCHEDULED,), ended="interrupted"), 1),
        (report(ended="could_not_start"), 1),
        (report(cmks=(SCHEDULED, LEFT)), 3),
        (report(cmks=(SCHEDULED, LEFT), ended="interrupted"), 3),
        (report(unaccounted=("a description",)), 3),
    ],
)
def test_exit_status_puts_what_is_left_behind_first(given: Report, status: int) -> None:
    assert exit_status(given) == status


def test_as_json_rounds_an_interval_outwards() -> None:
    answer = Answer("tag_filter_lag", "late", "", readings={"tag_filter_lag_seconds": Interval(1.00049, 2.00001)})
    tree = json.loads(as_json(report(answer)))
    assert tree["readings"] == {"tag_filter_lag_seconds": {"at_least": 1.0, "at_most": 2.001}}


def test_as_json_of_an_interval_without_an_end_says_null() -> None:
    answer = Answer("tag_filter_lag", "not_found", "", readings={"tag_filter_lag_seconds": Interval(60.0, None)})
    assert json.loads(as_json(report(answer)))["readings"]["tag_filter_lag_seconds"]["at_most"] is None


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (
            Answer("older_token", "refused", "", readings={"newest_token_only": True}),
            "emulator: --reading newest_token_only=true",
        ),
        (
            Answer("tag_filter_lag", "at_once", "", readings={"tag_filter_lag_seconds": Interval(0.0, 0.4)}),
            "emulator: --reading tag_filter_lag_seconds=0",
        ),
        (
            Answer("tag_filter_lag", "late", "", readings={"tag_filter_lag_seconds": Interval(8.2, 9.31)}),
            "emulator: --reading tag_filter_lag_seconds=9.4",
        ),
        (Answer("different_material", "accepted", "", emulator_agrees=False), "InvalidKeyMaterial: DIFFERS"),
        (Answer("form_body", "accepted", "", emulator_agrees=True), "emulator: accepted: behaves the same"),
        (could_not_tell("form_body", "no answer"), "emulator: accepted: not decided"),
        (Answer("different_material", "refused", "", (evidence(),)), "400 InvalidKeyMaterial, RequestId 8cdf51fd"),
        (
            could_not_tell("encrypt_layout", "", evidence(http_status=None, code="timeout", request_id="")),
            "- timeout, RequestId -",
        ),
    ],
)
def test_as_text_shows_each_answer_by_the_emulators_words(answer: Answer, line: str) -> None:
    assert line in as_text(report(answer))


def test_as_text_names_what_is_left_behind() -> None:
    text = as_text(report(cmks=(SCHEDULED, LEFT), unaccounted=("keybroker probe-kms run … CMK 3",)))
    assert "key-a  PendingDeletion  deletion at 2026-12-01T12:00:07Z" in text
    assert "key-b  Enabled  NOT SCHEDULED FOR DELETION" in text
    assert "A CMK MAY EXIST" in text
    assert "CMK 3" in text

"""probe-kms against every reading of the emulator: it names each switch's position and leaves no CMK behind."""

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from keybroker.adapters.clock import SystemClock
from keybroker.probe.command import exit_status
from keybroker.probe.course import Course
from keybroker.probe.findings import COULD_NOT_TELL, QUESTIONS, Interval
from keybroker.probe.rendering import as_json, as_text
from keybroker.probe.throwaways import MAX_CMKS
from kms_emulator import AccessKey, Emulator, EmulatorSettings, Fault
from tests.integration.conftest import ACCESS_KEY_ID, ACCESS_KEY_SECRET, DKMS_INSTANCE_ID
from tests.integration.probing import run_probe, throwaways, unscheduled

SWITCHES: dict[str, tuple[Any, ...]] = {
    "same_material_reimport": (True, False),
    "newest_token_only": (True, False),
    "cancel_empty_key_state": ("PendingImport", "Enabled"),
    "tag_filters_ignored": (True, False),
}
COMBINATIONS = [dict(zip(SWITCHES, values, strict=True)) for values in itertools.product(*SWITCHES.values())]
REQUESTS_OF_A_RUN = 33
THROTTLED = {"action": "error", "code": "Rejected.Throttling"}


@pytest.fixture(scope="module")
def shared() -> Iterator[Emulator]:
    settings = EmulatorSettings(
        region="cn-hangzhou",
        dkms_instance_ids=(DKMS_INSTANCE_ID,),
        access_keys=(AccessKey(ACCESS_KEY_ID, ACCESS_KEY_SECRET),),
        rsa_key_pool=5,
    )
    with Emulator(settings) as emulator:
        yield emulator


@pytest.fixture
def emulator(shared: Emulator) -> Iterator[Emulator]:
    """One emulator for all, with its switches put back."""
    readings = shared.readings
    yield shared
    shared.faults.clear()
    shared.set_readings(**readings.to_mapping())


@pytest.fixture
def bystanders(emulator: Emulator) -> Iterator[set[str]]:
    """CMKs of others, which no run may touch."""
    ids = {emulator.create_key(), emulator.create_key(tags={"purpose": "keybroker-probe"})}
    used = emulator.create_key(state="Enabled")
    before = {key_id: emulator.key_state(key_id) for key_id in (*ids, used)}
    yield ids
    assert {key_id: emulator.key_state(key_id) for key_id in before} == before


def ids_of(readings: dict[str, Any]) -> str:
    return ",".join(f"{name}={value}" for name, value in readings.items())


@pytest.mark.parametrize("readings", COMBINATIONS, ids=ids_of)
def test_probe_under_each_combination_of_readings_names_every_position(
    emulator: Emulator, bystanders: set[str], readings: dict[str, Any]
) -> None:
    emulator.set_readings(**readings)
    before = len(throwaways(emulator))
    run = run_probe(emulator)
    run.agrees_with(emulator)
    assert run.report.ended == "completed"
    assert readings.items() <= run.readings.items()
    assert run.readings["enabled_lag_describes"] == 0
    unanswered = {answer.question for answer in run.report.answers if answer.verdict == COULD_NOT_TELL}
    assert unanswered == ({"tag_filter_lag"} if readings["tag_filters_ignored"] else set())
    assert not [answer for answer in run.report.answers if answer.emulator_agrees is False]
    assert exit_status(run.report) == 0
    assert unscheduled(emulator) == set()
    assert len(throwaways(emulator)) - before == len(run.report.cmks) == MAX_CMKS


@pytest.mark.parametrize("cancel_empty_key_state", SWITCHES["cancel_empty_key_state"])
@pytest.mark.parametrize("describes", [0, 1, 4])
@pytest.mark.parametrize("seconds", [0.0, 5.0, 20.0])
def test_probe_when_enabled_shows_late_tells_time_from_answers(
    emulator: Emulator, cancel_empty_key_state: str, describes: int, seconds: float
) -> None:
    emulator.set_readings(
        enabled_lag_seconds=seconds,
        enabled_lag_describes=describes,
        cancel_empty_key_state=cancel_empty_key_state,
        newest_token_only=describes == 1,
    )
    run = run_probe(emulator)
    run.agrees_with(emulator)
    assert run["enabled_after_import"].verdict == ("late" if describes or seconds else "at_once")
    assert run.readings["enabled_lag_describes"] == describes
    lag = run.readings["enabled_lag_seconds"]
    assert lag.at_most - lag.at_least < max(1.5, describes * 0.5)
    assert unscheduled(emulator) == set()


@pytest.mark.parametrize("seconds", [0.0, 5.0, 30.0])
def test_probe_when_tags_are_found_late_brackets_the_lag(emulator: Emulator, seconds: float) -> None:
    emulator.set_readings(tag_filter_lag_seconds=seconds)
    run = run_probe(emulator)
    run.agrees_with(emulator)
    lag = run.readings["tag_filter_lag_seconds"]
    assert lag.at_most - lag.at_least < 1.5
    assert run["tag_filter_lag"].verdict == ("late" if seconds else "at_once")


def test_probe_when_something_never_shows_within_its_patience_says_so_and_goes_on(emulator: Emulator) -> None:
    emulator.set_readings(tag_filter_lag_seconds=500.0, enabled_lag_seconds=500.0)
    run = run_probe(emulator)
    run.agrees_with(emulator)
    assert run["tag_filter_lag"].verdict == "not_found"
    assert run["enabled_after_import"].verdict == "not_seen"
    assert run["encrypt_layout"].verdict == "proved"
    assert unscheduled(emulator) == set()


def test_probe_of_an_emulator_with_another_clock_measures_the_skew(make_emulator: Callable[..., Emulator]) -> None:
    emulator = make_emulator(clock_offset_seconds=120.0, rsa_key_pool=1)
    run = run_probe(emulator, clock=SystemClock(), before_each_request=_stop_at(4))
    skew = run["clock_skew"].measured["clock_offset_seconds"]
    assert isinstance(skew, Interval)
    assert skew.at_most is not None
    assert skew.at_least <= 120.0 <= skew.at_most
    assert run["clock_skew"].verdict == "apart"


def test_probe_with_a_clock_too_wrong_makes_nothing_and_says_by_how_much(
    make_emulator: Callable[..., Emulator],
) -> None:
    emulator = make_emulator(clock_offset_seconds=3600.0)
    run = run_probe(emulator, clock=SystemClock())
    assert (run.report.ended, run.report.cmks, exit_status(run.report)) == ("could_not_start", (), 1)
    assert throwaways(emulator) == []
    assert run["clock_skew"].verdict == "apart"


@pytest.mark.parametrize(
    ("fault", "question", "verdict", "code"),
    [
        ({"operation": "DeleteKeyMaterial", "code": "UnsupportedOperation"}, "delete_key_material", "refused", True),
        (
            {"operation": "DeleteKeyMaterial", "status": 400, "code": "Never.Seen"},
            "delete_key_material",
            "refused",
            True,
        ),
        (
            {"operation": "ImportKeyMaterial", "skip": 3, "code": "Rejected.Enabled"},
            "different_material",
            "refused",
            True,
        ),
        ({"operation": "ImportKeyMaterial", "skip": 4, "code": "InvalidParameter"}, "expiry_set", "refused", False),
        ({"operation": "ImportKeyMaterial", "skip": 5, "code": "MissingParameter"}, "expiry_absent", "refused", False),
        (
            {"operation": "ImportKeyMaterial", "skip": 1, "code": "InvalidImportToken"},
            "same_material_reimport",
            "mixed",
            False,
        ),
        (
            {"operation": "CancelKeyDeletion", "code": "Rejected.StateModifiedFailed"},
            "cancel_empty_key",
            "refused",
            False,
        ),
        ({"operation": "Encrypt", "code": "Forbidden.NoPermission"}, "encrypt_layout", COULD_NOT_TELL, False),
        (
            {"operation": "DeleteKeyMaterial", "code": "Forbidden.NoPermission"},
            "delete_key_material",
            COULD_NOT_TELL,
            False,
        ),
    ],
    ids=lambda value: f"{value['operation']}-{value['code']}" if isinstance(value, dict) else None,
)
def test_probe_of_a_kms_that_the_emulator_is_not_reports_the_difference(
    emulator: Emulator, *, fault: dict[str, Any], question: str, verdict: str, code: bool
) -> None:
    emulator.faults.add(Fault(action="error", **fault))
    run = run_probe(emulator)
    run.agrees_with(emulator)
    assert run[question].verdict == verdict
    assert run[question].emulator_agrees is (None if verdict == COULD_NOT_TELL else False)
    assert not code or run[question].detail.endswith(fault["code"])
    assert unscheduled(emulator) == set()


def test_probe_when_every_import_with_an_expiry_is_refused_needs_two_cmks(emulator: Emulator) -> None:
    emulator.faults.add(Fault(operation="ImportKeyMaterial", action="error", code="InvalidParameter", skip=4))
    assert len(run_probe(emulator).report.cmks) == 2


@pytest.mark.parametrize("skip", [4, 5])
def test_probe_when_the_control_of_an_expiry_is_refused_too_can_not_tell(emulator: Emulator, skip: int) -> None:
    emulator.faults.add(
        Fault(operation="ImportKeyMaterial", action="error", code="InvalidParameter", skip=skip, count=0)
    )
    run = run_probe(emulator)
    assert run["expiry_absent"].verdict == COULD_NOT_TELL
    assert run["expiry_set"].verdict == (COULD_NOT_TELL if skip == 4 else "accepted")


def test_probe_takes_no_timing_from_a_cmk_that_was_enabled_before_its_import(emulator: Emulator) -> None:
    emulator.set_readings(cancel_empty_key_state="Enabled", enabled_lag_describes=2)
    emulator.faults.add(Fault(operation="ImportKeyMaterial", action="error", code="InvalidParameter", skip=4))
    run = run_probe(emulator)
    run.agrees_with(emulator)
    assert run["enabled_after_import"].verdict == "late"
    assert "enabled_lag_describes" not in run.readings


@pytest.mark.parametrize("number", range(1, REQUESTS_OF_A_RUN + 1))
def test_probe_interrupted_before_any_request_schedules_what_it_made(emulator: Emulator, number: int) -> None:
    before = len(throwaways(emulator))
    run = run_probe(emulator, before_each_request=_stop_at(number))
    run.agrees_with(emulator)
    cleaning_up = run.report.ended == "completed"
    assert cleaning_up == (number > REQUESTS_OF_A_RUN - 2 * MAX_CMKS - 1)
    assert exit_status(run.report) == (0 if cleaning_up else 1)
    assert unscheduled(emulator) == set()
    assert len(throwaways(emulator)) - before == len(run.report.cmks)


def test_probe_out_of_time_ends_and_schedules_what_it_made(emulator: Emulator) -> None:
    run = run_probe(emulator, seconds_budget=2)
    assert (run.report.ended, exit_status(run.report)) == ("out_of_time", 1)
    assert run["expiry_absent"].detail == "not asked"
    assert run.report.cmks
    assert unscheduled(emulator) == set()


OPERATIONS_AND_TIMES = [
    *[("ListKeys", skip) for skip in range(1, 4)],
    *[("CreateKey", skip) for skip in range(3)],
    *[("GetParametersForImport", skip) for skip in range(6)],
    *[("ImportKeyMaterial", skip) for skip in range(6)],
    *[("DescribeKey", skip) for skip in range(7)],
    *[("ScheduleKeyDeletion", skip) for skip in range(4)],
    ("CancelKeyDeletion", 0),
    ("DeleteKeyMaterial", 0),
    ("Encrypt", 0),
]
BROKEN = [
    {"action": "drop", "when": "before"},
    {"action": "drop", "when": "after"},
    {"action": "garbage", "when": "after"},
    {"action": "error", "code": "ServiceUnavailableTemporary", "when": "after"},
]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: f"{broken['action']}-{broken['when']}")
@pytest.mark.parametrize(("operation", "skip"), OPERATIONS_AND_TIMES)
def test_probe_with_a_lost_answer_anywhere_names_nothing_wrong_and_leaves_nothing(
    emulator: Emulator, bystanders: set[str], broken: dict[str, Any], operation: str, skip: int
) -> None:
    strict = broken["when"] == "after"
    before = len(throwaways(emulator))
    emulator.set_readings(same_material_reimport=not strict, newest_token_only=strict and skip % 2 == 0)
    emulator.faults.add(Fault(operation=operation, skip=skip, **broken))
    run = run_probe(emulator)
    run.agrees_with(emulator)
    assert not [answer for answer in run.report.answers if answer.emulator_agrees is False]
    assert unscheduled(emulator) == set()
    assert len(throwaways(emulator)) - before <= MAX_CMKS
    never_made = operation == "CreateKey" and broken["when"] == "before"
    assert len(run.report.unaccounted) == never_made
    assert exit_status(run.report) == (3 if never_made else 0)


@pytest.mark.parametrize("operation", ["CreateKey", "ImportKeyMaterial", "ScheduleKeyDeletion", "*"])
def test_probe_when_throttled_for_a_while_waits_and_answers(emulator: Emulator, operation: str) -> None:
    emulator.faults.add(Fault(operation=operation, count=3, **THROTTLED))
    run = run_probe(emulator)
    run.agrees_with(emulator)
    assert len(run.readings) == 7
    assert exit_status(run.report) == 0
    assert unscheduled(emulator) == set()


@pytest.mark.parametrize("filters_ignored", [True, False])
@pytest.mark.parametrize("tag_lag_seconds", [0.0, 1000.0])
def test_probe_after_a_lost_create_key_finds_its_cmk_among_those_of_others(
    make_emulator: Callable[..., Emulator], *, filters_ignored: bool, tag_lag_seconds: float
) -> None:
    emulator = make_emulator(rsa_key_pool=1)
    emulator.set_readings(tag_filters_ignored=filters_ignored, tag_filter_lag_seconds=tag_lag_seconds)
    others = [emulator.create_key(description=f"bystander {number}") for number in range(110)]  # more than a page
    emulator.faults.add(Fault(operation="CreateKey", when="after", action="truncated", count=0))
    run = run_probe(emulator, seconds_budget=3000)
    run.agrees_with(emulator)
    assert exit_status(run.report) == 0
    assert len(run.report.cmks) == MAX_CMKS
    assert unscheduled(emulator) == set()
    assert {emulator.key_state(key_id) for key_id in others} == {"PendingImport"}


def test_probe_that_can_schedule_nothing_names_what_it_leaves_and_exits_3(emulator: Emulator) -> None:
    emulator.faults.add(Fault(operation="ScheduleKeyDeletion", count=0, **THROTTLED))
    run = run_probe(emulator)
    left = unscheduled(emulator)
    assert len(left) == len(run.report.cmks)
    assert exit_status(run.report) == 3
    text = as_text(run.report)
    for key_id in left:
        assert re.search(rf"{key_id} .*NOT SCHEDULED FOR DELETION", text)
        emulator.set_state(key_id, "PendingDeletion")


def test_probe_that_loses_a_cmk_names_its_description_and_exits_3(emulator: Emulator) -> None:
    emulator.faults.add(Fault(operation="CreateKey", when="after", action="drop"))
    emulator.faults.add(Fault(operation="ListKeys", skip=1, count=0, action="error", code="InternalFailure"))
    run = run_probe(emulator)
    [lost] = [key for key in throwaways(emulator) if key.state != "PendingDeletion"]
    assert run.report.unaccounted == (lost.description,)
    assert lost.description in as_text(run.report)
    assert exit_status(run.report) == 3
    emulator.set_state(lost.key_id, "PendingDeletion")


def test_probe_finds_a_lost_cmk_while_cleaning_up_when_lists_work_again(emulator: Emulator) -> None:
    emulator.faults.add(Fault(operation="CreateKey", when="after", action="drop"))
    emulator.faults.add(Fault(operation="ListKeys", skip=1, count=10, action="error", code="InternalFailure"))
    run = run_probe(emulator)
    assert len(run.report.cmks) == 1
    assert exit_status(run.report) == 0
    assert unscheduled(emulator) == set()


def test_probe_that_may_not_list_makes_nothing(emulator: Emulator) -> None:
    before = len(throwaways(emulator))
    emulator.faults.add(Fault(operation="ListKeys", count=0, action="error", code="Forbidden.NoPermission"))
    run = run_probe(emulator)
    assert (run.report.ended, exit_status(run.report)) == ("could_not_start", 1)
    assert len(throwaways(emulator)) == before


def test_probe_where_no_emulator_is_allowed_makes_nothing(emulator: Emulator) -> None:
    before = len(throwaways(emulator))
    run = run_probe(emulator, allow_emulator=False)
    assert (run.report.ended, run.report.calls) == ("could_not_start", 1)
    assert len(throwaways(emulator)) == before


@pytest.mark.parametrize("action", ["public_key_short", "public_key_swapped", "public_key_unparsable"])
def test_probe_given_a_bad_wrapping_public_key_names_nothing_wrong(emulator: Emulator, action: Any) -> None:
    emulator.faults.add(Fault(operation="GetParametersForImport", action=action))
    run = run_probe(emulator)
    assert unscheduled(emulator) == set()
    assert exit_status(run.report) == 0
    if action != "public_key_swapped":
        run.agrees_with(emulator)


def test_report_holds_no_token_no_material_and_nothing_that_looks_like_either(emulator: Emulator) -> None:
    emulator.set_readings(newest_token_only=True, same_material_reimport=False)
    emulator.faults.add(Fault(operation="ImportKeyMaterial", skip=4, action="drop"))
    run = run_probe(emulator)
    everything = "\n".join([as_json(run.report), as_text(run.report), *run.said, repr(run.report)])
    materials = [key.bound_material for key in throwaways(emulator) if key.bound_material]
    tokens = [pair.import_token for pair in emulator._kms.import_pairs._pairs.values()]
    assert materials
    assert tokens
    for secret in [*(material.hex() for material in materials), *tokens, ACCESS_KEY_SECRET]:
        assert secret not in everything
    assert not re.search(r"[A-Za-z0-9+/=]{65,}", everything)  # a run id has 32 characters, a key id fewer


def test_run_stays_within_the_pace_and_the_number_of_requests(emulator: Emulator) -> None:
    clock_at: list[float] = []
    run = run_probe(
        emulator, before_each_request=lambda number, course: clock_at.append(emulator.clock.now().timestamp())
    )
    assert run.report.calls == REQUESTS_OF_A_RUN
    assert all(later - earlier > 0.19 for earlier, later in itertools.pairwise(clock_at))
    assert set(run.answers) == set(QUESTIONS)


def _stop_at(number: int) -> Callable[[int, Course], None]:
    return lambda request, course: course.stop() if request == number else None

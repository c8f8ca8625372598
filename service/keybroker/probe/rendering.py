"""The report as JSON (docs/probe-kms.md lists its fields) and as text for people."""

import json
import math
from typing import Any

from keybroker.probe.findings import QUESTIONS, Answer, Evidence, Interval, Report, utc_text
from keybroker.probe.throwaways import RUN_TAG

SCHEMA = "keybroker.probe-kms/1"
_MILLI = 1000


def as_json(report: Report) -> str:
    """One JSON object, indented."""
    tree = {
        "schema": SCHEMA,
        "instance": report.instance,
        "region": report.region,
        "dkms_instance_id": report.dkms_instance_id,
        "run_id": report.run_id,
        "started_at": utc_text(report.started_at),
        "finished_at": utc_text(report.finished_at),
        "ended": report.ended,
        "calls": report.calls,
        "readings": readings(report),
        "answers": [_answer(answer) for answer in report.answers],
        "cmks": [
            {
                "key_id": cmk.key_id,
                "deletion_scheduled": cmk.deletion_scheduled,
                "state": cmk.state,
                "delete_at": cmk.delete_at,
            }
            for cmk in report.cmks
        ],
        "unaccounted": list(report.unaccounted),
    }
    return json.dumps(tree, indent=2)


def readings(report: Report) -> dict[str, Any]:
    """The emulator's switches in the positions that were seen, as JSON takes them."""
    return {name: _plain(position) for answer in report.answers for name, position in answer.readings.items()}


def _answer(answer: Answer) -> dict[str, Any]:
    question = QUESTIONS[answer.question]
    return {
        "question": answer.question,
        "title": question.title,
        "contract": question.contract,
        "verdict": answer.verdict,
        "detail": answer.detail,
        "readings": {name: _plain(position) for name, position in answer.readings.items()},
        "measured": {name: _plain(value) for name, value in answer.measured.items()},
        "emulator": question.emulator,
        "emulator_agrees": answer.emulator_agrees,
        "evidence": [_evidence(evidence) for evidence in answer.evidence],
    }


def _evidence(evidence: Evidence) -> dict[str, Any]:
    return {
        "operation": evidence.operation,
        "what": evidence.what,
        "outcome": str(evidence.outcome),
        "http_status": evidence.http_status,
        "code": evidence.code,
        "request_id": evidence.request_id,
        "seconds": round(evidence.answered_at - evidence.sent_at, 3),
    }


def _plain(value: object) -> object:
    """An interval keeps its promise when it is rounded."""
    if not isinstance(value, Interval):
        return value
    at_most = None if value.at_most is None else math.ceil(value.at_most * _MILLI) / _MILLI
    return {"at_least": math.floor(value.at_least * _MILLI) / _MILLI, "at_most": at_most}


def as_text(report: Report) -> str:
    """One paragraph a question, then the CMKs."""
    seconds = (report.finished_at - report.started_at).total_seconds()
    head = (
        f"KMS instance {report.instance} ({report.dkms_instance_id}, {report.region}), run {report.run_id}: "
        f"{report.ended}, {report.calls} requests in {seconds:.0f} s"
    )
    return "\n".join([head, "", *(line for answer in report.answers for line in _lines(answer)), *_cmk_lines(report)])


def _lines(answer: Answer) -> list[str]:
    question = QUESTIONS[answer.question]
    lines = [
        f"{question.contract:<5} {question.title}",
        f"      {answer.verdict}: {answer.detail}",
        f"      emulator: {_in_the_emulator(answer)}",
    ]
    for evidence in answer.evidence:
        said = f"{evidence.http_status or '-'} {evidence.code or 'OK'}"
        lines.append(f"      - {evidence.operation} ({evidence.what}): {said}, RequestId {evidence.request_id or '-'}")
    return [*lines, ""]


def _in_the_emulator(answer: Answer) -> str:
    if answer.readings:
        return " ".join(f"--reading {name}={_setting(position)}" for name, position in answer.readings.items())
    stands = QUESTIONS[answer.question].emulator
    verdicts = {True: "behaves the same", False: "DIFFERS", None: "not decided"}
    return f"{stands}: {verdicts[answer.emulator_agrees]}" if not answer.measured else stands


def _setting(position: object) -> str:
    """A value for the emulator's command line: of an interval the end that is certainly late enough."""
    if isinstance(position, bool):
        return str(position).lower()
    if isinstance(position, Interval):
        late = position.at_least if position.at_most is None else position.at_most
        return f"{math.ceil(late * 10) / 10:g}" if position.at_least else "0"
    return str(position)


def _cmk_lines(report: Report) -> list[str]:
    lines = [f"Throwaway CMKs made: {len(report.cmks)}"]
    for cmk in report.cmks:
        fate = f"deletion at {cmk.delete_at}" if cmk.deletion_scheduled else "NOT SCHEDULED FOR DELETION: do it by hand"
        lines.append(f"      {cmk.key_id}  {cmk.state}  {fate}")
    lines += [
        f"      A CMK MAY EXIST that could not be found. Look for this description, or for the tag {RUN_TAG}="
        f"{report.run_id}: {description}"
        for description in report.unaccounted
    ]
    return lines

"""How late DescribeKey shows Enabled after the 200 of the import. Contract 9.7.

A delay can be one of time, or of answers (a few stale reads). One look tells neither from the other; the second CMK is
first looked at when the time of the first has passed: what is stale then is a matter of answers.
"""

from keybroker.probe.bench import Bench, Shown
from keybroker.probe.findings import Answer, Evidence, Interval, Position
from keybroker.probe.throwaways import CannotTell, Cmk

PATIENCE_SECONDS = 90.0
_MARGIN_SECONDS = 1.0
QUESTION = "enabled_after_import"


def watch_first_import(bench: Bench) -> list[Answer]:
    """Watches the CMK with known material; the answer is given by `ask_enabled`, when more is known."""
    if bench.subject is not None and bench.first_import is not None:
        bench.shown_first = bench.watch(bench.subject, bench.first_import, patience_seconds=PATIENCE_SECONDS)
    return []


def watch_after_a_wait(bench: Bench, cmk: Cmk, imported: Evidence) -> None:
    """Watches a second CMK, if there is a delay to tell apart. It has to have shown PendingImport before."""
    first = bench.shown_first
    if first is None or not first.pending_answers or first.after.at_most is None:
        return
    wait_seconds = first.after.at_most + _MARGIN_SECONDS
    bench.shown_after_a_wait = bench.watch(
        cmk, imported, wait_seconds=wait_seconds, patience_seconds=wait_seconds + PATIENCE_SECONDS
    )


def ask_enabled(bench: Bench) -> list[Answer]:
    """From the one or two watched imports."""
    if bench.shown_first is None:
        raise CannotTell("no import was accepted for certain, so there was nothing to watch")
    return [_enabled(bench.shown_first, bench.shown_after_a_wait)]


def _enabled(first: Shown, waited: Shown | None) -> Answer:
    if first.after.at_most is None:
        detail = f"PendingImport in {first.pending_answers} answers, the last after {first.after.at_least:.1f} s"
        return Answer(QUESTION, "not_seen", detail, first.evidence, emulator_agrees=False)
    detail = (
        f"Enabled {first.after.at_most:.1f} s after the import, PendingImport in {first.pending_answers} answers before"
    )
    if not first.pending_answers:
        return Answer(QUESTION, "at_once", detail, first.evidence, _position(0, first.after))
    if waited is None or waited.after.at_most is None:
        detail += "; whether time or answers make the difference could not be told"
        return Answer(QUESTION, "late", detail, first.evidence)
    stale = waited.pending_answers
    detail += f"; after a wait {stale} answers more say PendingImport"
    by_time = first.after if first.pending_answers > stale else Interval(0.0, first.after.at_most)
    return Answer(QUESTION, "late", detail, (*first.evidence, *waited.evidence), _position(stale, by_time))


def _position(describes: int, seconds: Interval) -> dict[str, Position]:
    return {"enabled_lag_describes": describes, "enabled_lag_seconds": seconds}

"""ListKeys: are tag filters applied, and how late do they find a new CMK? Contract 1.7."""

import secrets

from keybroker.probe.bench import Bench
from keybroker.probe.findings import Answer, Evidence, Interval, could_not_tell
from keybroker.probe.search import list_keys, listed, total
from keybroker.probe.throwaways import RUN_TAG, Cmk

PATIENCE_SECONDS = 60.0


def ask_tag_filters(bench: Bench) -> list[Answer]:
    """Makes the run's first CMK, then asks ListKeys for a tag that nothing has, and for the CMK's own."""
    bench.subject = bench.throwaways.create("the import questions")
    applied = _applied(bench)
    if applied.verdict == "applied":
        return [applied, _lag(bench, bench.subject)]
    why = "tag filters were not seen to be applied"
    return [applied, could_not_tell("tag_filter_lag", why)]


def _applied(bench: Bench) -> Answer:
    question = "tag_filters"
    everything = list_keys(bench.calls, {}, what="without a filter", size=1)
    nothing = {"TagKey": RUN_TAG, "TagValue": f"none-{secrets.token_hex(8)}"}
    filtered = list_keys(bench.calls, nothing, what="with a tag that no CMK has", size=1)
    evidence = (everything.evidence, filtered.evidence)
    if not everything.accepted or not filtered.accepted:
        return could_not_tell(question, "ListKeys did not answer both requests", *evidence)
    if not total(everything):
        return could_not_tell(question, "ListKeys lists no CMK at all, with or without a filter", *evidence)
    ignored = bool(listed(filtered) or total(filtered))
    detail = f"a tag that no CMK has matches {total(filtered)} of {total(everything)} CMKs"
    return Answer(question, "ignored" if ignored else "applied", detail, evidence, {"tag_filters_ignored": ignored})


def _lag(bench: Bench, cmk: Cmk) -> Answer:
    question = "tag_filter_lag"
    missing: list[Evidence] = []
    at_least = 0.0
    while bench.clock.monotonic() - cmk.created.answered_at < PATIENCE_SECONDS:
        exchange = list_keys(bench.calls, bench.throwaways.run_filters, what="with the new CMK's own tag")
        if cmk.name.key_id in listed(exchange):
            at_most = exchange.evidence.answered_at - cmk.created.sent_at
            position = {"tag_filter_lag_seconds": Interval(at_least, at_most)}
            detail = f"found {at_most:.1f} s after CreateKey, not found in {len(missing)} lists before"
            evidence = (*missing[-1:], exchange.evidence)
            return Answer(question, "late" if missing else "at_once", detail, evidence, position)
        if exchange.accepted:
            missing.append(exchange.evidence)
            at_least = max(0.0, exchange.evidence.sent_at - cmk.created.answered_at)
        bench.course.pause_between_looks(len(missing))
    position = {"tag_filter_lag_seconds": Interval(at_least, None)}
    detail = f"not found within {at_least:.0f} s after CreateKey"
    return Answer(question, "not_found", detail, tuple(missing[-1:]), position)

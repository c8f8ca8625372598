"""The way to the KMS: parameters in a form body, and the two clocks. Contract 3.1, 3.4."""

from datetime import datetime, timedelta

from keybroker.probe.bench import Bench
from keybroker.probe.findings import Answer, Evidence, Interval, could_not_tell
from keybroker.probe.kms_calls import Exchange
from keybroker.probe.throwaways import CannotTell

_FAR_SECONDS = 60.0


def ask_form_body(bench: Bench) -> list[Answer]:
    """DescribeKey with its parameter in the body, and the query as a control."""
    question = "form_body"
    if bench.subject is None:
        raise CannotTell("there is no CMK to describe")
    key, form = bench.describe(bench.subject, what="parameters in a form body", form=True)
    if key is not None:
        return [Answer(question, "accepted", "accepted for DescribeKey", (form.evidence,), emulator_agrees=True)]
    key, control = bench.describe(bench.subject, what="control: parameters in the query")
    evidence = (form.evidence, control.evidence)
    if form.refused and key is not None:
        detail = f"refused for DescribeKey: {form.evidence.code}"
        return [Answer(question, "refused", detail, evidence, emulator_agrees=False)]
    return [could_not_tell(question, "no clear answer to one of the two requests", *evidence)]


class ClockComparison:
    """Brackets how far the KMS's clock is ahead of this one, from every reply's header Date (whole seconds)."""

    def __init__(self) -> None:
        self._at_least: float | None = None
        self._at_most: float | None = None
        self._last: Evidence | None = None

    def take(self, exchange: Exchange) -> None:
        """Looks at one reply."""
        if exchange.date is None or exchange.date.tzinfo is None or exchange.local_times is None:
            return
        sent, answered = exchange.local_times
        low, high = _seconds(exchange.date, answered), _seconds(exchange.date + timedelta(seconds=1), sent)
        self._at_least = low if self._at_least is None else max(self._at_least, low)
        self._at_most = high if self._at_most is None else min(self._at_most, high)
        self._last = exchange.evidence

    def answer(self) -> Answer:
        """What all replies together say."""
        question = "clock_skew"
        if self._at_least is None or self._at_most is None or self._last is None:
            return could_not_tell(question, "no reply has a readable Date")
        if self._at_least > self._at_most:
            return could_not_tell(question, "the replies contradict each other: a clock was set", self._last)
        far = max(abs(self._at_least), abs(self._at_most)) > _FAR_SECONDS
        detail = f"the KMS's clock is between {self._at_least:+.1f} and {self._at_most:+.1f} s ahead of this one"
        measured = {"clock_offset_seconds": Interval(self._at_least, self._at_most)}
        return Answer(question, "apart" if far else "together", detail, (self._last,), measured=measured)


def _seconds(later: datetime, earlier: datetime) -> float:
    return (later - earlier).total_seconds()

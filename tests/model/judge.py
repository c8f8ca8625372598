"""A configuration's verdict beside what is expected of it."""

import time
from dataclasses import dataclass

from tests.model.explore import Verdict, explore
from tests.model.options import Options


@dataclass(frozen=True, slots=True)
class Judged:
    """One configuration's outcome."""

    options: Options
    verdict: Verdict
    seconds: float

    @property
    def as_expected(self) -> bool:
        """Sound ones pass; the others fail in one of the ways that they are made to."""
        return self.verdict.broken in (self.options.fails or ("",))

    def __str__(self) -> str:
        said = f"fails {self.verdict.broken}" if self.verdict.broken else "passes"
        wrong = "" if self.as_expected else "  NOT AS EXPECTED"
        return f"{self.options.name:70} {self.verdict.states:8} {self.seconds:6.1f}  {said}{wrong}"

    def trace(self) -> str:
        """How it fails."""
        return "".join(f"    {number}. {move}\n" for number, move in enumerate(self.verdict.trace, 1))


def judge(options: Options) -> Judged:
    """Explores one configuration."""
    begun = time.monotonic()
    verdict = explore(options)
    return Judged(options, verdict, time.monotonic() - begun)

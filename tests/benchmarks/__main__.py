"""`python -m tests.benchmarks`: what an import costs, beside the vendor's SDK and a floor. `make bench` runs it."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks import machine, report
from tests.benchmarks.floor import WrongResultError
from tests.benchmarks.imports import Plan, measure
from tests.benchmarks.processes import ProcessError

HEADING = (
    "Cold imports of existing CMKs (3 reads, 1 write) against the emulator on this machine; the contenders take turns.",
    "CPU ms: of the broker's process, or of the script, for one import. x SDK, x floor: medians of each round's ratio.",
    "added: an import's latency less the sum of its four requests' times in the emulator's log.",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; 1 if an import ended wrongly or a process failed."""
    options = _parser().parse_args(arguments)
    plan = Plan(options.imports, options.rounds, (1, 16))
    if options.quick:
        plan = Plan(min(options.imports, 32), 2, plan.concurrencies)
    try:
        rounds = measure(plan)
    except (WrongResultError, ProcessError) as error:
        sys.stderr.write(f"benchmark failed: {error}\n")
        return 1
    facts, summary = machine.describe(), report.summarise(rounds)
    counted = f"{plan.rounds} rounds of {plan.imports} imports by each contender at each concurrency; all verified."
    sys.stdout.write("\n".join([*HEADING, counted, *machine.lines(facts), *report.table(summary)]) + "\n")
    if options.json:
        options.json.write_text(json.dumps({"machine": facts, "summary": summary}, indent=2) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--imports", type=_positive, default=160, help="of each contender, a round (default: 160)")
    parser.add_argument("--rounds", type=_positive, default=7, help="(default: 7)")
    parser.add_argument("--quick", action="store_true", help="2 rounds of at most 32 imports: does it run?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())

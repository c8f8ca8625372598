"""`python -m tests.model`: the model in full, with a table and figures. `make soak` runs it.

Exits with 1 when a configuration's verdict is not the expected one.
"""

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterable, Sequence

from tests.model import configurations
from tests.model.judge import Judged, judge


def main(arguments: Sequence[str] | None = None) -> int:
    """Explores, prints as it goes, and judges."""
    options = _parser().parse_args(arguments)
    todo = configurations.quick() if options.quick else configurations.full()
    todo = [one for one in todo if all(part in one.name for part in options.names)]
    begun = time.monotonic()
    sys.stdout.write(f"{'configuration':70} {'states':>8} {'s':>6}  verdict\n")
    done: list[Judged] = []
    with multiprocessing.Pool(options.processes, maxtasksperchild=1) as pool:
        for judged in pool.imap(judge, todo):
            done.append(judged)
            sys.stdout.write(f"{judged}\n")
            if judged.verdict.broken and (options.traces or not judged.as_expected):
                sys.stdout.write(judged.trace())
            sys.stdout.flush()
    sys.stdout.writelines(f"{line}\n" for line in _summary(done, time.monotonic() - begun))
    return 0 if done and all(judged.as_expected for judged in done) else 1


def _summary(done: Sequence[Judged], seconds: float) -> Iterable[str]:
    answers: dict[str, set[str]] = {}
    for judged in done:
        if not judged.verdict.broken:
            what, _, reading = judged.options.name.rpartition(" / ")
            scope = what if what.startswith("within") else "all faults"
            answers.setdefault(f"{scope} / {reading}", set()).update(judged.verdict.answers)
    yield ""
    yield "terminal answers"
    for where, told in sorted(answers.items()):
        yield f"  {where:80} {', '.join(sorted(told))}"
    states = sum(judged.verdict.states for judged in done)
    largest = max((judged.verdict.states for judged in done), default=0)
    spent = sum(judged.seconds for judged in done)
    wrong = sum(not judged.as_expected for judged in done)
    yield (
        f"{len(done)} configurations, {states:,} states (the largest {largest:,}), {seconds:.0f} s "
        f"({spent:.0f} s of one process), {wrong} not as expected"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("names", nargs="*", help="only configurations whose name has all of these in it")
    parser.add_argument("--quick", action="store_true", help="the small bounds of make test")
    parser.add_argument("--traces", action="store_true", help="show how those fail that have to")
    parser.add_argument("--processes", type=int, default=None, help="(default: one for each core)")
    return parser


if __name__ == "__main__":
    sys.exit(main())

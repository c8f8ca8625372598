"""`python -m tests.benchmarks.server_shell`: which server answers health, refuses and forgets as the broker must?

The measurement behind docs/adr/0002-sync-core-async-shell.md. For each candidate of shell_servers: health while every
worker waits, while the workers also keep half of a core busy, and when they all finish at once; a call beyond the
limit; what becomes of calls whose client went away; a handler that does nothing; memory. The candidates run side by
side, and only the one that is being measured has work.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from tests.benchmarks import machine
from tests.benchmarks.shell_client import Figures, running
from tests.benchmarks.shell_servers import CANDIDATES


def measure(names: Sequence[str], *, workers: int, seconds: float, echo_rounds: int) -> dict[str, Figures]:
    """All figures of each candidate."""
    figures: dict[str, Figures] = {}
    with ExitStack() as stack:
        candidates = {name: stack.enter_context(running(name, workers)) for name in names}
        for candidate in candidates.values():
            candidate.echo(0.2)  # opens the connection, starts threads
        echoes = [
            {name: candidate.echo(min(1.0, seconds / 4)) for name, candidate in candidates.items()}
            for _ in range(echo_rounds)
        ]
        for name, candidate in candidates.items():
            figures[name] = {
                "waiting": candidate.waiting(seconds),
                "half_a_core": candidate.computing(seconds),
                "rush": candidate.rush(min(4.0, seconds)),
                "cancelled": candidate.cancelled(min(3.0, seconds / 2)),
                "echo": {key: median(e[name][key] for e in echoes) for key in ("calls_per_second", "cpu_us")},
            }
    return figures


def table(figures: dict[str, Figures]) -> list[str]:
    """The figures for people."""
    health = f"{'p50':>6} {'p99':>7} {'max':>7} {'OK':>4}"
    lines = [
        f"{'health, ms':<32} workers wait                | and use half a core        | and finish all at once",
        f"{'':<32} {health} | {health} | {health}",
    ]
    for name, of in figures.items():
        lines.append(f"{name:<32} " + " | ".join(_health(of[busy]) for busy in ("waiting", "half_a_core", "rush")))
    lines += ["", f"{'the rest':<32} one call too many: ms, answer | echo: calls/s, CPU us | RSS MiB, threads"]
    for name, of in figures.items():
        overload, echo, memory = of["waiting"]["overload"], of["echo"], of["waiting"]["memory"]
        lines.append(
            f"{name:<32} {overload['median_ms']:9.1f} {overload['codes'].most_common(1)[0][0]:<19} | "
            f"{echo['calls_per_second']:13.0f} {echo['cpu_us']:7.0f} | {memory['rss_mib']:7.0f} {memory['threads']:8}"
        )
    lines += ["", "All clients gone while every worker is busy and 16 calls more wait or were refused:"]
    for name, of in figures.items():
        gone = of["cancelled"]
        lines.append(
            f"{name:<32} with {gone['work_left_seconds']:.1f} s of work left the next call was served after "
            f"{gone['next_call_served_after_seconds']:.1f} s; {gone['calls_run_for_nobody']} of the 16 ran for nobody"
        )
    return lines


def _health(busy: Figures) -> str:
    health = busy["health"]
    return f"{health['p50_ms']:6.1f} {health['p99_ms']:7.1f} {health['max_ms']:7.1f} {health['ok_percent']:3.0f}%"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.server_shell", description=__doc__)
    parser.add_argument("--workers", type=int, default=256, help="(default: 256)")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long the workers are busy (default: 10)")
    parser.add_argument("--echo-rounds", type=int, default=7, help="(default: 7)")
    parser.add_argument("--candidate", choices=CANDIDATES, action="append", help="may be repeated (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args(arguments)
    facts = machine.describe()
    figures = measure(
        options.candidate or list(CANDIDATES),
        workers=options.workers,
        seconds=options.seconds,
        echo_rounds=options.echo_rounds,
    )
    busy = f"{options.workers} workers, busy for {options.seconds:g} s."
    sys.stdout.write("\n".join([*machine.lines(facts), busy, *table(figures)]) + "\n")
    if options.json:
        options.json.write_text(json.dumps({"machine": facts, "figures": figures}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m tests.soak`: runs every long run, or those named. Exit status 1 if one failed."""

import argparse
import random
import sys
import time
from collections.abc import Sequence
from importlib import import_module

from tests.soak.plan import Plan

SOAKS = ("crashes", "stream", "state_machine")
"""Modules of this package, each with `soak(plan: Plan) -> str`: raises AssertionError, or returns what was done."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Says of each run what it did and how long it took."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SOAKS)}; default: all")
    parser.add_argument("--rounds", type=int, default=20, help="how often each step is tried (default: 20)")
    parser.add_argument("--seed", type=int, default=None, help="what a failed run has printed")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(SOAKS)
    if unknown:
        parser.error(f"no such run: {', '.join(sorted(unknown))}")
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**32)
    failed = [name for name in options.names or SOAKS if not _passes(name, Plan(options.rounds, seed))]
    return 1 if failed else 0


def _passes(name: str, plan: Plan) -> bool:
    started_at = time.monotonic()
    try:
        done = import_module(f"tests.soak.{name}").soak(plan)
    except AssertionError as error:
        _say(f"{name}: FAILED with --seed {plan.seed}\n{error}")
        return False
    _say(f"{name}: {done} in {time.monotonic() - started_at:.0f} s (seed {plan.seed})")
    return True


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

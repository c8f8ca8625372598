"""`keybroker probe-kms`: its arguments, its consent, its signals and its exit status."""

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from keybroker.adapters.clock import SystemClock
from keybroker.kms_credentials import credentials_source
from keybroker.ports import Clock
from keybroker.probe.course import CALLS_PER_SECOND, Course
from keybroker.probe.findings import Report
from keybroker.probe.rendering import as_json, as_text
from keybroker.probe.run import Probe, Target
from keybroker.probe.throwaways import MAX_CMKS, PENDING_WINDOW_DAYS
from keybroker.process_hardening import protect_from_dumps
from keybroker.settings import ConfigurationError, Settings, load_settings

EXIT_COMPLETED = 0
EXIT_ENDED_EARLY = 1
EXIT_NOT_ACCEPTED = 2  # as for a bad argument or configuration: nothing was sent
EXIT_LEFT_BEHIND = 3
DEFAULT_SECONDS_BUDGET = 300.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def add_probe_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "probe-kms", help="ask a live KMS instance what its documentation leaves open, with throwaway CMKs"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration, YAML")
    parser.add_argument("--instance", metavar="NAME", help="KMS instance of the configuration (default: its default)")
    parser.add_argument(
        "--i-accept-throwaway-cmks",
        action="store_true",
        help=f"make up to {MAX_CMKS} CMKs and schedule their deletion; without it, say what would be made and stop",
    )
    parser.add_argument("--output", choices=("table", "json"), default="table", help="form of the report")
    parser.add_argument(
        "--seconds-budget",
        type=_positive,
        default=DEFAULT_SECONDS_BUDGET,
        metavar="N",
        help=f"ask for N seconds at most (default {DEFAULT_SECONDS_BUDGET:.0f}); cleaning up comes after that",
    )
    parser.set_defaults(run=probe_kms)


def probe_kms(options: argparse.Namespace) -> int:
    """Runs the probe and prints its report. Raises ConfigurationError."""
    settings = load_settings(options.config)
    if settings.hardening.dump_protection:
        protect_from_dumps()  # before the credentials are read
    target = _target(settings, options.instance)
    if not options.i_accept_throwaway_cmks:
        print(_what_it_would_do(target), file=sys.stderr)
        return EXIT_NOT_ACCEPTED
    clock = SystemClock()
    report = probe(target, clock=clock, course=Course(clock=clock, seconds_budget=options.seconds_budget))
    print(as_json(report) if options.output == "json" else as_text(report))
    return exit_status(report)


def probe(target: Target, *, clock: Clock, course: Course) -> Report:
    """A run that SIGINT, SIGTERM and SIGHUP end early, in order. Progress goes to standard error."""
    with _ended_by(_SIGNALS, course):
        return Probe(target=target, clock=clock, course=course, say=_say).run()


def exit_status(report: Report) -> int:
    """0 completed, 1 ended early, 3 something may be left behind that isn't scheduled for deletion."""
    if not report.clean:
        return EXIT_LEFT_BEHIND
    return EXIT_COMPLETED if report.ended == "completed" else EXIT_ENDED_EARLY


def _target(settings: Settings, name: str | None) -> Target:
    name = name or settings.kms.default_instance
    instance = settings.kms.instances.get(name)
    if instance is None:
        raise ConfigurationError(f"--instance: {name!r} is not one of {', '.join(sorted(settings.kms.instances))}")
    return Target(name=name, settings=instance, credentials=credentials_source(name, instance))


def _what_it_would_do(target: Target) -> str:
    return (
        f"keybroker probe-kms would make up to {MAX_CMKS} external AES-256 CMKs on {target.settings.dkms_instance_id} "
        f"(instance {target.name}, {target.settings.region}), import throwaway key material into them, try what is "
        f"open, and schedule the deletion of each in {PENDING_WINDOW_DAYS} days. Until then each counts against the "
        "quota of the instance and may be billed. 33 requests, more if something shows late; at most "
        f"{CALLS_PER_SECOND:.0f} a second.\n"
        "It touches no other CMK. Nothing was sent. To go ahead: --i-accept-throwaway-cmks"
    )


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value <= 24 * 3600:
        raise argparse.ArgumentTypeError("must be more than 0 and at most a day")
    return value


def _say(text: str) -> None:
    try:
        print(f"probe-kms: {text}", file=sys.stderr, flush=True)
    except OSError:  # whoever reads this has gone; the CMKs still have to be cleaned up
        return


@contextmanager
def _ended_by(signals: Sequence[signal.Signals], course: Course) -> Iterator[None]:
    """The handler does no more than set a mark. A signal that is ignored (nohup) stays so."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        course.stop()

    heard = [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]
    before = [(number, signal.signal(number, stop)) for number in heard]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)

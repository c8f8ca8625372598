"""Looks the packages of the lock files up in PyPI's advisories, and says of how many nothing could be found out.

Exit code 1: a package has a known vulnerability; or, with --complete, one could not be looked up. pip-audit alone
calls a package "skipped" when there is no answer about it, and ends well: where a mirror with files only stands in for
PyPI, it would report nothing and be believed.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOCK_FILES = ("requirements.lock", "requirements-dev.lock")
TIMEOUT_SECONDS = 300


@dataclass(frozen=True)
class Findings:
    """Of the packages of a lock file: vulnerable ones with their advisories, and those nobody told anything of."""

    packages: int
    vulnerable: Sequence[str]
    unknown: Sequence[str]


def read_report(report: str) -> Findings:
    """What pip-audit's JSON says. Raises ValueError for anything else, and for a report of no package."""
    dependencies: list[dict[str, Any]] = json.loads(report)["dependencies"]
    if not dependencies:
        raise ValueError("no package in the report")
    found = [(entry, entry.get("vulns")) for entry in dependencies]
    return Findings(
        packages=len(found),
        vulnerable=[
            f"{entry['name']} {entry['version']}: {', '.join(advisory['id'] for advisory in advisories)}"
            for entry, advisories in found
            if advisories
        ],
        unknown=[entry["name"] for entry, advisories in found if advisories is None],
    )


def audit(lock_file: Path) -> Findings:
    """Asks about the packages of a lock file. Raises ValueError if pip-audit gives no report."""
    options = ["--disable-pip", "--require-hashes", "--timeout", "10", "-f", "json", "-r", str(lock_file)]
    try:
        ended = subprocess.run(  # noqa: S603  # our own interpreter, our own file
            [sys.executable, "-m", "pip_audit", *options],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        return read_report(ended.stdout)
    except (subprocess.TimeoutExpired, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"pip-audit gave no report ({type(error).__name__})") from None


def told(name: str, findings: Findings) -> list[str]:
    """The lines about a lock file."""
    known = findings.packages - len(findings.unknown)
    lines = [f"{name}: {known} of {findings.packages} packages looked up, {len(findings.vulnerable)} vulnerable"]
    lines += [f"  {line}" for line in findings.vulnerable]
    if findings.unknown:
        lines.append(f"  NOT AUDITED: {len(findings.unknown)} packages, the advisories of PyPI were not reached")
    return lines


def main(arguments: Sequence[str]) -> int:
    """Audits each lock file; returns the exit code."""
    parser = argparse.ArgumentParser(description="audit the lock files")
    parser.add_argument("--complete", action="store_true", help="fail if a package could not be looked up")
    complete = parser.parse_args(arguments).complete
    failed = False
    for name in LOCK_FILES:
        try:
            findings = audit(ROOT / name)
        except ValueError as error:
            print(f"{name}: NOT AUDITED: {error}")
            failed |= complete
            continue
        print("\n".join(told(name, findings)))
        failed |= bool(findings.vulnerable) or (complete and bool(findings.unknown))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

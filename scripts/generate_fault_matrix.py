"""Run the fault matrix, and write its record of outcomes and docs/fault-matrix.md; with --check compare the page only.

The run takes minutes. The test of the same name fails where a run, the record and the page are not the same. Exit
status 0 when written or up to date, 1 when something told is false or --check finds a difference.
"""

import argparse
import logging
import sys
from pathlib import Path

import structlog

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.integration.fault_matrix import document, record  # the path has to be set first
from tests.integration.fault_matrix.axes import GROUPS, cells_of_group
from tests.integration.fault_matrix.run import run_group
from tests.integration.fault_matrix.stack import running_lanes


def main() -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="run nothing, change nothing")
    if parser.parse_args().check:
        return _check()
    logging.getLogger("urllib3").setLevel(logging.CRITICAL + 1)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    outcomes: dict[str, str] = {}
    failed: dict[str, str] = {}
    recorded = record.flat(record.read())
    with running_lanes() as lanes:
        for group in GROUPS:
            held, false = run_group(group, lanes, recorded)
            outcomes |= {cell.key: held[cell.key] for cell in cells_of_group(group) if cell.key in held}
            failed |= false
            print(f"{group}: {len(held)} cells hold, {len(false)} do not")
    for key, error in failed.items():
        print(f"{key}: {error}", file=sys.stderr)
    if failed:
        return 1
    record.write(outcomes)
    document.PATH.write_text(document.render(record.read()), encoding="utf-8")
    return 0


def _check() -> int:
    page = document.PATH
    if page.is_file() and page.read_text(encoding="utf-8") == document.render(record.read()):
        return 0
    print(f"{page} is out of date: run scripts/generate_fault_matrix.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

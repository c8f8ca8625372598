"""Write docs/emulator-fidelity.md from the emulator's tables, or with --check say whether it is up to date.

Exit status 0 when written or up to date, 1 when --check finds a difference.
"""

import argparse
import sys
from pathlib import Path

from kms_emulator.fidelity import render

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "emulator-fidelity.md"


def main() -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing")
    parser.add_argument("--output", type=Path, default=DOCUMENT, help="(default: %(default)s)")
    arguments = parser.parse_args()
    document = render()
    if not arguments.check:
        arguments.output.write_text(document, encoding="utf-8")
        return 0
    if arguments.output.is_file() and arguments.output.read_text(encoding="utf-8") == document:
        return 0
    print(f"{arguments.output} is out of date: run scripts/generate_emulator_fidelity.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

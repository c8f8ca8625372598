"""What a measurement was made on: without it no figure means anything."""

import os
import platform
import re
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

_DISTRIBUTIONS = ("keybroker", "grpcio", "protobuf", "requests", "cryptography", "alibabacloud-kms20160120")


def describe() -> dict[str, object]:
    """Cores, model, load, kernel, versions and the date."""
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cores": len(os.sched_getaffinity(0)),
        "model": model[1] if model else platform.machine(),
        "load_average_1min": round(os.getloadavg()[0], 2),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _DISTRIBUTIONS},
    }


def lines(machine: dict[str, object]) -> list[str]:
    """The same in two lines."""
    versions = machine["versions"]
    named = ", ".join(f"{name} {number}" for name, number in versions.items()) if isinstance(versions, dict) else ""
    where = f"{machine['cores']} cores of {machine['model']}, Linux {machine['kernel']}"
    return [
        f"{machine['date']}, {where}, load {machine['load_average_1min']}",
        f"Python {machine['python']}, {named}",
    ]

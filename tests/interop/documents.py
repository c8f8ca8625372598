"""Runs the shell blocks of the documentation as they stand there."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTED_ADDRESS = "127.0.0.1:50051"
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def shell_blocks(document: str) -> list[str]:
    """The ```sh blocks of a document of this repository."""
    return _BLOCK.findall((ROOT / document).read_text())


def run_block(block: str, *, address: str, folder: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a block against the broker at `address`, stopping at the first command that fails."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.replace(DOCUMENTED_ADDRESS, address)],
        cwd=folder,
        env=os.environ | {"PATH": path, "KBCTL_ADDRESS": address} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

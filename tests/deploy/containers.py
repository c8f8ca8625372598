"""buildah and podman with a storage of their own, which leaves nothing behind."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.deploy.manifests import ROOT
from tests.deploy.rules.overlays import SMALLEST_LOCKABLE_BYTES

# No systemd, no registry, no bridge: what a container in a virtual machine of a CI offers.
CONFIGURATION = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024", "memlock={lockable}:{lockable}"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
tmp_dir = "{store}/libpod"
[network]
network_config_dir = "{store}/networks"
"""


class Containers(AbstractContextManager["Containers"]):
    """One storage: builds images, runs containers, and at the end removes both. Needs root."""

    def __enter__(self) -> Self:
        self.store = Path(tempfile.mkdtemp(prefix="keybroker-"))  # podman takes 50 characters at most
        self._configuration = self.store / "containers.conf"
        self._configuration.write_text(CONFIGURATION.format(store=self.store, lockable=SMALLEST_LOCKABLE_BYTES))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.podman("pod", "rm", "--all", "--force", "--time", "0", check=False)
        self.podman("rm", "--all", "--force", "--time", "0", check=False)
        shutil.rmtree(self.store)
        for folder in sorted(Path("/sys/fs/cgroup").glob("*/libpod_parent/**/"), reverse=True):
            with suppress(OSError):  # somebody else's, with processes in it
                folder.rmdir()
        left = [line for line in Path("/proc/mounts").read_text().splitlines() if str(self.store) in line]
        assert not left, left
        assert not self._processes(), self._processes()

    def build(self, tag: str, target: str) -> None:
        script = ROOT / "deploy/docker/build-with-buildah.sh"
        answer = subprocess.run(
            [str(script), str(self.store), tag, target], check=False, capture_output=True, text=True, timeout=300
        )
        assert answer.returncode == 0, answer.stderr[-4000:]

    def podman(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = ["podman", "--root", f"{self.store}/root", "--runroot", f"{self.store}/run"]
        answer = subprocess.run(
            [*command, "--storage-driver", "vfs", *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=180,
            env=os.environ | {"CONTAINERS_CONF": str(self._configuration)},
        )
        assert not check or answer.returncode == 0, f"{arguments}: {answer.stdout[-2000:]} {answer.stderr[-2000:]}"
        return answer

    def run(self, image: str, *arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """As the issue has it: nothing to write to, no capability; without a network unless the options give one."""
        network = () if any(option.startswith("--network") for option in options) else ("--network=none",)
        command = ("run", "--read-only", "--cap-drop=all", *network, *options, image, *arguments)
        return self.podman(*command, check="--detach" in options)

    def inspect(self, name: str) -> dict[str, Any]:
        (found,) = json.loads(self.podman("inspect", name).stdout)
        return dict(found)

    def log(self, name: str) -> list[dict[str, Any]]:
        answer = self.podman("logs", name)
        return [json.loads(line) for line in (answer.stdout + answer.stderr).splitlines() if line.startswith("{")]

    def _processes(self) -> list[str]:
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(self.store) in command:
                found.append(command)
        return found


def wait_for(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """What the condition says once it is true."""
    ends_at = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < ends_at, "in vain"
        time.sleep(0.1)
    return value

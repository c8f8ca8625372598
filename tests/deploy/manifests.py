"""What an overlay renders to, and the questions that rules ask it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from keybroker.settings import Settings, parse_settings

ROOT = Path(__file__).parents[2]
KUSTOMIZE = ROOT / "deploy/kustomize"
OVERLAYS = ("dev", "production")
Tree = dict[str, Any]


def render(overlay: str) -> list[Tree]:
    kubectl = Path(sys.executable).parent / "kubectl"  # from the lock file
    command = [str(kubectl), "kustomize", str(KUSTOMIZE / "overlays" / overlay)]
    answer = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stderr
    assert "Warning" not in answer.stderr, answer.stderr
    return list(yaml.safe_load_all(answer.stdout))


class Manifests:
    """The objects of one overlay. `overlay` is its name."""

    def __init__(self, overlay: str, objects: list[Tree]) -> None:
        self.overlay = overlay
        self.objects = objects

    def all(self, kind: str) -> list[Tree]:
        return [item for item in self.objects if item.get("kind") == kind]

    def one(self, kind: str) -> Tree:
        found = self.all(kind)
        assert len(found) == 1, f"{len(found)} objects of kind {kind}"
        return found[0]

    def named(self, kind: str, name: str) -> Tree | None:
        return next((item for item in self.all(kind) if item["metadata"]["name"] == name), None)

    @property
    def template(self) -> Tree:
        return self.one("Deployment")["spec"]["template"]

    @property
    def pod(self) -> Tree:
        return self.template["spec"]

    @property
    def broker(self) -> Tree:
        return _first(item for item in self.pod["containers"] if item["name"] == "keybroker")

    @property
    def emulator(self) -> Tree | None:
        return next((item for item in self.pod["containers"] if item["name"] == "kms-emulator"), None)

    def config_map(self, prefix: str) -> Tree:
        return _first(item["data"] for item in self.all("ConfigMap") if item["metadata"]["name"].startswith(prefix))

    def settings(self) -> Settings:
        """The configuration as keybroker reads it; raises ConfigurationError as keybroker does."""
        return parse_settings(yaml.safe_load(self.config_map("keybroker-config")["keybroker.yaml"]))

    def container_ports(self) -> dict[str, int]:
        return {port["name"]: port["containerPort"] for port in self.broker["ports"]}


def _first(found: Iterator[Tree]) -> Tree:
    """Not `next`: in a generator, a StopIteration becomes a RuntimeError."""
    for item in found:
        return item
    raise LookupError("not there")


def paths_in(value: Any) -> Iterator[Path]:
    """Every path that a configuration names."""
    if isinstance(value, Path):
        yield value
    elif isinstance(value, dict):
        yield from paths_in(list(value.values()))
    elif isinstance(value, list):
        for item in value:
            yield from paths_in(item)

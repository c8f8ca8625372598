"""Commands, ports, probes and shutdown, each compared with the code."""

import http.client
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from prometheus_client import CollectorRegistry

from keybroker.__main__ import _parser as broker_parser
from keybroker.settings import is_loopback, split_address
from keybroker.telemetry.http import TelemetryServer
from kms_emulator.__main__ import _parser as emulator_parser
from tests.deploy.manifests import ROOT, Manifests

SECONDS_TO_EXIT = 5
_PROBE_FIELDS = {"httpGet", "periodSeconds", "timeoutSeconds", "failureThreshold"}


@cache
def answers(path: str) -> tuple[int, int]:
    """The status of the code's own HTTP server for a path: while serving, while not ready."""
    ready = True
    server = TelemetryServer("127.0.0.1", 0, registry=CollectorRegistry(), readiness=lambda: (ready, {}))
    port = server.start()
    try:
        serving = _status(port, path)
        ready = False
        return serving, _status(port, path)
    finally:
        server.stop()


def _status(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def commands_are_the_codes_own(manifests: Manifests) -> Iterator[str]:
    if "command" in manifests.broker:
        yield "not the image's entry point"
    options = broker_parser().parse_args(manifests.broker["args"])
    if options.run.__name__ != "_serve" or options.emulator or options.config is None:
        yield f"not a broker with a configuration: {manifests.broker['args']}"
    if manifests.emulator is not None:
        executable, *arguments = manifests.emulator["command"]
        entry = Path(executable)
        if str(entry.parent) != _image_folder() or f'\n{entry.name} = "' not in (ROOT / "pyproject.toml").read_text():
            yield f"no {executable} in the image"
        emulated = emulator_parser().parse_args(arguments)
        for instance in manifests.settings().kms.instances.values():
            if instance.endpoint != f"http://{emulated.host}:{emulated.port}":
                yield f"no emulator at {instance.endpoint}"
            if instance.dkms_instance_id not in emulated.dkms_instance or instance.region != emulated.region:
                yield "another instance than the emulator's"


def _image_folder() -> str:
    dockerfile = (ROOT / "deploy/docker/Dockerfile").read_text()
    return str(Path(dockerfile.partition('ENTRYPOINT ["')[2].partition('"')[0]).parent)


def ports_are_those_served(manifests: Manifests) -> Iterator[str]:
    server = manifests.settings().server
    served = {"grpc": split_address(server.grpc_address), "http": split_address(server.http_address)}
    if manifests.container_ports() != {name: port for name, (_, port) in served.items()}:
        yield f"ports {manifests.container_ports()}, served {served}"
    if any(is_loopback(host) for host, _ in served.values()):
        yield "nobody outside the pod can reach it"
    if any(container.get("ports") for container in manifests.pod["containers"] if container["name"] != "keybroker"):
        yield "another container takes calls"


def probes_ask_what_the_code_answers(manifests: Manifests) -> Iterator[str]:
    """Alive means alive also while not ready; ready says no then."""
    expected = {"startupProbe": (200, 200), "livenessProbe": (200, 200), "readinessProbe": (200, 503)}
    for name, statuses in expected.items():
        probe = manifests.broker[name]
        if probe.keys() - _PROBE_FIELDS or probe["httpGet"].keys() != {"path", "port"}:
            yield f"{name} of unknown effect"
        if probe["httpGet"]["port"] != "http":
            yield f"{name} asks port {probe['httpGet']['port']}"
        if answers(probe["httpGet"]["path"]) != statuses:
            yield f"{name} gets {answers(probe['httpGet']['path'])}"


def drain_fits_the_grace_period(manifests: Manifests) -> Iterator[str]:
    before_stop = manifests.broker["lifecycle"]["preStop"]["sleep"]["seconds"]
    needed = before_stop + manifests.settings().server.shutdown_grace_seconds + SECONDS_TO_EXIT
    if not 1 <= before_stop <= 10:
        yield f"{before_stop} s before the drain"
    if manifests.pod["terminationGracePeriodSeconds"] < needed:
        yield f"{manifests.pod['terminationGracePeriodSeconds']} s are less than {needed} s"

"""What makes an overlay the one that its name says."""

import re
from collections.abc import Iterator

from keybroker import __version__
from keybroker.domain.secret_memory import SLOT_BYTES
from tests.deploy.manifests import Manifests

_BY_DIGEST = re.compile(r"[a-z0-9.-]+/keybroker@sha256:[0-9a-f]{64}")

SMALLEST_LOCKABLE_BYTES = 64 * 1024  # RLIMIT_MEMLOCK of older systems; newer ones have 8 MiB. No manifest can raise it


def overlay_is_what_it_says(manifests: Manifests) -> Iterator[str]:
    yield from {"dev": _dev, "production": _production}[manifests.overlay](manifests)


def _production(manifests: Manifests) -> Iterator[str]:
    yield from _production_settings(manifests)
    yield from _production_objects(manifests)


def _production_settings(manifests: Manifests) -> Iterator[str]:
    settings = manifests.settings()
    server = settings.server
    if server.reflection or server.channelz or server.allow_insecure_non_loopback:
        yield "open doors"
    if server.tls is None or server.identity is None or server.identity.mtls is None or settings.policy is None:
        yield "callers are not known"
    if not settings.imports.forbid_pkcs1_v1_5 or settings.imports.allow_foreign_tokens:
        yield "imports that may bind garbage"
    hardening = settings.hardening
    if not (hardening.dump_protection and hardening.require_memory_lock and hardening.require_no_swap):
        yield "key material may reach a disk"
    if server.max_concurrent_calls * SLOT_BYTES > SMALLEST_LOCKABLE_BYTES:
        yield "more memory to lock than a container may"
    for name, instance in settings.kms.instances.items():
        if instance.allow_emulator or instance.endpoint != f"https://kms-vpc.{instance.region}.aliyuncs.com":
            yield f"{name} is not a KMS"
        if instance.credentials is None or instance.credentials.rrsa is None:
            yield f"{name} has credentials that stay"


def _production_objects(manifests: Manifests) -> Iterator[str]:
    if manifests.one("Namespace")["metadata"]["labels"]["pod-identity.alibabacloud.com/injection"] != "on":
        yield "the webhook does not look here"
    if manifests.one("ServiceAccount")["metadata"]["annotations"] != {
        "pod-identity.alibabacloud.com/role-name": "keybroker"
    }:
        yield "another RAM role than deploy/ram describes"
    if len(manifests.pod["containers"]) != 1 or manifests.all("Secret"):
        yield "more than the broker"
    if not _BY_DIGEST.fullmatch(manifests.broker["image"]):
        yield f"{manifests.broker['image']} is not by digest"
    if not manifests.all("ServiceMonitor"):
        yield "not watched"


def _dev(manifests: Manifests) -> Iterator[str]:
    settings = manifests.settings()
    if not settings.server.reflection or settings.policy is not None:
        yield "not as open as development is"
    if manifests.emulator is None or len(manifests.pod["containers"]) != 2:
        yield "no emulator beside the broker"
    for name, instance in settings.kms.instances.items():
        if not instance.allow_emulator or instance.credentials is None or instance.credentials.files is None:
            yield f"{name} is not the emulator"
    if {container["image"] for container in manifests.pod["containers"]} != {f"localhost/keybroker-dev:{__version__}"}:
        yield "not the image with the emulator"

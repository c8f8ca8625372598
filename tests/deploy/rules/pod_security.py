"""The Pod Security Standard "restricted", and what keybroker asks beyond it.

Source: Kubernetes, Pod Security Standards, tables Baseline and Restricted. Written out, as there is no API server here
to enforce it. Left out: Windows, AppArmor and SELinux options, which must be absent and are.
"""

import re
from collections.abc import Iterator

from tests.deploy.manifests import ROOT, Manifests

VOLUME_KINDS = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
POD_CONTEXT = {"runAsNonRoot", "runAsUser", "runAsGroup", "fsGroup", "fsGroupChangePolicy", "seccompProfile"}
LEVEL = "restricted"
LABEL = "pod-security.kubernetes.io"


def image_user() -> int:
    """The number in the Dockerfile's USER."""
    user = re.search(r"^USER (\d+):\1$", (ROOT / "deploy/docker/Dockerfile").read_text(), re.MULTILINE)
    assert user is not None
    return int(user[1])


def pod_is_restricted(manifests: Manifests) -> Iterator[str]:
    pod = manifests.pod
    if used := {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & pod.keys():
        yield f"the host's {used}"
    for volume in pod["volumes"]:
        if kinds := volume.keys() - {"name"} - VOLUME_KINDS:
            yield f"volume {volume['name']} of kind {kinds}"
    context = pod["securityContext"]
    if context["runAsNonRoot"] is not True or context["seccompProfile"] != {"type": "RuntimeDefault"}:
        yield "root, or no seccomp profile"
    if {context["runAsUser"], context["runAsGroup"], context["fsGroup"]} != {image_user()}:
        yield "another user than the image's"
    if context["fsGroupChangePolicy"] != "OnRootMismatch" or context.keys() - POD_CONTEXT:
        yield "a security context of unknown effect"
    labels = manifests.one("Namespace")["metadata"]["labels"]
    levels = [labels[f"{LABEL}/{mode}"] for mode in ("enforce", "audit", "warn")]
    if levels != [LEVEL] * 3 or labels[f"{LABEL}/enforce-version"] != "latest":
        yield f"the namespace enforces {levels}"


def containers_are_restricted(manifests: Manifests) -> Iterator[str]:
    expected = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    if others := {"initContainers", "ephemeralContainers"} & manifests.pod.keys():
        yield f"{others} that no rule looks at"
    for container in manifests.pod["containers"]:
        if container["securityContext"] != expected:
            yield f"{container['name']} has {container['securityContext']}"
        if any("hostPort" in port for port in container.get("ports", [])):
            yield f"{container['name']} takes a port of the host"
        if not {"cpu", "memory"} <= container["resources"]["requests"].keys():
            yield f"{container['name']} requests nothing"
        if "memory" not in container["resources"]["limits"]:
            yield f"{container['name']} has no memory limit"


def no_token_is_mounted(manifests: Manifests) -> Iterator[str]:
    account = manifests.one("ServiceAccount")
    if account["automountServiceAccountToken"] is not False:
        yield "the service account hands out its token"
    if manifests.pod["automountServiceAccountToken"] is not False:
        yield "the pod takes the service account's token"
    if manifests.pod["serviceAccountName"] != account["metadata"]["name"]:
        yield "the pod has another service account"
    if manifests.pod["enableServiceLinks"] is not False:
        yield "the environment names the cluster's services"

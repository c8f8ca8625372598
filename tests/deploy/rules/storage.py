"""Files: every path in the configuration is mounted and every mount is used."""

import base64
from collections.abc import Iterator
from pathlib import Path

from keybroker.policy_file import parse_policy
from kms_emulator.settings import EmulatorSettings
from tests.deploy.manifests import ROOT, Manifests, Tree, paths_in

STATE = Path("/var/lib/keybroker")  # nothing in the code yet; the record of requests will live there
CERTIFICATE_FILES = {"tls.crt", "tls.key", "ca.crt"}  # what cert-manager writes
MADE_BY_OTHERS = {("ConfigMap", "keybroker-client-ca"): {"ca.crt"}}


def mounts_are_used_and_files_are_there(manifests: Manifests) -> Iterator[str]:
    needed = _files_needed(manifests)
    mounts = {Path(mount["mountPath"]): mount for mount in manifests.broker["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in manifests.pod["volumes"]}
    for path in needed:
        mount = mounts.get(path.parent)
        if mount is None or path.name not in _files_of(volumes[mount["name"]], manifests):
            yield f"{path} is not there"
    for path, mount in mounts.items():
        if path != STATE and path not in {file.parent for file in needed}:
            yield f"nothing in the configuration uses {path}"
        if mount.keys() - {"name", "mountPath", "readOnly"}:
            yield f"{path} is mounted in a way that may not follow changes"  # subPath
        if (mount.get("readOnly") is True) == (path == STATE):
            yield f"{path}: writable, or state that is not"
    if volumes.keys() != {mount["name"] for mount in mounts.values()}:
        yield "a volume that is not mounted, or a mount without one"
    claim = manifests.one("PersistentVolumeClaim")["metadata"]["name"]
    if STATE not in mounts or volumes[mounts[STATE]["name"]] != {
        "name": mounts[STATE]["name"],
        "persistentVolumeClaim": {"claimName": claim},
    }:
        yield "the state is not on the claim"
    yield from _secrets_are_not_for_all(manifests)


def _files_needed(manifests: Manifests) -> set[Path]:
    return {*paths_in(manifests.settings().model_dump()), Path(manifests.broker["args"][-1])}


def _files_of(volume: Tree, manifests: Manifests) -> set[str]:
    """The files that a volume holds."""
    kind, name = ("Secret", volume["secret"]["secretName"]) if "secret" in volume else ("ConfigMap", "")
    name = name or volume["configMap"]["name"]
    source = manifests.named(kind, name)
    if source is not None:
        return set(source["data"])
    if kind == "Secret" and any(item["spec"]["secretName"] == name for item in manifests.all("Certificate")):
        return CERTIFICATE_FILES
    documented = (ROOT / "docs/deployment.md").read_text()
    return MADE_BY_OTHERS.get((kind, name), set()) if f"`{name}`" in documented else set()


def _secrets_are_not_for_all(manifests: Manifests) -> Iterator[str]:
    for volume in manifests.pod["volumes"]:
        if "secret" in volume and volume["secret"]["defaultMode"] != 0o440:
            yield f"{volume['name']} can be read by everybody in the pod"
    for secret in manifests.all("Secret"):
        known = EmulatorSettings().access_keys[0]
        values = {base64.b64decode(value, validate=True).decode() for value in secret["data"].values()}
        if values != {known.access_key_id, known.access_key_secret}:
            yield "a secret in a repository, or not the emulator's"


def policy_is_good(manifests: Manifests) -> Iterator[str]:
    """An overlay with a policy has one that keybroker takes, and that allows somebody something."""
    if manifests.settings().policy is not None:
        policy = parse_policy(manifests.config_map("keybroker-policy")["policy.yaml"].encode())
        if not policy.rules:
            yield "the policy allows nobody anything"
        for rule in policy.rules:
            if rule.may_delete:
                yield f"{rule.name} may delete: a template should not"
            if not any(caller.text.startswith("x509:spiffe://") for caller in rule.callers):
                yield f"{rule.name} is for callers that mTLS does not give"

"""Files: every path in the configuration is mounted and every mount is used; ledger and mark are on claims apart."""

import base64
from collections.abc import Iterator
from pathlib import Path

from keybroker.policy_file import parse_policy
from kms_emulator.settings import EmulatorSettings
from tests.deploy.manifests import ROOT, Manifests, Tree, paths_in

LEDGER = Path("/var/lib/keybroker/ledger.db")  # another name on the same claims is a lost ledger
MARK = Path("/var/lib/keybroker-mark/mark")
AUDIT = Path("/var/lib/keybroker-mark/audit.jsonl")  # not on the ledger's claim, which it could fill
CLAIMS = {LEDGER.parent: "keybroker-state", MARK.parent: "keybroker-mark"}
NOT_RANDOM = b"keybroker development, no secret"
VELERO_LEAVES_OUT = "velero.io/exclude-from-backup"
VELERO_LEAVES_OUT_VOLUMES = "backup.velero.io/backup-volumes-excludes"
CERTIFICATE_FILES = {"tls.crt", "tls.key", "ca.crt"}  # what cert-manager writes
MADE_BY_OTHERS = {
    ("ConfigMap", "keybroker-client-ca"): {"ca.crt"},
    ("Secret", "keybroker-ledger-key"): {"key"},
    ("Secret", "keybroker-receipt-key"): {"key.pem"},
}


def mounts_are_used_and_files_are_there(manifests: Manifests) -> Iterator[str]:
    needed = _files_needed(manifests)
    mounts = {Path(mount["mountPath"]): mount for mount in manifests.broker["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in manifests.pod["volumes"]}
    for path in needed:
        mount = mounts.get(path.parent)
        if mount is None or path.name not in _files_of(volumes[mount["name"]], manifests):
            yield f"{path} is not there"
    for path, mount in mounts.items():
        if path not in CLAIMS and path not in {file.parent for file in needed}:
            yield f"nothing in the configuration uses {path}"
        if mount.keys() - {"name", "mountPath", "readOnly"}:
            yield f"{path} is mounted in a way that may not follow changes"  # subPath
        if (mount.get("readOnly") is True) == (path in CLAIMS):
            yield f"{path}: writable, or a claim that is not"
    if volumes.keys() != {mount["name"] for mount in mounts.values()}:
        yield "a volume that is not mounted, or a mount without one"
    yield from _secrets_are_not_for_all(manifests)


def ledger_and_mark_are_on_claims_apart(manifests: Manifests) -> Iterator[str]:
    """So that no snapshot takes both back, and none of another file that lies beside them."""
    ledger = manifests.settings().ledger
    if (ledger.file, ledger.mark_file) != (LEDGER, MARK):
        yield f"ledger and mark are {ledger.file} and {ledger.mark_file}"
    mounts = {Path(mount["mountPath"]): mount["name"] for mount in manifests.broker["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in manifests.pod["volumes"]}
    for path, claim in CLAIMS.items():
        expected = {"name": mounts[path], "persistentVolumeClaim": {"claimName": claim}}
        if volumes[mounts[path]] != expected:
            yield f"{path} is not on {claim}"
    if {claim["metadata"]["name"] for claim in manifests.all("PersistentVolumeClaim")} != set(CLAIMS.values()):
        yield "other claims than those of ledger and mark"
    for claim in manifests.all("PersistentVolumeClaim"):
        left_out = claim["metadata"]["labels"].get(VELERO_LEAVES_OUT) == "true"
        if left_out != (claim["metadata"]["name"] == CLAIMS[MARK.parent]):
            yield f"{claim['metadata']['name']}: the mark is backed up, or the ledger is not"
    if manifests.template["metadata"]["annotations"] != {VELERO_LEAVES_OUT_VOLUMES: mounts[MARK.parent]}:
        yield "the mark's files are backed up"


def production_is_audited_in_two_places(manifests: Manifests) -> Iterator[str]:
    """A file alone can be cut at its end unnoticed, and standard output alone is lost with a collector's gap."""
    settings = manifests.settings()
    if settings.policy is not None and (settings.audit.file, settings.audit.stdout) != (AUDIT, True):
        yield f"the audit log goes to {settings.audit.file}, standard output: {settings.audit.stdout}"


def _files_needed(manifests: Manifests) -> set[Path]:
    """All but those that the broker makes."""
    return {*paths_in(manifests.settings().model_dump()), Path(manifests.broker["args"][-1])} - {LEDGER, MARK, AUDIT}


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
    key = EmulatorSettings().access_keys[0]
    worthless = [
        {"access_key_id": key.access_key_id.encode(), "access_key_secret": key.access_key_secret.encode()},
        {"key": base64.b64encode(NOT_RANDOM)},
    ]
    for secret in manifests.all("Secret"):
        if {name: base64.b64decode(text, validate=True) for name, text in secret["data"].items()} not in worthless:
            yield "a secret in a repository"


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

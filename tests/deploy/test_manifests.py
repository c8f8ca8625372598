"""The overlays are valid and good, and no part of them can change without a rule that notices."""

import base64
import copy
import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.deploy.manifests import OVERLAYS, ROOT, Manifests, Tree, render
from tests.deploy.rules import problems
from tests.deploy.rules.storage import LEDGER, MARK

MINORS = ("1.35", "1.36", "1.37")
WITHOUT_SCHEMA = {"Certificate", "ServiceMonitor"}
Path = tuple[str | int, ...]

# What operators may tune, or what only names something. All else is bound by a rule.
FREE = [
    re.compile(pattern)
    for pattern in (
        r"\w+/apiVersion",  # kubernetes-validate knows which there are
        r"\w+/metadata/(labels/app\.kubernetes\.io~name|name|namespace)",
        r"Deployment/spec/revisionHistoryLimit",
        r"Deployment/spec/template/spec/terminationGracePeriodSeconds",  # at least: a rule, and a test below
        r"Deployment/spec/template/spec/containers/\d/(imagePullPolicy|name|resources/.*)",
        r"Deployment/spec/template/spec/containers/\d/lifecycle/preStop/sleep/seconds",  # the same
        r"Deployment/spec/template/spec/containers/\d/\w+Probe/(periodSeconds|timeoutSeconds|failureThreshold)",
        r"Deployment/spec/template/spec/volumes/\d/secret/optional",
        r"PersistentVolumeClaim/spec/(storageClassName|resources/.*)",
        r"Certificate/spec/(duration|renewBefore|issuerRef/name)",
        r"ServiceMonitor/spec/endpoints/\d/interval",
        r"Secret/type",
        r"ConfigMap/data/policy.yaml",  # a comment may follow; mutated inside below
    )
]
FREE_SETTINGS = {"kms/instances/main/dkms_instance_id": ["production"]}  # which KMS; beside the emulator, its own
DEFAULT_SETTINGS = {"server/reflection": ["production"], "logs/level": ["production"]}  # written out, may be left out


@cache
def _rendered(overlay: str) -> str:
    return json.dumps(render(overlay))


def manifests_of(overlay: str) -> Manifests:
    return Manifests(overlay, json.loads(_rendered(overlay)))


def leaves(tree: Any, path: Path = ()) -> Iterator[Path]:
    if isinstance(tree, dict | list) and tree:
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(value, (*path, key))
    else:
        yield path


def changed(tree: Any, path: Path, *, remove: bool) -> Any:
    """A copy with one leaf changed or gone."""
    tree = copy.deepcopy(tree)
    *way, last = path
    place = tree
    for key in way:
        place = place[key]
    if remove:
        del place[last]
    else:
        value = place[last]
        place[last] = not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else f"{value}x"
    return tree


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("minor", MINORS)
def test_overlay_validates_strictly_against_kubernetes(overlay: str, minor: str) -> None:
    without = set()
    for item in manifests_of(overlay).objects:
        try:
            assert kubernetes_validate.validate(item, minor, strict=True) == minor
        except kubernetes_validate.SchemaNotFoundError:
            without.add(item["kind"])
    assert without == (WITHOUT_SCHEMA if overlay == "production" else set())


def test_unknown_field_does_not_validate() -> None:
    deployment = manifests_of("dev").one("Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["livenessprobe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, MINORS[0], strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlay_follows_every_rule(overlay: str) -> None:
    assert problems(manifests_of(overlay)) == []


@pytest.mark.parametrize("remove", [False, True], ids=["changed", "removed"])
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_part_changes_unnoticed(overlay: str, remove: bool) -> None:  # noqa: FBT001  # a parameter
    """Every scalar of every object, but those that operators may tune."""
    objects = manifests_of(overlay).objects
    unnoticed = []
    for number, item in enumerate(objects):
        for path in leaves(item):
            name = "/".join([item["kind"], *(str(key).replace("/", "~") for key in path)])
            if any(free.fullmatch(name) for free in FREE):
                continue
            mutant = [*objects[:number], changed(item, path, remove=remove), *objects[number + 1 :]]
            if not problems(Manifests(overlay, mutant)):
                unnoticed.append(name)
    assert unnoticed == []


@pytest.mark.parametrize("remove", [False, True], ids=["changed", "removed"])
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_setting_changes_unnoticed(overlay: str, remove: bool) -> None:  # noqa: FBT001  # a parameter
    tree = yaml.safe_load(manifests_of(overlay).config_map("keybroker-config")["keybroker.yaml"])
    unnoticed = []
    for path in leaves(tree):
        name = "/".join(map(str, path))
        if overlay in (DEFAULT_SETTINGS if remove else FREE_SETTINGS).get(name, []):
            continue
        manifests = manifests_of(overlay)
        settings = yaml.safe_dump(changed(tree, path, remove=remove))
        manifests.config_map("keybroker-config")["keybroker.yaml"] = settings
        if not problems(manifests):
            unnoticed.append(name)
    assert unnoticed == []


def _set(item: Tree, path: str, value: Any) -> None:
    *way, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    for key in way:
        item = item[key]
    item[last] = value


POD = "spec.template.spec"
MUTATIONS = [
    ("production", "Deployment", f"{POD}.terminationGracePeriodSeconds", 34),
    ("production", "Deployment", f"{POD}.containers.0.lifecycle.preStop.sleep.seconds", 11),
    ("production", "Deployment", f"{POD}.containers.0.readinessProbe.httpGet.path", "/livez"),
    ("production", "Deployment", f"{POD}.containers.0.livenessProbe.httpGet.path", "/readyz"),
    ("production", "Deployment", f"{POD}.containers.0.livenessProbe.exec", {"command": ["true"]}),
    ("production", "Deployment", f"{POD}.containers.0.securityContext.privileged", True),
    ("production", "Deployment", f"{POD}.containers.0.securityContext.runAsUser", 0),
    ("production", "Deployment", f"{POD}.containers.0.securityContext.capabilities.add", ["SYS_PTRACE"]),
    ("production", "Deployment", f"{POD}.containers.0.volumeMounts.2.subPath", "policy.yaml"),
    ("production", "Deployment", f"{POD}.containers.0.ports.0.hostPort", 50051),
    ("production", "Deployment", f"{POD}.containers.0.image", "registry.example.com/keybroker:0.1.0"),
    ("production", "Deployment", f"{POD}.hostNetwork", True),
    ("production", "Deployment", f"{POD}.volumes.5", {"name": "state", "hostPath": {"path": "/"}}),
    ("production", "Deployment", f"{POD}.volumes.6.persistentVolumeClaim.claimName", "keybroker-state"),
    ("production", "Deployment", f"{POD}.volumes.7", {"name": "ledger-key", "emptyDir": {}}),
    ("production", "Deployment", f"{POD}.volumes.7.secret.defaultMode", 0o444),
    ("production", "Deployment", f"{POD}.containers.0.volumeMounts.6.readOnly", True),
    ("production", "Deployment", f"{POD}.containers.0.volumeMounts.6.subPath", "mark"),
    ("production", "Deployment", f"{POD}.initContainers", [{"name": "other", "image": "other"}]),
    ("production", "Deployment", "spec.strategy", {"type": "RollingUpdate"}),
    ("production", "Service", "spec.type", "LoadBalancer"),
    ("production", "Certificate", "spec.renewBefore", "700h"),
    ("production", "Certificate", "spec.usages", ["server auth", "client auth"]),
]


@pytest.mark.parametrize(("overlay", "kind", "path", "value"), MUTATIONS, ids=[item[2] for item in MUTATIONS])
def test_mutation_is_noticed(overlay: str, kind: str, path: str, value: Any) -> None:
    manifests = manifests_of(overlay)
    _set(manifests.one(kind), path, value)
    assert problems(manifests)


def _with_prefix(manifests: Manifests, kind: str, prefix: str) -> Tree:
    (found,) = [item for item in manifests.all(kind) if item["metadata"]["name"].startswith(prefix)]
    return found


NAMED_MUTATIONS: list[tuple[str, str, str, str, Any]] = [
    ("dev", "Secret", "keybroker-credentials", "data.access_key_secret", "cmVhbA=="),
    (
        "dev",
        "Secret",
        "keybroker-ledger-key",
        "data.key",
        base64.b64encode(base64.b64encode(bytes(range(32)))).decode(),
    ),
    ("production", "PersistentVolumeClaim", "keybroker-mark", "metadata.labels", {}),
    ("production", "PersistentVolumeClaim", "keybroker-mark", "spec.accessModes", ["ReadWriteMany"]),
    ("production", "PersistentVolumeClaim", "keybroker-state", "spec.accessModes", ["ReadWriteMany"]),
    (
        "production",
        "PersistentVolumeClaim",
        "keybroker-state",
        "metadata.labels",
        {"velero.io/exclude-from-backup": "true"},
    ),
]


@pytest.mark.parametrize(("overlay", "kind", "prefix", "path", "value"), NAMED_MUTATIONS)
def test_mutation_of_a_named_object_is_noticed(overlay: str, kind: str, prefix: str, path: str, value: Any) -> None:
    manifests = manifests_of(overlay)
    _set(_with_prefix(manifests, kind, prefix), path, value)
    assert problems(manifests)


LEDGER_MUTATIONS = [
    {"file": "/var/lib/keybroker/ledger.db", "key_file": "/etc/keybroker/ledger/key"},  # no mark
    {
        "file": "/var/lib/keybroker/ledger.db",
        "mark_file": "/var/lib/keybroker/mark",  # beside the ledger
        "key_file": "/etc/keybroker/ledger/key",
    },
    {"key_file": "/etc/keybroker/ledger/key"},  # in memory
    {
        "file": "/var/lib/keybroker/ledger.db",
        "mark_file": "/var/lib/keybroker-mark/mark",
        "key_file": "/etc/keybroker/ledger/key",
        "old_key_files": ["/etc/keybroker/ledger/old"],  # not in the Secret
    },
]


@pytest.mark.parametrize("ledger", LEDGER_MUTATIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ledger_that_would_be_lost_is_noticed(overlay: str, ledger: Tree) -> None:
    manifests = manifests_of(overlay)
    config = manifests.config_map("keybroker-config")
    config["keybroker.yaml"] = yaml.safe_dump(yaml.safe_load(config["keybroker.yaml"]) | {"ledger": ledger})
    assert problems(manifests)


AUDIT_MUTATIONS = [
    {},
    {"stdout": True},
    {"file": "/var/lib/keybroker-mark/audit.jsonl"},
    {"file": "/var/lib/keybroker/audit.jsonl", "stdout": True},  # beside the ledger
]


@pytest.mark.parametrize("audit", AUDIT_MUTATIONS)
def test_audit_log_that_could_be_lost_is_noticed(audit: Tree) -> None:
    manifests = manifests_of("production")
    config = manifests.config_map("keybroker-config")
    config["keybroker.yaml"] = yaml.safe_dump(yaml.safe_load(config["keybroker.yaml"]) | {"audit": audit})
    assert problems(manifests)


NETWORK_MUTATIONS: list[tuple[str, str, Any]] = [
    ("default-deny", "spec.policyTypes", ["Ingress"]),
    ("keybroker-callers", "spec.ingress.0.from", []),
    ("keybroker-callers", "spec.ingress.0.from.0", {"namespaceSelector": {}}),
    ("keybroker-callers", "spec.ingress.0.ports.0.port", 9464),
    # what kustomize's includeSelectors does to a peer
    ("keybroker-dns", "spec.egress.0.to.0.podSelector.matchLabels.app", "keybroker"),
    ("keybroker-kms", "spec.egress.0.to.0.ipBlock", {"cidr": "0.0.0.0/0"}),
    ("keybroker-kms", "spec.egress.0.to.0.ipBlock.except", []),
]


@pytest.mark.parametrize(("name", "path", "value"), NETWORK_MUTATIONS)
def test_network_mutation_is_noticed(name: str, path: str, value: Any) -> None:
    manifests = manifests_of("production")
    policy = manifests.named("NetworkPolicy", name)
    assert policy is not None
    _set(policy, path, value)
    assert problems(manifests)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_needed(overlay: str) -> None:
    objects = manifests_of(overlay).objects
    unneeded = [
        item["kind"]
        for number, item in enumerate(objects)
        if not problems(Manifests(overlay, objects[:number] + objects[number + 1 :]))
    ]
    assert unneeded == []


def test_unknown_setting_and_unknown_policy_key_are_noticed() -> None:
    for prefix, file, text in (
        ("keybroker-config", "keybroker.yaml", "server:\n  grpc_adress: x\n"),
        ("keybroker-policy", "policy.yaml", "rules: [{name: a, callers: ['x509:spiffe://x/y'], rpcs: '*', role: x}]\n"),
    ):
        manifests = manifests_of("production")
        manifests.config_map(prefix)[file] = text
        assert problems(manifests), file


def test_ports_and_paths_are_those_of_the_documentation() -> None:
    text = (ROOT / "docs/deployment.md").read_text()
    for word in ("50051", "9464", "/livez", "/readyz", "keybroker-access", "100.64.0.0/10", *map(str, (LEDGER, MARK))):
        assert word in text, word

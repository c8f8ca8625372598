"""NetworkPolicies: nothing by default, then exactly the flows that keybroker needs."""

import json
from collections.abc import Iterator

from keybroker.settings import EcsRamRoleCredentialSettings, split_address
from tests.deploy.manifests import Manifests, Tree

ACCESS = {"matchLabels": {"keybroker-access": "true"}}
CALLERS = {"namespaceSelector": ACCESS, "podSelector": ACCESS}
MONITORING = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
DNS = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
    "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
}
METADATA_SERVICE = EcsRamRoleCredentialSettings().metadata_endpoint.removeprefix("http://")
CLOUD = {"ipBlock": {"cidr": "100.64.0.0/10", "except": [f"{METADATA_SERVICE}/32"]}}
Flow = tuple[str, str, str, int]


def flows_are_the_needed_ones(manifests: Manifests) -> Iterator[str]:
    policies = [policy["spec"] for policy in manifests.all("NetworkPolicy")]
    deny = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    if policies.count(deny) != 1:
        yield "no default deny"
    selector = {"matchLabels": manifests.template["metadata"]["labels"]}
    allowed: set[Flow] = set()
    for policy in policies:
        if policy == deny:
            continue
        if policy["podSelector"] != selector:
            yield f"a policy for other pods: {policy['podSelector']}"
        if [kind.lower() for kind in policy["policyTypes"]] != list(policy.keys() & {"ingress", "egress"}):
            yield f"a policy whose types are not its rules': {policy['policyTypes']}"
        allowed |= set(_flows(policy))
    needed = set(_needed(manifests))
    for flow in allowed - needed:
        yield f"not needed: {flow}"
    for flow in needed - allowed:
        yield f"missing: {flow}"


def _flows(policy: Tree) -> Iterator[Flow]:
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for rule in policy.get(direction, []):
            for peer in rule[peers]:
                for port in rule["ports"]:
                    yield direction, _text(peer), port["protocol"], port["port"]


def _needed(manifests: Manifests) -> Iterator[Flow]:
    settings = manifests.settings()
    yield "ingress", _text(CALLERS), "TCP", split_address(settings.server.grpc_address)[1]
    yield "ingress", _text(MONITORING), "TCP", split_address(settings.server.http_address)[1]
    yield "egress", _text(DNS), "UDP", 53
    yield "egress", _text(DNS), "TCP", 53
    if any(instance.endpoint.startswith("https://") for instance in settings.kms.instances.values()):
        yield "egress", _text(CLOUD), "TCP", 443


def _text(peer: Tree) -> str:
    return json.dumps(peer, sort_keys=True)

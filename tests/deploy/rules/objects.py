"""The other objects, and those of cert-manager and the Prometheus operator, whose schemas are not at hand here."""

from collections.abc import Iterator

from tests.deploy.manifests import Manifests
from tests.deploy.rules.processes import answers

_CERTIFICATE_FIELDS = {
    "secretName",
    "issuerRef",
    "dnsNames",
    "usages",
    "privateKey",
    "duration",
    "renewBefore",
}


def one_broker_at_a_time(manifests: Manifests) -> Iterator[str]:
    spec = manifests.one("Deployment")["spec"]
    if spec["replicas"] != 1 or spec["strategy"] != {"type": "Recreate"}:
        yield "two brokers may run at a time"
    if spec["selector"] != {"matchLabels": manifests.template["metadata"]["labels"]}:
        yield "the deployment does not select its pods"
    if manifests.all("PodDisruptionBudget"):
        yield "a disruption budget for one replica stops every drain of a node, or does nothing"
    for claim in manifests.all("PersistentVolumeClaim"):
        if claim["spec"]["accessModes"] != ["ReadWriteOnce"]:
            yield f"{claim['metadata']['name']} can be mounted twice"
    namespace = manifests.one("Namespace")["metadata"]["name"]
    for item in manifests.objects:
        if item["kind"] != "Namespace" and item["metadata"].get("namespace") != namespace:
            yield f"{item['kind']} in another namespace"


def service_reaches_the_broker(manifests: Manifests) -> Iterator[str]:
    service = manifests.one("Service")["spec"]
    if service["type"] != "ClusterIP":
        yield "reachable from outside the cluster"
    if service["selector"] != manifests.template["metadata"]["labels"]:
        yield "the service selects other pods"
    ports = manifests.container_ports()
    if {port["name"]: (port["port"], port["targetPort"]) for port in service["ports"]} != {
        name: (number, name) for name, number in ports.items()
    }:
        yield "other ports than the container's"


def certificate_is_the_servers(manifests: Manifests) -> Iterator[str]:
    """cert-manager.io/v1: a server certificate for the Service's name, in the Secret that is mounted."""
    tls = manifests.settings().server.tls
    if (tls is not None) != (len(manifests.all("Certificate")) == 1):
        yield "TLS and the certificate come together"
    for certificate in manifests.all("Certificate"):
        spec = certificate["spec"]
        service = manifests.one("Service")["metadata"]
        name = f"{service['name']}.{service['namespace']}.svc"
        if certificate["apiVersion"] != "cert-manager.io/v1" or spec.keys() != _CERTIFICATE_FIELDS:
            yield f"of unknown effect: {sorted(spec)}"
        if spec["dnsNames"] != [name, f"{name}.cluster.local"]:
            yield f"for {spec['dnsNames']}"
        if spec["usages"] != ["server auth"]:
            yield f"to be used for {spec['usages']}"
        if spec["privateKey"] != {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"}:
            yield f"with {spec['privateKey']}"
        if spec["issuerRef"]["group"] != "cert-manager.io" or spec["issuerRef"]["kind"] not in {
            "Issuer",
            "ClusterIssuer",
        }:
            yield f"from {spec['issuerRef']}"
        if not 0 < _hours(spec["renewBefore"]) <= _hours(spec["duration"]) / 2:
            yield "renewed too late, or at once"
        mounted = [volume["secret"]["secretName"] for volume in manifests.pod["volumes"] if "secret" in volume]
        if spec["secretName"] not in mounted:
            yield f"not mounted: {spec['secretName']}"


def _hours(text: str) -> int:
    assert text.endswith("h"), text
    return int(text[:-1])


def service_monitor_finds_the_metrics(manifests: Manifests) -> Iterator[str]:
    for monitor in manifests.all("ServiceMonitor"):
        spec = monitor["spec"]
        service = manifests.one("Service")
        if monitor["apiVersion"] != "monitoring.coreos.com/v1" or spec.keys() != {"selector", "endpoints"}:
            yield f"of unknown effect: {sorted(spec)}"
        if spec["selector"]["matchLabels"] != service["metadata"]["labels"]:
            yield "the service has other labels"
        for endpoint in spec["endpoints"]:
            if endpoint["port"] != "http" or answers(endpoint["path"]) != (200, 200) or endpoint["path"] != "/metrics":
                yield f"no metrics at {endpoint}"

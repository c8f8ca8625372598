"""The RAM policies name what the KMS client calls, and nothing else."""

import json
import re
from typing import Any

import pytest

from tests.deploy.manifests import ROOT, Manifests, render

RAM = ROOT / "deploy/ram"
TAGS = "kms:TagResource"  # CreateKey carries tags


def statements(name: str) -> list[dict[str, Any]]:
    policy = json.loads((RAM / name).read_text())
    assert policy["Version"] == "1"
    return list(policy["Statement"])


def called_operations() -> set[str]:
    client = (ROOT / "service/keybroker/adapters/kms/client.py").read_text()
    return {f"kms:{operation}" for operation in re.findall(r'self\._call\(\s*"(\w+)"', client)}


def test_broker_may_do_what_its_client_calls_and_no_more() -> None:
    allowed = {action for statement in statements("broker-policy.json") for action in statement["Action"]}
    assert allowed == called_operations() | {TAGS}
    assert all(statement["Effect"] == "Allow" for statement in statements("broker-policy.json"))
    resources = [resource for statement in statements("broker-policy.json") for resource in statement["Resource"]]
    assert all(re.fullmatch(r"acs:kms:[a-z-]+:\d{16}:(key|key/\*|alias/\*)", resource) for resource in resources)


def test_readme_explains_every_action() -> None:
    text = (RAM / "README.md").read_text()
    for file in RAM.glob("*.json"):
        assert f"`{file.name}`" in text
        for statement in statements(file.name):
            actions = statement["Action"]
            for action in [actions] if isinstance(actions, str) else actions:
                assert action == "sts:AssumeRole" or f"`{action}`" in text


@pytest.mark.parametrize("name", ["deny-import-policy.json", "deny-other-importers-control-policy.json"])
def test_deny_takes_imports_from_everybody_else(name: str) -> None:
    (deny,) = statements(name)
    assert (deny["Effect"], deny["Resource"]) == ("Deny", "*")
    assert {"kms:GetParametersForImport", "kms:ImportKeyMaterial"} < set(deny["Action"])
    assert ("Condition" in deny) == ("control" in name)


def test_trust_is_for_the_service_account_of_the_overlay() -> None:
    account = Manifests("production", render("production")).one("ServiceAccount")
    (trust,) = statements("trust-policy.json")
    subject = f"system:serviceaccount:{account['metadata']['namespace']}:{account['metadata']['name']}"
    assert trust["Condition"]["StringEquals"]["oidc:sub"] == subject
    role = account["metadata"]["annotations"]["pod-identity.alibabacloud.com/role-name"]
    (deny,) = statements("deny-other-importers-control-policy.json")
    assert deny["Condition"]["StringNotLike"]["acs:PrincipalARN"].endswith(f":role/{role}")

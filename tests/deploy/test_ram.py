"""The RAM policies name what the KMS client calls, and nothing else."""

import json
import re
from typing import Any

import pytest

from tests.deploy.manifests import ROOT, Manifests, render

RAM = ROOT / "deploy/ram"
TAGS = "kms:TagResource"  # CreateKey carries tags
ENCRYPT = "kms:Encrypt"  # with imports.prove only
CONTAINER_ACTIONS = {"kms:CreateKey", "kms:ListKeys"}  # of no key: the KMS's table of RAM actions


def statements(name: str) -> list[dict[str, Any]]:
    policy = json.loads((RAM / name).read_text())
    assert policy["Version"] == "1"
    return list(policy["Statement"])


def called_operations() -> set[str]:
    client = (ROOT / "service/keybroker/adapters/kms/client.py").read_text()
    return {f"kms:{operation}" for operation in re.findall(r'self\._sender\.call\(\s*"(\w+)"', client)}


def test_broker_may_do_what_its_client_calls_and_no_more() -> None:
    allowed = {action for statement in statements("broker-policy.json") for action in statement["Action"]}
    assert allowed == called_operations() - {ENCRYPT} | {TAGS}
    (prove,) = statements("prove-policy.json")
    assert set(prove["Action"]) == called_operations() & {ENCRYPT}
    for statement in (*statements("broker-policy.json"), prove):
        assert statement["Effect"] == "Allow"
        kinds = {re.sub(r"^acs:kms:[a-z-]+:\d{16}:", "", resource) for resource in statement["Resource"]}
        assert kinds <= {"key", "key/*", "alias/*"}
        assert (kinds == {"key"}) == bool(CONTAINER_ACTIONS & set(statement["Action"]))


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

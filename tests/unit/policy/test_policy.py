"""The policy: default deny, one rule for all of a call, patterns, the file, the command that explains."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from keybroker.__main__ import main
from keybroker.domain.external_key import NewKey
from keybroker.domain.key_spec import AES_128, AES_256
from keybroker.domain.policy import Access, Pattern
from keybroker.domain.wrapping import RSAES_OAEP_SHA_256, RSAES_PKCS1_V1_5
from keybroker.policy_file import parse_policy
from keybroker.settings import ConfigurationError
from keymaterial.v1 import key_broker_service_pb2 as pb

CALLER = "x509:spiffe://example.org/ns/a/sa/b"
RPCS = [method.name for method in pb.DESCRIPTOR.services_by_name["KeyBrokerService"].methods]


def rule(**changes: Any) -> dict[str, Any]:
    return {"name": "r", "callers": [CALLER], "rpcs": "*", "keys": ["key-1"]} | changes


def decide(rules: list[dict[str, Any]], **access: Any) -> str | None:
    policy = parse_policy(yaml.safe_dump({"rules": rules}).encode())
    decision = policy.decide(Access(**({"caller": CALLER, "rpc": "DescribeKey"} | access)))
    return decision.rule.name if decision.rule else None


@pytest.mark.parametrize(
    ("pattern", "value", "fits"),
    [
        ("key-1", "key-1", True),
        ("key-1", "key-12", False),
        ("*", "key-1", True),
        ("*", "", True),
        ("*", "a/b", False),
        ("**", "a/b", True),
        ("a/*/c", "a/b/c", True),
        ("a/*/c", "a/b/x/c", False),
        ("a/**", "a/b/x/c", True),
        ("key-.", "key-1", False),
        ("key-[1]", "key-1", False),
        ("a*", "a\nb", True),
    ],
)
def test_pattern_fits_whole_values_within_a_segment(pattern: str, value: str, fits: bool) -> None:  # noqa: FBT001
    assert Pattern(pattern).matches(value) is fits


@given(st.text().filter(lambda text: "*" not in text), st.text())
def test_pattern_without_wildcard_fits_itself_only(text: str, other: str) -> None:
    assert Pattern(text).matches(text)
    assert Pattern(text).matches(other) == (text == other)


@pytest.mark.parametrize("rpc", [*RPCS, "Reflection", "Channelz", "/grpc.other/Method"])
def test_no_rules_deny_everything(rpc: str) -> None:
    assert decide([], rpc=rpc) is None
    assert not parse_policy(b"rules: []").names(CALLER, rpc)


@pytest.mark.parametrize("rpc", ["ListOrphanedKeys", "DeleteOrphanedKey", "Reflection", "Channelz"])
def test_what_is_for_operators_is_allowed_by_name(rpc: str) -> None:
    assert decide([rule(rpcs=[rpc], may_delete=True)], rpc=rpc) == "r"


def test_star_of_rpcs_is_the_service_and_not_what_is_for_operators() -> None:
    policy = parse_policy(yaml.safe_dump({"rules": [rule(may_delete=True)]}).encode())
    named = {rpc for rpc in [*RPCS, "Reflection", "Channelz"] if policy.names(CALLER, rpc)}
    assert named == set(RPCS) - {"ListOrphanedKeys", "DeleteOrphanedKey"}


@pytest.mark.parametrize("rpc", ["ScheduleKeyDeletion", "CancelKeyDeletion", "DeleteOrphanedKey"])
def test_deletion_needs_its_own_word(rpc: str) -> None:
    assert decide([rule(rpcs=[rpc])], rpc=rpc, key_id="key-1") is None
    assert decide([rule(rpcs=[rpc], may_delete=True)], rpc=rpc, key_id="key-1") == "r"


@pytest.mark.parametrize(
    ("changes", "access"),
    [
        ({"callers": ["x509:spiffe://example.org/ns/other/**"]}, {}),
        ({"rpcs": ["ImportExternalKey"]}, {}),
        ({"instances": ["other"]}, {"instance": "main"}),
        ({"keys": ["key-2"]}, {"key_id": "key-1"}),
        ({"keys": []}, {"key_id": "key-1"}),
        ({"wrapping_algorithms": ["RSAES_PKCS1_V1_5"]}, {"wrapping_algorithms": frozenset({RSAES_OAEP_SHA_256})}),
        ({}, {"wrapping_algorithms": frozenset({RSAES_OAEP_SHA_256, RSAES_PKCS1_V1_5})}),
        ({}, {"new_key": NewKey(AES_256)}),
        ({"may_create": True, "new_keys": {"specs": ["AES_256"]}}, {"new_key": NewKey(AES_128)}),
        ({"may_create": True}, {"new_key": NewKey(AES_256, alias="alias/a")}),
        ({"may_create": True}, {"new_key": NewKey(AES_256, tags={"team": "a"})}),
        ({"keys": ["key-*"]}, {"key_id": "alias/key-1"}),
        ({"keys": ["alias/*"]}, {"key_id": "alias/key-1"}),
    ],
)
def test_rule_that_lacks_one_thing_does_not_allow_the_call(changes: dict[str, Any], access: dict[str, Any]) -> None:
    assert decide([rule(**changes)], **access) is None


def test_rules_are_not_combined() -> None:
    rules = [
        rule(name="keys", rpcs=["DescribeKey"], keys=["key-1"], instances=["one"]),
        rule(name="instances", rpcs=["DescribeKey"], keys=["key-2"], instances=["two"]),
    ]
    assert decide(rules, key_id="key-1", instance="two") is None
    assert decide(rules, key_id="key-2", instance="two") == "instances"


def test_first_rule_that_allows_decides() -> None:
    rules = [rule(name="narrow", keys=["key-2"]), rule(name="wide", keys=["*"]), rule(name="last", keys=["*"])]
    assert decide(rules, key_id="key-1") == "wide"


def test_why_names_each_rule_and_what_it_lacks() -> None:
    policy = parse_policy(yaml.safe_dump({"rules": [rule(keys=["key-2"])]}).encode())
    assert "rule r does not allow the key" in policy.decide(Access(caller=CALLER, rpc="DescribeKey", key_id="k")).why
    assert "no rule" in policy.decide(Access(caller="x509:dns:a", rpc="DescribeKey")).why


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "^policy: must be a mapping$"),
        (b"rules: [1]", r"^policy\.rules\.0: must be a mapping$"),
        (b"rules: [", "YAML"),
        (b"\xff", "YAML"),
        (b"rules: []\nrules: []", "has a key twice in line 2"),
        (b"rule: []", "policy.rules"),
        (yaml.safe_dump({"rules": [rule(key=["x"])]}).encode(), "policy.rules.0.key: unknown key"),
        (yaml.safe_dump({"rules": [rule(rpcs=["DeleteKeyMaterial"])]}).encode(), "policy.rules.0.rpcs"),
        (yaml.safe_dump({"rules": [rule(callers=["spiffe://a/b"])]}).encode(), "must start with x509:spiffe://"),
        (yaml.safe_dump({"rules": [rule(callers=[])]}).encode(), "policy.rules.0.callers"),
        (yaml.safe_dump({"rules": [rule(), rule()]}).encode(), "different names: r"),
        (yaml.safe_dump({"rules": [rule(requests_per_minute=0)]}).encode(), "requests_per_minute"),
        (yaml.safe_dump({"rules": [rule(new_keys={"specs": ["AES_512"]})]}).encode(), "new_keys.specs"),
    ],
)
def test_file_that_is_wrong_is_refused_with_the_place(content: bytes, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        parse_policy(content)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--rpc", "DescribeKey", "--key", "key-1"], 0, "allowed by rule r"),
        (["--rpc", "DescribeKey", "--key", "key-2"], 1, "rule r does not allow the key"),
        (["--rpc", "ImportExternalKey", "--spec", "AES_256"], 1, "creating a CMK"),
        (["--rpc", "Reflection"], 1, "no rule lets this caller call Reflection"),
        (["--rpc", "DescribeKey", "--alias", "alias/a"], 2, "--spec"),
    ],
)
def test_explain_says_which_rule_decides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump({"rules": [rule()]}))
    assert main(["policy", "explain", "--policy", str(path), "--caller", CALLER, *arguments]) == code
    out, err = capsys.readouterr()
    assert words in out + err

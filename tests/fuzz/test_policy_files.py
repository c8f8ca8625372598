"""Any policy file: a policy that allows no more than its text, or a ConfigurationError that names a key."""

import re
import time
import traceback
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from keybroker.domain.policy import Access, Policy
from keybroker.policy_file import parse_policy
from keybroker.settings import ConfigurationError
from keymaterial.v1 import key_broker_service_pb2 as pb
from tests.fuzz.examples import fuzzed
from tests.fuzz.files import ODD_VALUES, ODD_YAML, bombs, mutations, places, put, written

RPCS = [method.name for method in pb.DESCRIPTOR.services_by_name["KeyBrokerService"].methods]
STRANGER = "x509:dns:stranger.example"
GOOD: dict[str, Any] = {
    "rules": [
        {
            "name": "payments",
            "callers": ["x509:spiffe://example.org/ns/payments/sa/*"],
            "rpcs": ["ImportExternalKey", "DescribeKey"],
            "instances": ["main"],
            "keys": ["key-*"],
            "may_create": True,
            "may_delete": False,
            "new_keys": {"specs": ["AES_256"], "aliases": ["alias/payments/*"], "tags": {"team": ["payments"]}},
            "wrapping_algorithms": ["RSAES_OAEP_SHA_256"],
            "requests_per_minute": 60,
        },
        {"name": "operators", "callers": ["jwt:https://issuer.example#ops"], "rpcs": "*"},
    ]
}


def read_or_refused(content: bytes) -> Policy | None:
    """None for a refusal, which names a key of the policy."""
    started = time.process_time()
    try:
        return parse_policy(content)
    except ConfigurationError as error:
        refusal = error
    assert time.process_time() - started < 5
    assert re.match(r"policy(\..*)?: .", str(refusal), re.DOTALL), refusal
    told = "".join(traceback.format_exception(refusal))
    assert told.count("Traceback") == 1, "the refusal brings a foreign exception along"
    return None


def test_good_file_is_a_policy_that_names_no_stranger() -> None:
    policy = parse_policy(written(GOOD))
    assert policy.decide(Access(caller="jwt:https://issuer.example#ops", rpc="GetImport")).rule
    assert not any(policy.names(STRANGER, rpc) for rpc in RPCS)


def test_odd_value_anywhere_is_refused_or_allows_no_stranger() -> None:
    for place in filter(None, places(GOOD)):
        for value in (value for value in ODD_VALUES if value != "\ud800"):  # which UTF-8 has not; ODD_YAML escapes it
            tree = put(GOOD, place, value)
            policy = read_or_refused(written(tree))
            assert policy is None or not any(policy.names(STRANGER, rpc) for rpc in RPCS), (place, value)


@fuzzed(3.0)
@given(tree=mutations(GOOD))
def test_changed_policy_is_refused_or_allows_no_stranger(tree: Any) -> None:
    content = written(tree)
    policy = read_or_refused(content)
    if policy is not None:
        assert not any(policy.names(STRANGER, rpc) for rpc in RPCS)
        assert not any(policy.decide(Access(caller="", rpc=rpc)).rule for rpc in RPCS)


@fuzzed(3.0)
@given(
    content=st.one_of(st.binary(max_size=60), st.text("abk:[]{}&*!?|>'\"%@`#-, \n\t01<~", max_size=60).map(str.encode))
)
def test_any_bytes_are_refused(content: bytes) -> None:
    assert read_or_refused(content) is None


@pytest.mark.parametrize("content", [*ODD_YAML, *bombs("rules")], ids=range(len(ODD_YAML) + 3))
def test_odd_yaml_is_refused(content: bytes) -> None:
    assert read_or_refused(content) is None


@fuzzed(3.0)
@given(place=st.integers(0, len(written(GOOD))), cut=st.integers(0, 20), put=st.binary(max_size=4))
@example(place=0, cut=0, put=b"")
def test_changed_text_is_refused_or_allows_no_stranger(place: int, cut: int, put: bytes) -> None:
    content = written(GOOD)
    policy = read_or_refused(content[:place] + put + content[place + cut :])
    if policy is not None:
        assert not any(policy.names(STRANGER, rpc) for rpc in RPCS)

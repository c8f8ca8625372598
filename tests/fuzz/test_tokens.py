"""Any bearer token and any key set: a principal that the issuer signed, or CALLER_UNAUTHENTICATED, and nothing else.

Source: RFC 7515 (JWS), RFC 7519 (JWT), RFC 8725 §2 (what attackers try).
"""

import json
from collections.abc import Mapping
from typing import Any

import jwt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from keybroker.adapters.identity.jwks import FileKeys, parse_jwks
from keybroker.adapters.identity.tokens import TokenAuthenticator
from keybroker.domain.errors import BrokerError, Reason
from keybroker.ports import CallerCredentials
from tests.fuzz.examples import MARK, fuzzed
from tests.fuzz.judging import judge_text
from tests.fuzz.tokens import (
    AUDIENCE,
    CLAIMS,
    ENTRIES,
    FORGED_HEADERS,
    GOOD_ENTRIES,
    GOOD_PRINCIPAL,
    GOOD_TOKENS,
    ISSUER,
    JSON,
    KEYS,
    PUBLISHED,
    SUBJECTS,
    encoded,
    forged,
    good_claims,
    mutations,
    signed_raw,
)

PARSED = parse_jwks(PUBLISHED)
AUTHENTICATOR = TokenAuthenticator(
    keys=FileKeys(lambda: PARSED),
    issuer=ISSUER,
    audience=AUDIENCE,
    algorithms=list(KEYS),
    leeway_seconds=0,
)


def principal_of(token: str) -> str | None:
    """None for a refusal, which is one of ours and in our words."""
    try:
        return AUTHENTICATOR.authenticate(CallerCredentials(b"", token))
    except BrokerError as error:
        refusal = error
    assert refusal.reason is Reason.CALLER_UNAUTHENTICATED
    assert refusal.metadata == {}
    judge_text(refusal.message)
    assert refusal.message.startswith(("The bearer token", "The call ")), "not in our words"
    return None


@pytest.mark.parametrize("name", KEYS)
def test_good_token_is_the_principal(name: str) -> None:
    assert principal_of(GOOD_TOKENS[name]) == GOOD_PRINCIPAL


# Texts

_DEPTH = 8000  # deeper than JSON is read; a token of this size is not too long


@fuzzed(5.0)
@given(
    text=st.one_of(
        st.text(max_size=60), st.from_regex(r"[A-Za-z0-9_-]{0,40}(\.[A-Za-z0-9_-]{0,40}){1,4}", fullmatch=True)
    )
)
@example(text="." * 16_000)
@example(text=f"{encoded(b'[' * 10_000)}.e30.e30")
@example(text=encoded(b'{"a":' * 2000) + ".e30.e30")
@example(text=encoded(json.dumps({"alg": "RS256", "kid": "RS256", "crit": ["b64"], "b64": False}).encode()) + "..AAAA")
def test_any_text_is_no_token(text: str) -> None:
    assert principal_of(text) is None


@fuzzed(10.0)
@given(token=mutations())
def test_changed_token_is_never_another_principal(token: str) -> None:
    assert principal_of(token) in {None, GOOD_PRINCIPAL}


@fuzzed(5.0)
@given(
    parts=st.tuples(
        *[st.sampled_from([token.split(".")[place] for token in GOOD_TOKENS.values()]) for place in range(3)]
    )
)
def test_parts_of_good_tokens_are_no_other_principal(parts: tuple[str, ...]) -> None:
    token = ".".join(parts)
    assert (principal_of(token) is not None) == (token in GOOD_TOKENS.values())


# Headers and claims


@fuzzed(2.0)
@given(header=FORGED_HEADERS, how=st.sampled_from(["nobody", "a stranger", "the key set", "another token"]))
@example(header={"alg": "none"}, how="nobody")
@example(header={"alg": "HS256", "kid": "RS256"}, how="the key set")
@example(header={"alg": "RS256", "kid": "RS256"}, how="a stranger")
def test_token_that_the_issuer_did_not_sign_is_refused(header: Mapping[str, Any], how: str) -> None:
    assert principal_of(forged(header, how)) is None


@fuzzed(5.0)
@given(
    name=st.sampled_from([name for name in KEYS if name != "RS256"]),
    changes=st.builds(
        lambda changes, subject: changes | {"sub": subject}, st.dictionaries(CLAIMS, JSON, max_size=2), SUBJECTS
    ),
    missing=st.sets(st.sampled_from(["iss", "aud", "sub", "exp"]), max_size=1),
)
def test_claims_of_any_kind_are_the_subject_or_refused(name: str, changes: dict[str, Any], missing: set[str]) -> None:
    claims = {key: value for key, value in (good_claims() | changes).items() if key not in missing}
    payload = json.dumps(claims, default=lambda at: int(at.timestamp())).encode()
    principal = principal_of(signed_raw(name, json.dumps({"alg": name, "kid": name}).encode(), payload))
    if principal is not None:
        assert not missing
        assert principal == f"jwt:{ISSUER}#{claims['sub']}"
        assert principal.isprintable()
        assert 1 <= len(claims["sub"]) <= 512
        assert claims["iss"] == ISSUER
        assert AUDIENCE in claims["aud"]


@fuzzed(2.0)
@given(payload=st.one_of(st.binary(max_size=40), JSON.map(lambda value: json.dumps(value).encode())))
@example(payload=b"[" * _DEPTH)
@example(payload=b'{"sub": NaN, "exp": Infinity}')
@example(payload=b'{"exp": ' + b"9" * 5000 + b"}")
def test_payload_that_holds_no_claims_is_refused(payload: bytes) -> None:
    assert principal_of(signed_raw("EdDSA", b'{"alg": "EdDSA", "kid": "EdDSA"}', payload)) is None


@fuzzed(2.0)
@given(header=st.one_of(st.binary(max_size=40), JSON.map(lambda value: json.dumps(value).encode())))
@example(header=b'{"alg": "EdDSA", "kid": ' + b"[" * 5000)
@example(header=b'{"alg": ["EdDSA"], "kid": {}}')
def test_header_of_any_kind_is_refused(header: bytes) -> None:
    payload = json.dumps(good_claims(), default=lambda at: int(at.timestamp())).encode()
    assert principal_of(signed_raw("EdDSA", header, payload)) is None


# Key sets


@fuzzed(5.0)
@given(
    entries=st.lists(
        st.one_of(ENTRIES, st.builds(lambda good, odd: good | odd, st.sampled_from(GOOD_ENTRIES), ENTRIES), JSON),
        max_size=3,
    )
)
def test_key_set_of_any_entries_is_read_or_a_value_error(entries: list[Any]) -> None:
    read_or_refused(json.dumps({"keys": entries}).encode())


@fuzzed(2.0)
@given(content=st.one_of(st.binary(max_size=60), JSON.map(lambda value: json.dumps({"keys": value}).encode())))
@example(content=b"[" * _DEPTH)
@example(content=b'{"keys": ' + b"[" * _DEPTH)
def test_any_bytes_are_read_as_a_key_set_or_a_value_error(content: bytes) -> None:
    read_or_refused(content)


def read_or_refused(content: bytes) -> None:
    try:
        keys = parse_jwks(content)
    except ValueError as error:
        refusal = str(error)
    else:
        assert keys
        assert all(isinstance(key, jwt.PyJWK) for key in keys.values())
        return
    assert refusal.startswith(("not a JSON Web Key Set", "no public signing key"))
    assert MARK not in refusal

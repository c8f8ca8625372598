"""Any bearer token and any key set: a principal that the issuer signed, or CALLER_UNAUTHENTICATED, and nothing else.

Source: RFC 7515 (JWS), RFC 7519 (JWT), RFC 8725 §2 (what attackers try).
"""

import base64
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import example, given
from hypothesis import strategies as st

from keybroker.adapters.identity.jwks import FileKeys, parse_jwks
from keybroker.adapters.identity.tokens import TokenAuthenticator
from keybroker.domain.errors import BrokerError, Reason
from keybroker.ports import CallerCredentials
from tests.certificates import Issuer
from tests.fuzz.examples import MARK, fuzzed
from tests.fuzz.judging import judge_text

ISSUER, AUDIENCE = "https://issuer.example", "keybroker"
GOOD_SUBJECT = "importer"
KEYS: Mapping[str, Any] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "PS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
STRANGER = Issuer(key_id="RS256")


def _published() -> bytes:
    entries = [
        json.loads(jwt.get_algorithm_by_name(name).to_jwk(key.public_key())) | {"kid": name, "alg": name, "use": "sig"}
        for name, key in KEYS.items()
    ]
    return json.dumps({"keys": entries}).encode()


PUBLISHED = _published()
PARSED = parse_jwks(PUBLISHED)
AUTHENTICATOR = TokenAuthenticator(
    keys=FileKeys(lambda: PARSED),
    issuer=ISSUER,
    audience=AUDIENCE,
    algorithms=list(KEYS),
    leeway_seconds=0,
)

JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=8).map(lambda text: MARK + text),
        st.sampled_from([1e308, 2**64, 10**400, "", [], {}]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=6,
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
    return None


def good_claims() -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "iss": ISSUER,
        "aud": [AUDIENCE],
        "sub": GOOD_SUBJECT,
        "iat": now,
        "nbf": now - timedelta(hours=1),
        "exp": now + timedelta(hours=1),
    }


def signed(name: str, claims: Mapping[str, Any], **headers: Any) -> str:
    return jwt.encode(dict(claims), KEYS[name], algorithm=name, headers={"kid": name} | headers)


def encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def signed_raw(name: str, header: bytes, payload: bytes) -> str:
    """Signed by the issuer, whatever header and payload hold."""
    algorithm: Any = jwt.get_algorithm_by_name(name)
    signing_input = f"{encoded(header)}.{encoded(payload)}"
    return f"{signing_input}.{encoded(algorithm.sign(signing_input.encode(), KEYS[name]))}"


GOOD_TOKENS = {name: signed(name, good_claims()) for name in KEYS}
GOOD_PRINCIPAL = f"jwt:{ISSUER}#{GOOD_SUBJECT}"


@pytest.mark.parametrize("name", KEYS)
def test_good_token_is_the_principal(name: str) -> None:
    assert principal_of(GOOD_TOKENS[name]) == GOOD_PRINCIPAL


# Texts

ALPHABET = st.characters(max_codepoint=0x7F)
_DEPTH = 100_000  # deeper than any JSON reader goes


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


@st.composite
def mutations(draw: Callable[[Any], Any]) -> str:
    """A good token with some of its characters changed, taken out, put in, moved or repeated."""
    token = list(draw(st.sampled_from(list(GOOD_TOKENS.values()))))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(token) - 1))
        match draw(st.sampled_from(["change", "insert", "delete", "repeat", "cut"])):
            case "change":
                token[place] = draw(ALPHABET)
            case "insert":
                token.insert(place, draw(ALPHABET))
            case "delete" if len(token) > 1:
                del token[place]
            case "repeat":
                token[place:place] = token[max(0, place - draw(st.integers(1, 400))) : place]
            case "cut":
                token = token[: place + 1]
    return "".join(token)


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

FORGED_HEADERS = st.fixed_dictionaries(
    {"alg": st.one_of(st.sampled_from([*KEYS, "none", "None", "HS256", "RS512", "ES384"]), JSON)},
    optional={
        "kid": st.one_of(st.sampled_from([*KEYS, "", "../RS256"]), JSON),
        "typ": JSON,
        "crit": JSON,
        "b64": JSON,
        "jwk": st.just(json.loads(STRANGER.jwks())["keys"][0]),
        "jku": st.just("http://127.0.0.1:9/keys"),
        "x5c": JSON,
        "zip": JSON,
    },
)


def forged(header: Mapping[str, Any], how: str) -> str:
    """Not signed by the issuer: by nobody, by a stranger, or with what the issuer publishes as a secret."""
    claims = good_claims() | {"sub": "admin"}
    payload = json.dumps(claims, default=lambda at: at.timestamp()).encode()
    signing_input = f"{encoded(json.dumps(header).encode())}.{encoded(payload)}"
    hmac: Any = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    rs256: Any = jwt.get_algorithm_by_name("RS256")
    signatures = {
        "nobody": b"",
        "a stranger": rs256.sign(signing_input.encode(), STRANGER.key),
        "the key set": hmac.sign(signing_input.encode(), PUBLISHED),
        "another token": base64.urlsafe_b64decode(GOOD_TOKENS["RS256"].split(".")[2] + "=="),
    }
    return f"{signing_input}.{encoded(signatures[how])}"


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
    changes=st.dictionaries(st.sampled_from(["iss", "aud", "sub", "iat", "nbf", "exp", "jti", MARK]), JSON, max_size=3),
    missing=st.sets(st.sampled_from(["iss", "aud", "sub", "exp"]), max_size=1),
)
def test_claims_of_any_kind_are_the_subject_or_refused(name: str, changes: dict[str, Any], missing: set[str]) -> None:
    claims = {key: value for key, value in (good_claims() | changes).items() if key not in missing}
    payload = json.dumps(claims, default=lambda at: int(at.timestamp())).encode()
    principal = principal_of(signed_raw(name, json.dumps({"alg": name, "kid": name}).encode(), payload))
    if principal is not None:
        assert not missing
        assert principal == f"jwt:{ISSUER}#{claims['sub']}"
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

ENTRIES = st.dictionaries(
    st.sampled_from(["kty", "kid", "use", "alg", "n", "e", "crv", "x", "y", "d", "k", "key_ops"]),
    st.one_of(JSON, st.sampled_from(["RSA", "EC", "OKP", "oct", "sig", "RS256", "P-256", "Ed25519", "AQAB", "AA"])),
)
GOOD_ENTRIES: list[dict[str, Any]] = json.loads(PUBLISHED)["keys"]


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

"""Made-up bearer tokens and key sets: the issuer's own, changed ones, forged ones. Source: RFC 7515, 7517, 7519."""

import base64
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import strategies as st

from tests.certificates import Issuer
from tests.fuzz.examples import MARK

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


ALPHABET = st.characters(max_codepoint=0x7F)


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


SUBJECTS = st.one_of(
    JSON, st.text(max_size=4), st.sampled_from(["a\nb", "a\x00", "\u202ea", "x" * 512, "x" * 513, " ", GOOD_SUBJECT])
)
CLAIMS = st.sampled_from(["iss", "aud", "iat", "nbf", "exp", "jti", MARK])
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


ENTRIES = st.dictionaries(
    st.sampled_from(["kty", "kid", "use", "alg", "n", "e", "crv", "x", "y", "d", "k", "key_ops"]),
    st.one_of(JSON, st.sampled_from(["RSA", "EC", "OKP", "oct", "sig", "RS256", "P-256", "Ed25519", "AQAB", "AA"])),
)
GOOD_ENTRIES: list[dict[str, Any]] = json.loads(PUBLISHED)["keys"]

"""Receipts as others see them: RFC vectors, another JOSE implementation, the RFC's steps by hand."""

import base64
import json
import warnings
from datetime import timedelta

import jwt
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from joserfc import jws
from joserfc.errors import BadSignatureError, JoseError
from joserfc.jwk import OKPKey

from keybroker.adapters.identity.tokens import TokenAuthenticator
from keybroker.adapters.receipts import Receipts
from keybroker.domain.errors import BrokerError, Reason
from keybroker.ports import CallerCredentials
from tests.builders import FakeClock
from tests.unit.domain.test_receipt import FULL, ROW
from tests.unit.receipts.support import key, receipt


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def test_jwk_and_kid_are_those_of_rfc_8037() -> None:
    """Appendix A.2 and A.3."""
    assert key().jwk == {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
        "alg": "EdDSA",
        "use": "sig",
    }


def test_header_names_the_algorithm_the_key_and_the_type_and_nothing_else() -> None:
    header = json.loads(decoded(receipt().split(".")[0]))
    assert header == {"alg": "EdDSA", "kid": key().kid, "typ": "keybroker-receipt+jwt"}


def test_receipts_are_signed_with_their_time_and_version() -> None:
    clock = FakeClock()
    clock.advance(timedelta(days=1).total_seconds())
    made = Receipts(key=key(), clock=clock, version="1.2.3")(ROW)
    told = json.loads(decoded(made.split(".")[1]))
    assert told == FULL | {"iat": int(clock.now().timestamp())}


def by_joserfc(compact: str, jwk: dict[str, str]) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # RFC 9864 would have EdDSA called Ed25519
        return jws.deserialize_compact(compact, OKPKey.import_key(jwk), algorithms=["EdDSA"]).payload


def test_another_implementation_verifies_it() -> None:
    assert json.loads(by_joserfc(receipt(), key().jwk)) == FULL


def test_another_implementation_refuses_another_key_and_a_change() -> None:
    with pytest.raises(BadSignatureError):
        by_joserfc(receipt(), key(bytes(32)).jwk)
    header, payload, signature = receipt().split(".")
    changed = base64.urlsafe_b64encode(decoded(payload).replace(b"4bfc29", b"4bfc28")).rstrip(b"=").decode()
    with pytest.raises(BadSignatureError):
        by_joserfc(f"{header}.{changed}.{signature}", key().jwk)


def test_another_implementation_refuses_every_changed_byte() -> None:
    good = bytearray(receipt().encode())
    passed = []
    for place in range(len(good)):
        for bit in range(8) if place >= good.rindex(b".") else (0,):  # the end has bits that stand for nothing
            good[place] ^= 1 << bit
            try:
                by_joserfc(good.decode("latin-1"), key().jwk)
            except (JoseError, ValueError):
                pass
            else:
                passed.append((place, bit))
            good[place] ^= 1 << bit
    assert passed == []
    assert by_joserfc(good.decode(), key().jwk)


def test_it_verifies_by_the_steps_of_rfc_7515() -> None:
    """§5.2: the signature is over the ASCII bytes before the second dot."""
    signed, _, signature = receipt().rpartition(".")
    public_key = Ed25519PublicKey.from_public_bytes(decoded(key().jwk["x"]))
    public_key.verify(decoded(signature), signed.encode("ascii"))
    with pytest.raises(InvalidSignature):
        public_key.verify(decoded(signature), signed.encode("ascii") + b"A")


def test_receipt_is_no_bearer_token_even_of_an_issuer_with_the_same_key() -> None:
    class Keys:
        def find(self, key_id: str | None) -> jwt.PyJWK | None:
            assert key_id == key().kid
            return jwt.PyJWK(key().jwk)

    tokens = TokenAuthenticator(
        keys=Keys(), issuer="keybroker", audience="keybroker", algorithms=["EdDSA"], leeway_seconds=10
    )
    with pytest.raises(BrokerError, match="lacks a claim that it must have") as caught:
        tokens.authenticate(CallerCredentials(bearer_token=receipt()))
    assert caught.value.reason is Reason.CALLER_UNAUTHENTICATED


def test_key_shows_no_secret() -> None:
    assert repr(key()) == "<ReceiptKey kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k>"
    assert "d" not in key().jwk

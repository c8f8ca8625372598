"""kbctl receipt verify: what verifies, and everything that must not. And --receipt, which saves one."""

from __future__ import annotations

import base64
import hmac
import json
import re
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kbctl import jws
from kbctl.__main__ import main
from tests.clients.fake_broker import KEY_ID, FakeBroker, default_answers
from tests.unit.domain.test_receipt import ACCEPTED, BY_CALLER, FULL, ROW, WITHOUT_AN_ANSWER
from tests.unit.receipts.support import ISSUED, key, receipt

if TYPE_CHECKING:
    from pathlib import Path

GOOD = receipt()
HEADER, PAYLOAD, SIGNATURE = GOOD.split(".")
JWKS = json.dumps({"keys": [key(bytes(32)).jwk, key().jwk]}).encode()
SECRET = Ed25519PrivateKey.from_private_bytes(
    bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
)
REQUEST_ID = "6f1c9c1e-3c1b-4f65-9c53-3a8f1c1d2e3f"


def part(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def signed(header: bytes, payload: bytes = b"{}") -> str:
    """A good signature over any header and any payload."""
    content = f"{part(header)}.{part(payload)}"
    return f"{content}.{part(SECRET.sign(content.encode()))}"


def headed(**changes: object) -> bytes:
    members = {"alg": "EdDSA", "kid": key().kid, "typ": "keybroker-receipt+jwt"} | changes
    return json.dumps({name: value for name, value in members.items() if value is not None}).encode()


def verified(compact: str | bytes, jwks: bytes = JWKS) -> jws.Receipt:
    return jws.verified(compact if isinstance(compact, bytes) else compact.encode(), jwks)


def refused(compact: str | bytes, jwks: bytes = JWKS) -> str:
    with pytest.raises(jws.BadReceiptError) as caught:
        verified(compact, jwks)
    return str(caught.value)


def test_good_receipt_verifies_with_the_key_that_it_names() -> None:
    assert verified(GOOD) == jws.Receipt(key().kid, FULL)
    assert verified(signed(headed())).claims == {}


def test_every_flipped_bit_of_it_is_refused() -> None:
    good = bytearray(GOOD.encode())
    passed = []
    for place in range(len(good)):
        for bit in range(8):
            good[place] ^= 1 << bit
            try:
                jws.verified(bytes(good), JWKS)
            except jws.BadReceiptError:
                pass
            else:
                passed.append((place, bit))
            good[place] ^= 1 << bit
    assert passed == []
    assert verified(bytes(good))


def test_every_other_byte_at_every_place_of_its_ends_is_refused() -> None:
    """The last characters of each part carry bits that stand for nothing: those too."""
    ends = [place for place, char in enumerate(GOOD + ".") if char == "."]
    for place in (end - back for end in ends for back in (0, 1, 2) if end - back < len(GOOD)):
        for byte in set(range(256)) - {ord(GOOD[place])}:
            refused(GOOD[:place].encode() + bytes([byte]) + GOOD[place + 1 :].encode())


def test_every_cut_and_every_added_character_is_refused() -> None:
    for length in range(len(GOOD)):
        refused(GOOD[:length])
    for place in range(len(GOOD) + 1):
        for added in "A=. \n":
            refused(GOOD[:place] + added + GOOD[place:])


def test_signature_in_its_other_form_is_refused() -> None:
    """RFC 8032 §5.1.7: S plus the order of the group would verify where S is not compared with it."""
    raw = jws._decoded(SIGNATURE.encode())
    order = 2**252 + 27742317777372353535851937790883648493
    other = raw[:32] + (int.from_bytes(raw[32:], "little") + order).to_bytes(32, "little")
    assert "signature is not good" in refused(f"{HEADER}.{PAYLOAD}.{part(other)}")


def test_receipt_of_another_key_is_refused_whatever_it_names() -> None:
    theirs = receipt(key(b"a" * 32))
    assert "the JWKS does not have the key that it names" in refused(theirs)
    renamed = json.dumps({"keys": [key(b"a" * 32).jwk | {"kid": key().kid}]}).encode()
    assert "signature is not good" in refused(GOOD, renamed)
    swapped = [key(b"a" * 32).jwk | {"kid": key().kid}, key().jwk | {"kid": "another"}]
    assert "signature is not good" in refused(GOOD, json.dumps({"keys": swapped}).encode())


@pytest.mark.parametrize(
    "part", [b"", b"AB", b"AAB", b"AA==", b"AA=", b"A", b"A+AA", b"A/AA", b"AA AA", b"AAAA\n", b"\xff\xff"]
)
def test_base64url_that_could_be_written_otherwise_is_refused_here_and_not_left_to_a_library(part: bytes) -> None:
    assert jws._decoded(b"AA") == b"\0"
    assert jws._decoded(b"-_8") == b"\xfb\xff"
    with pytest.raises(jws.BadReceiptError):
        jws._decoded(part)


HEADERS: dict[str, bytes] = {
    "no algorithm": headed(alg="none"),
    "an HMAC": headed(alg="HS256"),
    "the newer name": headed(alg="Ed25519"),
    "no name of one": headed(alg=None),
    "a list of them": headed(alg=["EdDSA"]),
    "no type": headed(typ=None),
    "an access token's type": headed(typ="at+jwt"),
    "JWT": headed(typ="JWT"),
    "a type in capitals": headed(typ="Keybroker-Receipt+JWT"),
    "no kid": headed(kid=None),
    "a kid that is none": headed(kid=7),
    "a kid that is long": headed(kid="k" * 129),
    "a kid that is not there": headed(kid="another"),
    "a key of its own": headed(jwk=key().jwk),
    "a place to get one": headed(jku="https://example.test/jwks"),
    "what must be understood": headed(crit=["exp"], exp=1),
    "a payload that is not encoded": headed(b64=False, crit=["b64"]),
    "a member twice": headed().replace(b"{", b'{"alg":"none",', 1),
    "no object": b"[]",
    "no JSON": b"EdDSA",
    "no UTF-8": b'{"alg":"\xff"}',
    "depth": b"[" * 4000,
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_header_of_another_kind_is_refused_although_the_signature_is_good(header: bytes) -> None:
    refused(signed(header))


def test_public_key_as_the_secret_of_an_hmac_is_refused() -> None:
    """The classic confusion of algorithms: what everybody has would sign."""
    public = SECRET.public_key()
    for secret in (
        public.public_bytes(Encoding.Raw, PublicFormat.Raw),
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        JWKS,
    ):
        content = f"{part(headed(alg='HS256'))}.{PAYLOAD}"
        assert "only the algorithm EdDSA" in refused(
            f"{content}.{part(hmac.digest(secret, content.encode(), 'sha256'))}"
        )


@pytest.mark.parametrize("alg", ["none", "None", "EdDSA"])
def test_receipt_without_a_signature_is_refused(alg: str) -> None:
    refused(f"{part(headed(alg=alg))}.{PAYLOAD}.")
    refused(f"{part(headed(alg=alg))}.{PAYLOAD}.{part(b'x')}")


@pytest.mark.parametrize(
    "payload", [b"", b"[]", b'"text"', b"{", b'{"a":1,"a":2}', b'{"a":{"b":1,"b":1}}', b'{"a":NaN}', b'{"a":1e999}']
)
def test_claims_that_are_not_one_object_are_refused(payload: bytes) -> None:
    refused(signed(headed(), payload))


def test_receipt_that_is_too_long_is_refused_before_it_is_read() -> None:
    long = signed(headed(), json.dumps({"a": "b" * 7000}).encode())
    assert len(long) > 8192
    assert "at most 8192 bytes" in refused(long)
    assert verified(signed(headed(), json.dumps({"a": "b" * 5900}).encode()))


def keys(*entries: object) -> bytes:
    return json.dumps({"keys": entries}).encode()


BAD_KEYS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not one JSON object"),
    "no JSON": (b"keys", "not one JSON object"),
    "a member twice": (b'{"keys":[],"keys":[]}', "not one JSON object"),
    "no keys": (b"{}", "no list of keys"),
    "one key alone": (json.dumps(key().jwk).encode(), "no list of keys"),
    "texts": (keys("key"), "no list of keys"),
    "none of Ed25519": (keys({"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": key().kid}), "no Ed25519 key"),
    "one without a kid": (keys({"kty": "OKP", "crv": "Ed25519", "x": key().jwk["x"]}), "has no kid"),
    "one that is short": (keys(key().jwk | {"x": "AAAA"}), "not 32 bytes"),
    "one that is no text of UTF-8": (keys(key().jwk | {"x": "\ud800" * 43}), "not 32 bytes"),
    "one that is a number": (keys(key().jwk | {"x": 7}), "not 32 bytes"),
    "the same kid twice": (keys(key().jwk, key(bytes(32)).jwk | {"kid": key().kid}), "the same kid"),
    "a private key": (keys(key().jwk | {"d": part(bytes(32))}), "private key"),
}


@pytest.mark.parametrize(("jwks", "why"), BAD_KEYS.values(), ids=BAD_KEYS)
def test_jwks_that_is_none_is_no_fault_of_the_receipt(jwks: bytes, why: str) -> None:
    with pytest.raises(jws.BadKeysError, match=why):
        verified(GOOD, jwks)


def test_keys_of_other_kinds_are_passed_over() -> None:
    others = [{"kty": "RSA"}, {"kty": "OKP", "crv": "X25519"}, {"kty": "OKP", "crv": "Ed448", "kid": key().kid}]
    assert verified(GOOD, keys(*others, key().jwk))


# The command


@pytest.fixture
def jwks(tmp_path: Path) -> str:
    path = tmp_path / "jwks.json"
    path.write_bytes(JWKS)
    return str(path)


def saved(tmp_path: Path, content: str) -> str:
    path = tmp_path / "receipt.jws"
    path.write_text(content)
    return str(path)


@pytest.fixture
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a receipt is verified offline")

    for name in ("socket.socket.connect", "socket.getaddrinfo", "grpc.insecure_channel", "grpc.secure_channel"):
        monkeypatch.setattr(name, refuse)


@pytest.mark.usefixtures("_no_network")
def test_verify_says_what_the_receipt_claims_in_plain_words(tmp_path: Path, jwks: str, capsys: Any) -> None:
    assert main(["receipt", "verify", saved(tmp_path, GOOD + "\n"), "--jwks", jwks]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    lines = dict(re.split(r" {2,}", line, maxsplit=1) for line in said.out.splitlines())
    assert lines == {
        "result": "the signature is good",
        "signed with": key().kid,
        "by": "keybroker 1.2.3",
        "issued": "2026-01-02T03:04:08Z",
        "receipt id": "record-1",
        "caller": "x509:spiffe://example/billing",
        "request id": "request-1",
        "requested": "2026-01-02T03:04:05Z",
        "key id": "key-1",
        "ARN": "acs:kms:…:key/key-1",
        "instance": "kst-example",
        "spec": "Aliyun_AES_192",
        "material": "generated by the broker",
        "length": "192 bits",
        "check value": "cmac-aes:4bfc29: 24 bits that identify what was generated; no proof of what the HSM holds",
        "entropy": "pkcs11, health tests: passed",
        "algorithm": "RSAES_OAEP_SHA_256",
        "wrapped under": f"public key with SHA-256 {bytes(range(32)).hex()}",
        "sends": "3 recorded, 1 of them known to have done nothing",
        "KMS accepted": "2026-01-02T03:04:06Z, request id kms-request-1",
        "KMS showed": "Enabled, 2026-01-02T03:04:07Z",
        "evidence": f"ACCEPTED: {FULL['evidence']['means']}",
        "audit line": "ab" * 32,
    }


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize(
    ("row", "words"),
    [
        (WITHOUT_AN_ANSWER, "KMS accepted   not heard"),
        (replace(ROW, kms_request_id=""), f"KMS accepted   {ACCEPTED:%Y-%m-%dT%H:%M:%SZ}, without a request id"),
        (replace(ROW, restored=True), "done nothing; before a restore of the ledger perhaps more"),
        (BY_CALLER, "the broker never had it in the clear"),
    ],
)
def test_verify_says_what_is_not_known(tmp_path: Path, jwks: str, capsys: Any, row: Any, words: str) -> None:
    from keybroker.domain.receipt import payload  # noqa: PLC0415

    file = saved(tmp_path, key().sign(payload(row, version="1", issued_at=ISSUED)))
    assert main(["receipt", "verify", file, "--jwks", jwks]) == 0
    assert words in re.sub(r" {2,}", "   ", capsys.readouterr().out)


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize(
    "claims",
    [
        b"{}",
        b'{"cmk":[],"iat":"x","kms":7,"sends":{"recorded":null}}',
        b'{"iat":1e99,"jti":{}}',
        b'{"iat":-99999999999999}',
    ],
)
def test_verify_of_claims_that_it_does_not_know_shows_what_it_can(
    tmp_path: Path, jwks: str, capsys: Any, claims: bytes
) -> None:
    assert main(["receipt", "verify", saved(tmp_path, signed(headed(), claims)), "--jwks", jwks]) == 0
    assert "the signature is good" in capsys.readouterr().out


@pytest.mark.usefixtures("_no_network")
def test_verify_for_programs_gives_the_claims(tmp_path: Path, jwks: str, capsys: Any) -> None:
    assert main(["receipt", "verify", saved(tmp_path, GOOD), "--jwks", jwks, "--output", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"verified": True, "kid": key().kid, "claims": FULL}
    assert ROW.request_id == FULL["request_id"]


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize(
    "content",
    [f"{HEADER}.{PAYLOAD}.{part(bytes(64))}", "", "words", f"{GOOD}.{GOOD}", receipt(key(b"a" * 32))],
    ids=["another signature", "empty", "words", "two", "another key"],
)
def test_verify_of_what_is_no_good_receipt_exits_with_11_and_prints_no_claims(
    tmp_path: Path, jwks: str, capsys: Any, content: str
) -> None:
    assert main(["--output", "json", "receipt", "verify", saved(tmp_path, content), "--jwks", jwks]) == 11
    said = capsys.readouterr()
    assert said.out == ""
    assert json.loads(said.err)["error"]["reason"] == "NOT_VERIFIED"


@pytest.mark.usefixtures("_no_network")
def test_verify_without_usable_keys_is_a_usage_error(tmp_path: Path, jwks: str, capsys: Any) -> None:
    file = saved(tmp_path, GOOD)
    assert main(["receipt", "verify", file, "--jwks", file]) == 2
    assert main(["receipt", "verify", file, "--jwks", str(tmp_path / "none")]) == 2
    assert main(["receipt", "verify", "-", "--jwks", "-"]) == 2
    assert "only one file can come from stdin" in capsys.readouterr().err


def test_verify_without_its_libraries_names_the_extra(
    tmp_path: Path, jwks: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import kbctl  # noqa: PLC0415

    monkeypatch.delattr(kbctl, "jws")
    monkeypatch.delitem(sys.modules, "kbctl.jws")
    monkeypatch.setitem(sys.modules, "jwt", None)
    assert main(["receipt", "verify", saved(tmp_path, GOOD), "--jwks", jwks]) == 2
    assert "pip install 'keybroker[receipts]'" in capsys.readouterr().err


def test_other_commands_need_neither_library() -> None:
    """The bare install has gRPC and protobuf."""
    code = (
        "import sys; sys.modules['jwt'] = sys.modules['cryptography'] = None; "
        "from kbctl.__main__ import build_parser; build_parser(); print('built')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "built\n"


def test_receipt_alone_is_no_command(capsys: Any) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["receipt"])
    assert caught.value.code == 2


# --receipt

IMPORTS = {
    "ImportExternalKey": ["import", "--key-id", KEY_ID],
    "ImportWrappedKeyMaterial": ["import-wrapped", "--key-id", KEY_ID, "--wrapped", "wrapped", "--token", "token"],
    "GetImport": ["import-status", REQUEST_ID],
}


@pytest.fixture(params=IMPORTS)
def asked(
    request: pytest.FixtureRequest, broker: FakeBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, list[str]]:
    """An RPC whose answer has a receipt, and the command that makes it."""
    (tmp_path / "wrapped").write_bytes(bytes(256))
    (tmp_path / "token").write_text("token")
    monkeypatch.chdir(tmp_path)
    answer: Any = default_answers()[request.param]
    answer.receipt = GOOD
    broker.answers[request.param] = answer
    return request.param, [*IMPORTS[request.param], "--address", broker.address]


def test_receipt_option_writes_the_receipt(
    asked: tuple[str, list[str]], tmp_path: Path, capsys: Any, jwks: str
) -> None:
    file = tmp_path / "a.jws"
    assert main([*asked[1], "--receipt", str(file)]) == 0
    assert file.read_text() == GOOD + "\n"
    assert re.search(rf"^receipt +{file}$", capsys.readouterr().out, re.MULTILINE)
    assert main(["receipt", "verify", str(file), "--jwks", jwks]) == 0


def test_without_the_option_the_table_says_that_there_is_one_and_json_has_it(
    asked: tuple[str, list[str]], capsys: Any
) -> None:
    assert main(asked[1]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^receipt +signed", out, re.MULTILINE)
    assert GOOD not in out
    assert main([*asked[1], "--output", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["receipt"] == GOOD


def test_receipt_option_writes_over_nothing_and_asks_nothing_then(
    asked: tuple[str, list[str]], broker: FakeBroker, tmp_path: Path
) -> None:
    (tmp_path / "there").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("there", "link", "no-folder/file"):
        assert main([*asked[1], "--receipt", name]) == 2
    assert (tmp_path / "there").read_text() == "mine"
    assert broker.calls == []


def test_answer_without_a_receipt_is_done_and_says_that_none_was_saved(
    asked: tuple[str, list[str]], broker: FakeBroker, tmp_path: Path, capsys: Any
) -> None:
    broker.answers[asked[0]] = default_answers()[asked[0]]
    assert main([*asked[1], "--receipt", "a.jws"]) == 12
    said = capsys.readouterr()
    assert KEY_ID in said.out
    assert "the answer is good, but its receipt was not saved: there is none" in said.err
    assert not (tmp_path / "a.jws").exists()


def test_receipt_that_can_not_be_written_is_no_failure_of_the_import(
    asked: tuple[str, list[str]], broker: FakeBroker, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody made the file while the broker worked."""
    from kbctl import receipt as module  # noqa: PLC0415

    monkeypatch.setattr(module.os.path, "lexists", lambda _: False)
    (tmp_path / "a.jws").write_text("mine")
    assert main([*asked[1], "--receipt", "a.jws"]) == 12
    said = capsys.readouterr()
    assert KEY_ID in said.out
    assert "receipt was not saved: a.jws: File exists" in said.err
    assert (tmp_path / "a.jws").read_text() == "mine"


@pytest.mark.parametrize("command", [IMPORTS["ImportExternalKey"], IMPORTS["ImportWrappedKeyMaterial"]])
def test_receipt_of_a_check_only_is_a_usage_error(broker: FakeBroker, command: list[str], capsys: Any) -> None:
    assert main([*command, "--validate-only", "--receipt", "a.jws", "--address", broker.address]) == 2
    assert broker.calls == []

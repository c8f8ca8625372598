"""The key file of receipts, and the JWKS that is made of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from keybroker.__main__ import main
from keybroker.adapters.receipts import ReceiptKey
from keybroker.receipt_keys import receipt_key, receipt_maker
from keybroker.self_tests import SelfTestFailed, run_self_tests
from keybroker.settings import ConfigurationError, ReceiptSettings
from tests.builders import FakeClock
from tests.unit.domain.test_receipt import ROW
from tests.unit.receipts.support import key, key_file, private_key

PEM = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
GOOD = private_key().private_bytes(*PEM)
WRONG = {
    "empty": b"",
    "words": b"not-a-key-canary",
    "another curve": ec.generate_private_key(ec.SECP256R1()).private_bytes(*PEM),
    "Ed448": ed448.Ed448PrivateKey.generate().private_bytes(*PEM),
    "public": private_key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    "passphrase": private_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"canary")),
    "cut": GOOD[:70],
    "two keys": GOOD + private_key(bytes(32)).private_bytes(*PEM),
    "OpenSSH": private_key().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
    "X25519": x25519.X25519PrivateKey.generate().private_bytes(*PEM),
    "DER": private_key().private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()).hex().encode(),
}


def read(path: Path) -> ReceiptKey:
    made = receipt_key(ReceiptSettings(key_file=path))
    assert made is not None
    return made


def test_key_is_read_from_pkcs8_pem(tmp_path: Path) -> None:
    assert read(key_file(tmp_path / "key")).jwk == key().jwk


def test_without_a_key_file_receipts_are_empty() -> None:
    assert receipt_key(ReceiptSettings()) is None
    assert receipt_maker(None, clock=FakeClock())(ROW) == ""


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG)
def test_file_of_another_content_is_refused_and_not_quoted(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(key_file(tmp_path / "key", content))
    said = str(caught.value)
    assert (
        said == f"receipts.key_file: {tmp_path / 'key'} must hold one Ed25519 private key: PKCS#8, PEM, no passphrase"
    )


@pytest.mark.parametrize("mode", [0o444, 0o442, 0o604])
def test_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigurationError, match=r"receipts\.key_file: .* is open to every user"):
        read(key_file(tmp_path / "key", mode=mode))


def test_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"receipts\.key_file: can't read"):
        read(tmp_path / "key")


# keybroker receipt jwks


def test_jwks_of_several_keys_holds_their_public_keys(tmp_path: Path, capsys: Any) -> None:
    old = private_key(bytes(32)).private_bytes(*PEM)
    paths = [key_file(tmp_path / "new"), key_file(tmp_path / "old", old), key_file(tmp_path / "again")]
    assert main(["receipt", "jwks", "--key", *map(str, paths)]) == 0
    assert json.loads(capsys.readouterr().out) == {"keys": [key().jwk, key(bytes(32)).jwk]}


def configured(folder: Path, receipts: str) -> str:
    config = folder / "keybroker.yaml"
    config.write_text(
        f"receipts: {receipts}\nkms: {{default_instance: main, instances: {{main: {{region: cn-hangzhou, "
        'endpoint: "http://127.0.0.1:1", dkms_instance_id: kst-example}}}\n'
    )
    return str(config)


def test_jwks_of_a_configuration_holds_its_key(tmp_path: Path, capsys: Any) -> None:
    path = key_file(tmp_path / "key")
    assert main(["receipt", "jwks", "--config", configured(tmp_path, f"{{key_file: {path}}}")]) == 0
    assert json.loads(capsys.readouterr().out) == {"keys": [key().jwk]}


@pytest.mark.parametrize("arguments", [["--config"], ["--key"]])
def test_jwks_without_a_usable_key_says_why(tmp_path: Path, capsys: Any, arguments: list[str]) -> None:
    file = configured(tmp_path, "{}") if arguments == ["--config"] else str(key_file(tmp_path / "key", b"canary"))
    assert main(["receipt", "jwks", *arguments, file]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert {"--config": "receipts.key_file: the configuration has none", "--key": "--key: "}[arguments[0]] in said.err
    assert "canary" not in said.err


# Self-test


def test_own_key_is_tried_at_the_start() -> None:
    run_self_tests(key())

    class Broken(ReceiptKey):
        def sign(self, content: bytes, *, typ: str = "") -> str:
            signed = super().sign(content, typ=typ)
            return signed[:-10] + ("A" if signed[-10] != "A" else "B") + signed[-9:]

    with pytest.raises(SelfTestFailed, match="the self-test of the receipts failed"):
        run_self_tests(Broken(private_key()))

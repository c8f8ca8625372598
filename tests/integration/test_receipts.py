"""Receipts end to end: a real broker and emulator, kbctl that saves one, and its verification with no network."""

import base64
import json
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jws
from joserfc.errors import BadSignatureError
from joserfc.jwk import KeySet

from kbctl.__main__ import main as kbctl
from keybroker.__main__ import main as keybroker
from keybroker.adapters.kms.credentials import Credentials
from keybroker.app import App
from keybroker.background import BackgroundApp
from keybroker_client import KeyBrokerClient, UnattributedError
from keymaterial.v1 import types_pb2
from kms_emulator import Emulator, Fault
from tests.integration.conftest import ACCESS_KEY_ID, ACCESS_KEY_SECRET, RunningBroker, broker_settings
from tests.integration.test_imports import check_value
from tests.unit.receipts.support import key_file

REQUEST_ID = "6f1c9c1e-3c1b-4f65-9c53-3a8f1c1d2e3f"
NEW_KEY = types_pb2.NewKey(key_spec=types_pb2.KEY_SPEC_AES_256)


@pytest.fixture
def signing(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """Settings of a broker with a ledger on disk that signs receipts."""
    ledger_key = tmp_path / "ledger-key"
    ledger_key.write_bytes(base64.b64encode(bytes(range(32))))
    ledger_key.chmod(0o400)
    ledger = {"file": str(tmp_path / "ledger.db"), "mark_file": str(tmp_path / "mark"), "key_file": str(ledger_key)}
    return {"ledger": ledger, "receipts": {"key_file": str(key_file(tmp_path / "receipt-key"))}}


@pytest.fixture
def jwks(tmp_path: Path, capsys: Any) -> Path:
    """What the operator hands out."""
    assert keybroker(["receipt", "jwks", "--key", str(key_file(tmp_path / "the-key"))]) == 0
    path = tmp_path / "jwks.json"
    path.write_text(capsys.readouterr().out)
    return path


@contextmanager
def running(emulator: Emulator, sections: dict[str, dict[str, Any]]) -> Iterator[KeyBrokerClient]:
    """A client of a broker that ends with the block."""
    app = App(
        broker_settings(emulator, **sections), credentials=lambda: Credentials(ACCESS_KEY_ID, ACCESS_KEY_SECRET, "")
    )
    with BackgroundApp(app) as background, KeyBrokerClient(background.grpc_address, retries=0) as client:
        yield client


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a receipt is verified offline")

    for name in ("socket.socket.connect", "socket.getaddrinfo", "grpc.insecure_channel"):
        monkeypatch.setattr(name, refuse)


def claims_of(receipt: Path, jwks: Path, capsys: Any) -> dict[str, Any]:
    assert kbctl(["receipt", "verify", str(receipt), "--jwks", str(jwks), "--output", "json"]) == 0
    claims: dict[str, Any] = json.loads(capsys.readouterr().out)["claims"]
    return claims


def test_receipt_of_an_import_verifies_without_a_network_and_says_what_happened(
    emulator: Emulator,
    make_broker: Callable[..., RunningBroker],
    signing: dict[str, dict[str, Any]],
    jwks: Path,
    logged: object,
    tmp_path: Path,
    capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker = make_broker(**signing)
    capsys.readouterr()
    receipt = tmp_path / "receipt.jws"
    options = ["--address", broker.address, "--output", "json", "--receipt", str(receipt)]
    assert kbctl(["import", "--new-key", "--spec", "aes-256", "--request-id", REQUEST_ID, *options]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert receipt.read_text() == answer["receipt"] + "\n"
    with monkeypatch.context() as patch:
        offline(patch)
        claims = claims_of(receipt, jwks, capsys)
    key_id = answer["key"]["key_id"]
    material = emulator.bound_material(key_id) or b""
    assert claims["material"]["check_value"]["value"] == check_value(material).hex()
    assert claims["cmk"]["arn"] == answer["key"]["arn"]
    assert claims["request_id"] == REQUEST_ID
    assert claims["kms"]["accepted"]["request_id"] == answer["kms_request_id"]
    assert claims["kms"]["described"]["state"] == "Enabled"
    assert claims["evidence"]["kind"] == answer["evidence"].removeprefix("IMPORT_EVIDENCE_")
    assert "caller" not in claims  # nobody is known here
    assert material.hex() not in json.dumps(claims)


def test_repeat_tells_the_identical_receipt_also_after_a_restart(
    emulator: Emulator, signing: dict[str, dict[str, Any]]
) -> None:
    with running(emulator, signing) as client:
        first = client.import_external_key(new_key=NEW_KEY, request_id=REQUEST_ID)
        again = client.import_external_key(new_key=NEW_KEY, request_id=REQUEST_ID)
    assert first.receipt
    assert (again.replayed, again.receipt) == (True, first.receipt)
    with running(emulator, signing) as client:
        again = client.import_external_key(new_key=NEW_KEY, request_id=REQUEST_ID)
        assert client.get_import(request_id=REQUEST_ID).receipt == first.receipt
    assert (again.replayed, again.receipt) == (True, first.receipt)


@pytest.mark.parametrize("now", ["no key", "another key"])
def test_repeat_tells_the_identical_receipt_although_the_broker_signs_with_it_no_more(
    emulator: Emulator, signing: dict[str, dict[str, Any]], tmp_path: Path, now: str
) -> None:
    with running(emulator, signing) as client:
        first = client.import_external_key(new_key=NEW_KEY, request_id=REQUEST_ID).receipt
    pem = Ed25519PrivateKey.from_private_bytes(bytes(32)).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    (tmp_path / "receipt-key").unlink()
    receipts = {} if now == "no key" else {"key_file": str(key_file(tmp_path / "another-key", pem))}
    with running(emulator, signing | {"receipts": receipts}) as client:
        assert client.import_external_key(new_key=NEW_KEY, request_id=REQUEST_ID).receipt == first
        assert client.get_import(request_id=REQUEST_ID).receipt == first
        assert bool(client.import_external_key(new_key=NEW_KEY).receipt) == (now == "another key")


def test_another_implementation_verifies_what_the_broker_answered_with_what_its_operator_handed_out(
    emulator: Emulator, signing: dict[str, dict[str, Any]], jwks: Path
) -> None:
    keys = KeySet.import_key_set(json.loads(jwks.read_text()))
    with running(emulator, signing) as client:
        answer = client.import_external_key(new_key=NEW_KEY, request_id=REQUEST_ID)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # RFC 9864 would have EdDSA called Ed25519
        told = json.loads(jws.deserialize_compact(answer.receipt, keys, algorithms=["EdDSA"]).payload)
        header, payload, signature = answer.receipt.split(".")
        with pytest.raises(BadSignatureError):
            jws.deserialize_compact(f"{header}.{payload[:-4]}AAAA.{signature}", keys, algorithms=["EdDSA"])
    assert told["request_id"] == REQUEST_ID
    assert told["cmk"]["arn"] == answer.key.arn
    assert told["kms"]["accepted"]["request_id"] == answer.kms_request_id


def test_unattributed_gets_no_receipt(
    emulator: Emulator, make_broker: Callable[..., RunningBroker], signing: dict[str, dict[str, Any]]
) -> None:
    emulator.set_readings(same_material_reimport=False)
    broker = make_broker(**signing)
    emulator.faults.add(Fault(operation="ImportKeyMaterial", when="after", action="drop"))
    with pytest.raises(UnattributedError):
        broker.client.import_external_key(new_key=NEW_KEY, request_id=REQUEST_ID)
    told = broker.client.get_import(request_id=REQUEST_ID)
    assert (told.state, told.receipt) == (types_pb2.REQUEST_STATE_ENABLED_UNATTRIBUTED, "")


def test_check_config_says_who_signs(signing: dict[str, dict[str, Any]], tmp_path: Path, capsys: Any) -> None:
    instance = {"region": "cn-hangzhou", "endpoint": "http://127.0.0.1:1", "dkms_instance_id": "kst-example"}
    kms = {"default_instance": "main", "instances": {"main": instance}}
    for receipts, said in (
        (signing["receipts"], r"signed with key kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"),
        ({}, "none"),
    ):
        (tmp_path / "keybroker.yaml").write_text(yaml.safe_dump({"kms": kms, "receipts": receipts}))
        with pytest.MonkeyPatch.context() as patch:
            for name in ("ID", "SECRET"):
                patch.setenv(f"ALIBABA_CLOUD_ACCESS_KEY_{name}", "not-a-secret")
            assert keybroker(["check-config", "--config", str(tmp_path / "keybroker.yaml")]) == 0
        assert re.search(rf"^Receipts: {said}$", capsys.readouterr().out, re.MULTILINE)

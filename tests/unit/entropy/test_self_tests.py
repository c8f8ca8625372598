"""The start-up self-tests pass, are quick, and each notices what it is there for."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keybroker import self_tests
from keybroker.adapters.kms import signing
from keybroker.domain import key_material
from keybroker.domain.key_check_value import KeyCheckValue
from keybroker.self_tests import SelfTestFailed, run_self_tests


def test_self_tests_pass_and_take_less_than_300_ms() -> None:
    run_self_tests()
    started = time.thread_time()
    run_self_tests()
    assert time.thread_time() - started < 0.3


def wrapped_for_another(*_: object) -> Any:
    return generate_private_key(65537, 2048).public_key()


def wrapped_wrongly(self: key_material.KeyMaterial, parameters: Any) -> bytes:
    return self_tests._pair().public_key().encrypt(bytes(32), parameters.algorithm.padding)


class AnotherSigner:
    """Signs with a key of its own."""

    @staticmethod
    def from_private_bytes(_: bytes) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.generate()


FAULTS: list[tuple[str, Any, str, Callable[..., Any]]] = [
    ("wrapping", key_material, "load_wrapping_public_key", wrapped_for_another),
    ("wrapping", key_material.KeyMaterial, "wrap", wrapped_wrongly),
    ("check value", self_tests, "key_check_value", lambda material: KeyCheckValue(b"abc")),
    ("signature", signing, "canonical_request", lambda request: "another"),
    ("receipts", self_tests, "Ed25519PrivateKey", AnotherSigner),
]


@pytest.mark.parametrize(("name", "owner", "what", "fault"), FAULTS)
def test_self_test_finds_what_computes_wrongly(
    name: str, owner: Any, what: str, fault: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, what, fault)
    with pytest.raises(SelfTestFailed, match=f"the self-test of the {name} failed"):
        run_self_tests()


def test_pair_of_the_self_test_is_of_the_form_that_the_kms_gives() -> None:
    der = self_tests._pair().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert len(der) == 294


def test_broker_that_computes_wrongly_does_not_serve(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Any
) -> None:
    from keybroker import __main__ as command  # noqa: PLC0415

    monkeypatch.setattr(command, "protect_from_dumps", lambda: None)  # it would be the test process that is protected

    def failing(_: object) -> None:
        raise SelfTestFailed("the self-test of the check value failed")

    bound: list[object] = []
    monkeypatch.setattr("keybroker.__main__.configure_logs", lambda _: None)
    monkeypatch.setattr("keybroker.app.run_self_tests", failing)
    monkeypatch.setattr("keybroker.app.GrpcServer.start", lambda *_: bound.append(1))
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "b")
    config = tmp_path / "keybroker.yaml"
    config.write_text(
        'server: {grpc_address: "127.0.0.1:0", http_address: "127.0.0.1:0"}\n'
        "kms: {default_instance: main, instances: {main: {region: cn-hangzhou, "
        'endpoint: "http://127.0.0.1:1", dkms_instance_id: kst-example}}}\n'
    )
    assert command.main(["serve", "--config", str(config)]) == 1
    assert "nothing is served: the self-test of the check value failed" in capsys.readouterr().err
    assert bound == []

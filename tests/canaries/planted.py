"""What is planted, and an emulator that tells of each secret that passes it."""

import base64
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from kms_emulator import AccessKey, Emulator, EmulatorSettings
from kms_emulator.call_record import LoggedCall
from kms_emulator.import_pairs import ImportPair
from kms_emulator.operations import importing
from kms_emulator.wire import HttpReply, HttpRequest
from kms_emulator.wrapping import unwrap
from tests.canaries.search import MATERIAL_RUN_BYTES, TEXT_RUN_BYTES, Search, Secret

INSTANCE_ID = "kst-example"


class Planted:
    """All secrets of a run, by kind. What the broker makes itself is added when the emulator has seen it."""

    def __init__(self) -> None:
        self._secrets: dict[tuple[str, bytes], Secret] = {}

    def text(self, kind: str, value: str = "") -> str:
        """Plants a text, one of its own if none is given, and returns it."""
        value = value or f"{secrets.token_urlsafe(30)}"
        self._add(kind, value.encode(), TEXT_RUN_BYTES)
        return value

    def binary(self, kind: str, value: bytes) -> bytes:
        """Plants bytes."""
        self._add(kind, value, MATERIAL_RUN_BYTES)
        return value

    def private_key(self, kind: str, pem: bytes) -> bytes:
        """Plants the number that a private key in PEM is, and the lines that only it has."""
        key: Any = load_pem_private_key(pem, None)
        self.binary(f"{kind}, its number", key.private_numbers().private_value.to_bytes(32, "big"))
        self.binary(f"{kind}, its text", pem.splitlines()[2][:32])
        return pem

    def bearer(self, token: str) -> str:
        """Plants what is secret of a bearer token: its signature. Who it names is in logs and receipts too."""
        if signature := token.rpartition(".")[2]:
            self.text("bearer token", signature)
        return token

    def count(self, kind: str) -> int:
        """How many of a kind there are."""
        return sum(planted == kind for planted, _ in self._secrets)

    def search(self) -> Search:
        """For everything that is planted by now."""
        return Search(self._secrets.values())

    def _add(self, kind: str, value: bytes, run_bytes: int) -> None:
        self._secrets[kind, value] = Secret(f"{kind} {self.count(kind) + 1}", value, run_bytes)


def secret_of(token: str) -> str:
    """What is secret of an import token of the emulator: the MAC and the pair's id. After them it names its CMK."""
    return token[:64]


class Witness:
    """Sees what the emulator issues and gets."""

    def __init__(self) -> None:
        self.issued: dict[str, ImportPair] = {}
        self.received: list[tuple[str, bytes]] = []
        self.signatures: list[str] = []

    def watch(self, emulator: Emulator) -> None:
        """Before it is started."""
        answer: Callable[[HttpRequest], tuple[HttpReply, LoggedCall]] = emulator._gateway.answer

        def noted(request: HttpRequest) -> tuple[HttpReply, LoggedCall]:
            self._note(request)
            return answer(request)

        emulator._gateway.answer = noted  # type: ignore[method-assign]

    def issue(self, *arguments: Any) -> ImportPair:
        """In place of the emulator's."""
        pair = _issue_pair(*arguments)
        self.issued[pair.import_token] = pair
        return pair

    def materials(self) -> Iterator[bytes]:
        """Everything that was wrapped in what the emulator got, whether it took it or not."""
        for token, blob in self.received:
            if token in self.issued:
                pair = self.issued[token]
                try:
                    yield unwrap(pair.private_key, pair.wrapping_algorithm, blob)
                except ValueError:
                    continue

    def plant(self, planted: Planted) -> None:
        """Adds all that was seen."""
        for token in {*self.issued, *(token for token, _ in self.received)}:
            planted.text("import token", secret_of(token))
        for _, blob in self.received:
            planted.binary("wrapped material", blob)
        for material in self.materials():
            planted.binary("key material", material)
        for signature in self.signatures:
            planted.text("signature", signature)

    def _note(self, request: HttpRequest) -> None:
        self.signatures.append(request.headers.get("authorization", "").rpartition("Signature=")[2])
        parameters = request.parameters()
        if "EncryptedKeyMaterial" in parameters:
            self.received.append((parameters["ImportToken"], base64.b64decode(parameters["EncryptedKeyMaterial"])))


_issue_pair = importing.issue_pair


@contextmanager
def watched_emulator(witness: Witness, access_keys: Sequence[AccessKey], **settings: Any) -> Iterator[Emulator]:
    """An emulator that `witness` watches. Pairs come from a pool: to make each anew takes most of a test's time."""
    emulator = Emulator(
        EmulatorSettings(
            region="cn-hangzhou",
            dkms_instance_ids=(INSTANCE_ID,),
            access_keys=tuple(access_keys),
            rsa_key_pool=3,
            **settings,
        )
    )
    witness.watch(emulator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importing, "issue_pair", witness.issue)
        with emulator:
            yield emulator

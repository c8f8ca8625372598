"""What the tests of the use cases do again and again."""

import secrets
import threading
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from keybroker.adapters.ledger.sealing import Keyring, random_keyring
from keybroker.adapters.ledger.sqlite import SqliteLedger
from keybroker.domain.attempt import Attempt
from keybroker.domain.errors import BrokerError, KmsError, Reason
from keybroker.domain.external_key import KeyReference, NewKey
from keybroker.domain.import_parameters import ImportParameters
from keybroker.domain.wrapping import RSAES_OAEP_SHA_256, WrappingAlgorithm
from keybroker.usecases.answers import Answer
from keybroker.usecases.asked import Asked
from keybroker.usecases.import_wrapped_key_material import Given
from keybroker.usecases.progress import Progress
from tests.builders import World, lost_reply

REQUEST = "8a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"
SENDS_OF_ONE_CALL = 6
"""The first and five identical ones (carry_on.py)."""


def run(world: World, target: str | NewKey, **options: Any) -> Attempt:
    """ImportExternalKey that ends well; returns its row."""
    return world.import_key(target if isinstance(target, NewKey) else KeyReference(target), **options).attempt


def error_of(world: World, target: str | NewKey, **options: Any) -> BrokerError:
    with pytest.raises(BrokerError) as caught:
        run(world, target, **options)
    return caught.value


def reason_of(world: World, target: str | NewKey, **options: Any) -> Reason:
    return error_of(world, target, **options).reason


def lose_replies(world: World, when: str = "before", *, error: KmsError | None = None) -> None:
    """Every ImportKeyMaterial that one call makes goes unanswered."""
    world.kms.fail_next("ImportKeyMaterial", error or lost_reply(), when=when, times=SENDS_OF_ONE_CALL)  # type: ignore[arg-type]


def parameters_for(world: World, key_id: str, algorithm: WrappingAlgorithm = RSAES_OAEP_SHA_256) -> ImportParameters:
    """GetImportParameters."""
    return world.hand_out.run(world.kms, KeyReference(key_id), algorithm, deadline=world.deadline())


def given(parameters: ImportParameters, material: bytes | None = None) -> Given:
    """What a caller makes of its parameters."""
    key = load_der_public_key(parameters.wrapping_public_key_der)
    assert isinstance(key, RSAPublicKey)
    blob = key.encrypt(material or secrets.token_bytes(32), parameters.algorithm.padding)
    return Given(blob, parameters.import_token)


def run_wrapped(
    world: World, key_id: str, what: Given, *, request_id: str | None = None, caller: str = "a caller"
) -> Answer:
    """ImportWrappedKeyMaterial; without `request_id` a new request."""
    return world.import_wrapped.run(
        world.kms,
        Asked(caller, request_id or str(uuid4())),
        KeyReference(key_id),
        what,
        deadline=world.deadline(),
    )


def wrapped_reason(world: World, key_id: str, what: Given, *, request_id: str | None = None) -> Reason:
    with pytest.raises(BrokerError) as caught:
        run_wrapped(world, key_id, what, request_id=request_id)
    return caught.value.reason


def create(
    world: World,
    new_key: NewKey,
    *,
    request_id: str = "",
    allow_second_key: bool = False,
    progress: Progress | None = None,
    seconds: float = 15.0,
) -> Answer:
    """CreateExternalKey; without `request_id` a new request."""
    return world.create.run(
        world.kms,
        Asked("a caller", request_id or str(uuid4())),
        new_key,
        allow_second_key=allow_second_key,
        progress=progress or Progress(),
        deadline=world.deadline(seconds),
    )


def create_error(world: World, new_key: NewKey, **options: Any) -> BrokerError:
    with pytest.raises(BrokerError) as caught:
        create(world, new_key, **options)
    return caught.value


def known(world: World, request_id: str = REQUEST, caller: str = "a caller") -> Attempt:
    """The row, which must be there."""
    row = world.row(request_id, caller)
    assert row is not None
    return row


class Killed(BaseException):
    """The process has died at a place that a test named."""


def stop_at(world: World, place: str) -> None:
    """From `place` on nothing happens any more in this process: not even what a `finally` would write."""
    dead = threading.Event()

    def at(here: str) -> None:
        if here == place:
            dead.set()
        if dead.is_set():
            raise Killed(here)

    world.at = at


def restart(world: World) -> None:
    """A new process, which nobody stops."""
    world.at = lambda _: None
    world.restart()


class FileLedger:
    """Puts the ledger of a World into a file, with its mark beside it, and an older copy back into its place."""

    def __init__(self, world: World, folder: Path) -> None:
        self._world = world
        self._folder = folder
        self._keyring = random_keyring()
        self.open()

    def open(self, *, keyring: Keyring | None = None) -> None:
        """A new process. With another `keyring` it can't read what is there."""
        self._world.ledger.close()
        self._world.ledger = SqliteLedger(
            keyring=keyring or self._keyring,
            clock=self._world.clock,
            file=self._folder / "ledger.db",
            mark_file=self._folder / "mark",
        )
        self._world.ledger.connect()
        restart(self._world)

    def back_up(self) -> None:
        self._world.ledger.close()
        (self._folder / "copy").write_bytes((self._folder / "ledger.db").read_bytes())
        self.open()

    def put_back(self) -> None:
        """At least one write is lost by it, of a CMK that nobody looks at."""
        parameters_for(self._world, self._world.kms.add_key())
        self._world.ledger.close()
        for left in self._folder.glob("ledger.db*"):
            left.unlink()
        (self._folder / "ledger.db").write_bytes((self._folder / "copy").read_bytes())
        (self._folder / "ledger.db").chmod(0o600)
        self.open()

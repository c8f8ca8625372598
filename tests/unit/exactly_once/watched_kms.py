"""A FakeKms that tells where its callers stand, and knows which key material may still be bound by what was sent."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from keybroker.domain.deadline import Deadline
from keybroker.domain.external_key import ORIGIN_EXTERNAL, CmkName, KeyState
from keybroker.domain.import_parameters import ImportParameters
from keybroker.domain.key_spec import AES_256, KeySpec
from keybroker.domain.wrapping import WrappingAlgorithm
from keybroker.ports import Clock, KmsReply
from keybroker.usecases.create_safely import REQUEST_TAG
from tests.contract.fake_kms import FakeKms, shared_wrapping_pair
from tests.contract.kms_script import Moment, When

LATEST_COMMIT = timedelta(minutes=5)
"""A request whose token was checked commits within this time: an assumption of the import protocol."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Flight:
    """Key material that was sent and has not arrived. `checked`: what its token was checked against, if it was."""

    key_id: str
    material: bytes
    token: str
    checked: Moment | None


class WatchedKms(FakeKms):
    """See the module.

    `at` is told of each request, `on_arrival` of key material before it has any effect, `on_fetch` of fetched pairs.
    """

    def __init__(self, *, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.at: Callable[[str], None] = lambda _: None
        self.on_arrival: Callable[[str, bytes], None] = lambda _, __: None
        self.on_fetch: Callable[[CmkName], None] = lambda _: None
        self.flights: list[Flight] = []
        self.told_accepted: set[tuple[str, bytes]] = set()
        self.encrypted_for: set[str] = set()
        self.created_with: dict[str, str] = {}
        self._opened: dict[bytes, bytes] = {}
        self._sending: list[tuple[str, bytes, str]] = []

    def live(self, key_id: str) -> set[bytes]:
        """Material that a message under way can still bind to the CMK."""
        if self.true_state(key_id) is not KeyState.PENDING_IMPORT:
            return set()
        return {flight.material for flight in self.flights if flight.key_id == key_id and self._is_live(flight)}

    def latest_landing(self) -> datetime | None:
        """When the first of the checked messages has to land."""
        checked = [held.checked.now for held in self._held if held.checked is not None]
        return min(checked) + LATEST_COMMIT - timedelta(seconds=1) if checked else None

    def land(self) -> None:
        """Every message under way arrives."""
        self.flights.clear()
        self.land_late()

    def forget_faults(self) -> None:
        """What was scripted and not used up."""
        self._failures.clear()

    @contextmanager
    def without_faults(self) -> Iterator[None]:
        """What was scripted is not meant for the calls made here."""
        scripted = {operation: deque(failures) for operation, failures in self._failures.items()}
        self._failures.clear()
        try:
            yield
        finally:
            self._failures.update(scripted)

    def add_key(
        self,
        *,
        spec: KeySpec | None = AES_256,
        state: KeyState = KeyState.PENDING_IMPORT,
        origin: str = ORIGIN_EXTERNAL,
        dkms_instance_id: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        key_id = super().add_key(spec=spec, state=state, origin=origin, dkms_instance_id=dkms_instance_id, tags=tags)
        if tags and REQUEST_TAG in tags:
            self.created_with[key_id] = tags[REQUEST_TAG]
        return key_id

    def get_parameters_for_import(
        self, cmk: CmkName, algorithm: WrappingAlgorithm, *, deadline: Deadline
    ) -> ImportParameters:
        before = self.calls["GetParametersForImport"]
        try:
            return super().get_parameters_for_import(cmk, algorithm, deadline=deadline)
        finally:
            if self.calls["GetParametersForImport"] > before:
                self.on_fetch(cmk)

    def import_key_material(
        self, cmk: CmkName, *, wrapped_key_material: bytes, import_token: str, deadline: Deadline
    ) -> KmsReply:
        material = self._open(wrapped_key_material, import_token)
        self._sending.append((cmk.key_id, material, import_token))
        try:
            reply = super().import_key_material(
                cmk, wrapped_key_material=wrapped_key_material, import_token=import_token, deadline=deadline
            )
        finally:
            self._sending.pop()
        self.told_accepted.add((cmk.key_id, material))
        return reply

    def encrypt(self, key_id: str, plaintext: bytes, *, deadline: Deadline) -> bytes:
        blob = super().encrypt(key_id, plaintext, deadline=deadline)
        self.encrypted_for.add(key_id)
        return blob

    def _open(self, wrapped_key_material: bytes, import_token: str) -> bytes:
        if wrapped_key_material not in self._opened:
            padding = self._tokens[import_token].algorithm.padding
            self._opened[wrapped_key_material] = shared_wrapping_pair().decrypt(wrapped_key_material, padding)
        return self._opened[wrapped_key_material]

    def _answered(self, operation: str, act: Callable[[], _T]) -> Callable[[], _T]:
        if operation != "ImportKeyMaterial":
            return super()._answered(operation, act)
        key_id, material, token = self._sending[-1]
        self.on_arrival(key_id, material)
        held = len(self._held)
        answer = super()._answered(operation, act)
        self.flights.extend(Flight(key_id, material, token, each.checked) for each in self._held[held:])
        return answer

    def _run_hook(self, operation: str, when: When) -> None:
        super()._run_hook(operation, when)
        self.at(f"{operation}: {when}")

    def _is_live(self, flight: Flight) -> bool:
        moment = flight.checked or self._moment()
        revoked = self.newest_token_only and flight.token not in moment.newest_tokens
        return not revoked and moment.now <= self._tokens[flight.token].expires_at

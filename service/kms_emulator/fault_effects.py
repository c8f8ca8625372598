"""What the faults that struck a call do to it, to its CMK and to its reply."""

from collections.abc import Callable
from contextlib import suppress

from kms_emulator.call_record import LoggedCall
from kms_emulator.errors import KmsError
from kms_emulator.faults import Fault
from kms_emulator.held_calls import HeldCalls
from kms_emulator.keys import KeyState
from kms_emulator.kms import Kms, new_material
from kms_emulator.late_calls import LateCall, LateCalls
from kms_emulator.operation import Call, Commit
from kms_emulator.operations.importing import bind_material
from kms_emulator.performing import checked_before, perform
from kms_emulator.wire import HttpReply, broken_reply


class FaultEffects:
    """Applies faults to calls of one Kms. `wait` sleeps for a delay and may return early at shutdown."""

    def __init__(self, kms: Kms, wait: Callable[[float], object]) -> None:
        self.held = HeldCalls()
        self.late = LateCalls(kms.clock)
        self._kms = kms
        self._wait = wait

    def apply(self, faults: list[Fault], call: Call, reply: HttpReply) -> HttpReply | None:
        """What the faults, in the order they were armed, make of `reply`; None when the call goes on unbroken."""
        broken = None
        for fault in faults:
            match fault.action:
                case "delay":
                    self._wait(fault.delay_seconds)
                case "hold":
                    self.held.hold(call.operation.name)
                case "foreign_import":
                    import_as_another(self._kms, call.key_id)
                case "late" if broken is None:
                    self._send_late(fault, call)
                    broken = broken_reply(fault, reply)
                case _:
                    broken = broken or broken_reply(fault, reply)
        return broken

    def _send_late(self, fault: Fault, call: Call) -> None:
        commit = checked_before(self._kms, call) if fault.checked_first else None
        self.late.add(LateCall(call.operation.name, lambda: self._landed(call, commit)), fault.late_seconds)
        self._wait(fault.delay_seconds)

    def _landed(self, call: Call, commit: Commit | None) -> LoggedCall:
        reply = perform(self._kms, call, commit)
        return LoggedCall(call.operation.name, call.key_id, reply.status)


def import_as_another(kms: Kms, key_id: str) -> None:
    """Bind random material, as another importer does, to a CMK that waits for it; to any other nothing happens."""
    with suppress(KmsError), kms.keyring.lock:
        key = kms.keyring.find(key_id, kms.clock.now())
        if key.bound_material is None and key.state is KeyState.PENDING_IMPORT:
            bind_material(kms, key, new_material(key.key_spec))

"""From an HTTP request to its reply: who asks, for what, within which quota, with which fault.

Order: method, path, action and version → authentication → quota → faults before → operation → faults after.
"""

from collections.abc import Callable

from kms_emulator.authentication import Authenticator
from kms_emulator.call_record import CallRecord, LoggedCall
from kms_emulator.errors import KmsError
from kms_emulator.fault_effects import FaultEffects
from kms_emulator.kms import Kms
from kms_emulator.operation import API_VERSION, Call, Operation
from kms_emulator.operations import OPERATIONS, UNKNOWN_OPERATION
from kms_emulator.performing import perform
from kms_emulator.wire import HttpReply, HttpRequest, error_reply, success_reply


class Gateway:
    """Answers requests for one Kms. `wait` sleeps for a delay fault and may return early at shutdown."""

    def __init__(self, kms: Kms, wait: Callable[[float], object]) -> None:
        self.record = CallRecord()
        self.effects = FaultEffects(kms, wait)
        self._kms = kms
        self._authenticator = Authenticator(kms.settings.access_keys)

    def answer(self, request: HttpRequest) -> tuple[HttpReply, LoggedCall]:
        """The reply, and what the call log says of it; never raises."""
        call = Call(OPERATIONS.get(request.headers.get("x-acs-action", ""), UNKNOWN_OPERATION))
        if call.operation is not UNKNOWN_OPERATION:
            self.record.count(call.operation.name)
        reply = self._reply(call, request)
        status = 0 if reply.transport in {"dropped", "reset"} else reply.status
        logged = LoggedCall(call.operation.name, call.key_id, status)
        self.record.answered(logged)
        return reply, logged

    def _reply(self, call: Call, request: HttpRequest) -> HttpReply:
        try:
            _check_named(call.operation, request)
            now = self._kms.clock.now()
            self._authenticator.check(request, now)
            self._kms.quotas.admit(call.operation.quota, now)
            call.take(request.parameters())
        except UnicodeDecodeError:
            return error_reply(KmsError("ParseRequestParameterException"))
        except KmsError as error:
            return error_reply(error, host=request.headers.get("host", ""))
        return self._with_faults(call)

    def _with_faults(self, call: Call) -> HttpReply:
        dial, name = self._kms.faults, call.operation.name
        broken = self.effects.apply(dial.strike(name, "before"), call, success_reply({}))
        if broken is not None:
            return broken
        reply = perform(self._kms, call)
        return self.effects.apply(dial.strike(name, "after"), call, reply) or reply


def _check_named(operation: Operation, request: HttpRequest) -> None:
    """Method, path, action and version. Source: contract sections 3.1 and 3.4."""
    if request.method not in {"GET", "POST"}:
        raise KmsError("UnsupportedHTTPMethod", layer="gateway")
    for name, header in (("Action", "x-acs-action"), ("Version", "x-acs-version")):
        if not request.headers.get(header):
            raise KmsError("MissingParameter", layer="gateway", variables={"name": name})
    if request.path != "/" or operation is UNKNOWN_OPERATION or request.headers["x-acs-version"] != API_VERSION:
        raise KmsError("InvalidAction.NotFound", layer="gateway")

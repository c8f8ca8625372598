"""From an HTTP request to its reply: who asks, for what, within which quota, with which fault.

Order: method, path, action and version → authentication → quota → faults before → operation → faults after.
"""

import logging
from collections.abc import Callable

from kms_emulator.authentication import Authenticator
from kms_emulator.call_record import CallRecord, LoggedCall
from kms_emulator.errors import KmsError
from kms_emulator.faults import Fault
from kms_emulator.kms import Kms
from kms_emulator.operation import API_VERSION, Call, Operation
from kms_emulator.operations import OPERATIONS, UNKNOWN_OPERATION
from kms_emulator.wire import HttpReply, HttpRequest, broken_reply, error_reply, success_reply

_log = logging.getLogger(__name__)


class Gateway:
    """Answers requests for one Kms. `wait` sleeps for a delay fault and may return early at shutdown."""

    def __init__(self, kms: Kms, wait: Callable[[float], object]) -> None:
        self.record = CallRecord()
        self._kms = kms
        self._wait = wait
        self._authenticator = Authenticator(kms.settings.access_keys)

    def answer(self, request: HttpRequest) -> tuple[HttpReply, LoggedCall]:
        """The reply, and what the call log says of it; never raises."""
        call = Call(OPERATIONS.get(request.headers.get("x-acs-action", ""), UNKNOWN_OPERATION))
        if call.operation is not UNKNOWN_OPERATION:
            self.record.count(call.operation.name)
        reply = self._reply(call, request)
        status = 0 if reply.transport == "dropped" else reply.status
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
        faults = self._kms.faults
        broken = self._broken(faults.strike(call.operation.name, "before"), success_reply({}))
        if broken is not None:
            return broken
        reply = self._perform(call)
        return self._broken(faults.strike(call.operation.name, "after"), reply) or reply

    def _perform(self, call: Call) -> HttpReply:
        try:
            return success_reply(self._kms.execute(call))
        except KmsError as error:
            return error_reply(error)
        except Exception:  # noqa: BLE001 -- a defect of ours is answered like one of the KMS
            _log.exception("the emulator failed in %s", call.operation.name)
            return error_reply(KmsError("InternalFailure"))

    def _broken(self, faults: list[Fault], reply: HttpReply) -> HttpReply | None:
        """What the faults make of `reply`; None when they do no more than delay it."""
        broken = None
        for fault in faults:
            if fault.action == "delay":
                self._wait(fault.delay_seconds)
            else:
                broken = broken or broken_reply(fault, reply)
        return broken


def _check_named(operation: Operation, request: HttpRequest) -> None:
    """Method, path, action and version. Source: contract sections 3.1 and 3.4."""
    if request.method not in {"GET", "POST"}:
        raise KmsError("UnsupportedHTTPMethod", layer="gateway")
    for name, header in (("Action", "x-acs-action"), ("Version", "x-acs-version")):
        if not request.headers.get(header):
            raise KmsError("MissingParameter", layer="gateway", variables={"name": name})
    if request.path != "/" or operation is UNKNOWN_OPERATION or request.headers["x-acs-version"] != API_VERSION:
        raise KmsError("InvalidAction.NotFound", layer="gateway")

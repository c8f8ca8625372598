"""Performing a call: its reply, whatever happens, and its two halves where checks and commit lie apart."""

import logging
from typing import NoReturn

from kms_emulator.errors import KmsError
from kms_emulator.kms import Kms
from kms_emulator.operation import Call, Commit
from kms_emulator.wire import HttpReply, error_reply, success_reply

_log = logging.getLogger(__name__)


def perform(kms: Kms, call: Call, commit: Commit | None = None) -> HttpReply:
    """Check and perform the call, or only `commit` it when it was checked before; never raises."""
    try:
        return success_reply(commit() if commit is not None else kms.execute(call))
    except KmsError as error:
        return error_reply(error)
    except Exception:  # noqa: BLE001 -- a defect of ours is answered like one of the KMS
        _log.exception("the emulator failed in %s", call.operation.name)
        return error_reply(KmsError("InternalFailure"))


def checked_before(kms: Kms, call: Call) -> Commit:
    """Check the call now; its commit, which raises the KmsError when a check has failed."""
    try:
        return kms.check(call)
    except KmsError as error:
        return _refusing(error)


def _refusing(error: KmsError) -> Commit:
    def refuse() -> NoReturn:
        raise error

    return refuse

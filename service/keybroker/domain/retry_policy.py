"""Which request to the KMS is worth sending again after what happened to it, and after which wait. One table.

`ONE_CALL` is what the adapter repeats inside one call of ports.Kms: reads, and changes of which it is certain that
nothing was done. GetParametersForImport is among the reads: repeated after a lost reply it makes a second pair, which
nobody uses and which can do no harm while the CMK is claimed. ImportKeyMaterial and CreateKey are not in it at all:
each send of those is recorded before it leaves. `RECORDED` tells the use cases whether a next recorded send makes sense
at all: of the identical key material after anything that passes, of a CreateKey only where none can have been made.

Not here: refusals that stay what they are (state, permission, form), an instance that is not ready (minutes, not
seconds), and refused credentials (adapters/kms/client.py renews them). Source: contract 1.12 and 3.4; rule R2.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum, auto

from keybroker.domain.errors import KmsError, Reason

MAX_TRIES = 5  # as the vendor's own clients: contract 3.4
BASE_WAIT_SECONDS = 0.1
MAX_WAIT_SECONDS = 2.0


class Happened(StrEnum):
    """What became of a request that failed."""

    THROTTLED = auto()  # refused, and it may pass
    NEVER_CONNECTED = auto()  # not sent
    CONNECTION_BROKE = auto()
    TIMED_OUT = auto()
    SERVER_ERROR = auto()
    DELIVERED_TWICE = auto()  # SignatureNonceUsed: some copy of it was served, and its answer is lost
    UNREADABLE = auto()
    FINAL = auto()  # an answer that will be the same next time, or a request that the broker did not want to send


_NOTHING_DONE = frozenset({Happened.THROTTLED, Happened.NEVER_CONNECTED})
_ANYTHING_THAT_PASSES = frozenset(Happened) - {Happened.FINAL}

ONE_CALL: Mapping[str, frozenset[Happened]] = {
    "DescribeKey": _ANYTHING_THAT_PASSES,
    "ListKeys": _ANYTHING_THAT_PASSES,
    "ListResourceTags": _ANYTHING_THAT_PASSES,
    "Encrypt": _ANYTHING_THAT_PASSES,
    "GetParametersForImport": _ANYTHING_THAT_PASSES,
    "CreateAlias": _NOTHING_DONE,
    "ScheduleKeyDeletion": _NOTHING_DONE,
    "CancelKeyDeletion": _NOTHING_DONE,
    "ImportKeyMaterial": frozenset(),
    "CreateKey": frozenset(),
}
RECORDED: Mapping[str, frozenset[Happened]] = {
    **ONE_CALL,
    "ImportKeyMaterial": _ANYTHING_THAT_PASSES,
    "CreateKey": _NOTHING_DONE,
}

_BY_KMS_CODE = {
    "timeout": Happened.TIMED_OUT,
    "unreadable": Happened.UNREADABLE,
    "SignatureNonceUsed": Happened.DELIVERED_TWICE,
}


def what_happened(error: KmsError) -> Happened:
    """The row of the tables for an error."""
    if error.reason is Reason.KMS_THROTTLED:
        return Happened.THROTTLED
    if error.reason not in {Reason.KMS_UNAVAILABLE, Reason.KMS_RESPONSE_INVALID}:
        return Happened.FINAL
    if error.kms_code == "connection":
        return Happened.NEVER_CONNECTED if error.committed_nothing else Happened.CONNECTION_BROKE
    return _BY_KMS_CODE.get(error.kms_code, Happened.SERVER_ERROR)


def may_repeat(operation: str, error: KmsError) -> bool:
    """Whether one call may send `operation` again on its own."""
    return what_happened(error) in ONE_CALL[operation]


def may_send_again(operation: str, error: KmsError) -> bool:
    """Whether another send makes sense, where each is recorded first. ImportKeyMaterial: of the identical material."""
    return what_happened(error) in RECORDED[operation]


def wait_seconds(attempt: int, error: KmsError, rng: Callable[[], float]) -> float:
    """How long to wait before send number `attempt` + 1 (`attempt` counts from 1): full jitter, exponential.

    Never less than what the KMS or the broker's circuit asked for in `retry_after_seconds`; the jitter comes on top,
    or all who were told the same second would come back in it. `rng` gives numbers in [0, 1).
    """
    ceiling = min(MAX_WAIT_SECONDS, BASE_WAIT_SECONDS * 2.0 ** min(attempt - 1, 16))
    return (error.retry_after_seconds or 0.0) + ceiling * rng()

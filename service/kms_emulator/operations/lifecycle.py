"""Enable, disable, schedule and cancel deletion. Source: contract sections 1.6, 1.9 and 6."""

from datetime import timedelta

from kms_emulator.keys import EXTERNAL, KeyState
from kms_emulator.kms import Kms
from kms_emulator.operation import Call, KeyReference, Operation, Parameter

MIN_WINDOW_DAYS = 7
MAX_WINDOW_DAYS = 366

_KEY_ID = Parameter("KeyId", required=True)


def _enable_key(kms: Kms, call: Call) -> dict[str, object]:
    with kms.target(call) as key:
        key.state = KeyState.ENABLED
    return {}


def _disable_key(kms: Kms, call: Call) -> dict[str, object]:
    with kms.target(call) as key:
        key.state = KeyState.DISABLED
    return {}


def _schedule_key_deletion(kms: Kms, call: Call) -> dict[str, object]:
    days = call.integer("PendingWindowInDays", 0, low=MIN_WINDOW_DAYS, high=MAX_WINDOW_DAYS)
    with kms.target(call) as key:
        key.state = KeyState.PENDING_DELETION
        key.delete_at = kms.clock.now() + timedelta(days=days)
    return {}


def _cancel_key_deletion(kms: Kms, call: Call) -> dict[str, object]:
    with kms.target(call) as key:
        empty = key.origin == EXTERNAL and key.material is None
        key.state = KeyState(kms.readings.cancel_empty_key_state) if empty else KeyState.ENABLED
        key.delete_at = None
    return {}


LIFECYCLE_OPERATIONS = (
    Operation(
        name="EnableKey",
        handler=_enable_key,
        quota="write",
        source="1.9",
        key_reference=KeyReference.ID_ONLY,
        parameters=(_KEY_ID,),
    ),
    Operation(
        name="DisableKey",
        handler=_disable_key,
        quota="write",
        source="1.9",
        key_reference=KeyReference.ID_ONLY,
        parameters=(_KEY_ID,),
    ),
    Operation(
        name="ScheduleKeyDeletion",
        handler=_schedule_key_deletion,
        quota="write",
        source="1.6",
        key_reference=KeyReference.ID_ONLY,
        parameters=(
            _KEY_ID,
            Parameter(
                "PendingWindowInDays",
                required=True,
                note=f"{MIN_WINDOW_DAYS} to {MAX_WINDOW_DAYS}, as the SDK says; older pages say 7 to 30, optional",
            ),
        ),
        note="The CMK is gone when the window has passed by the emulator's clock.",
    ),
    Operation(
        name="CancelKeyDeletion",
        handler=_cancel_key_deletion,
        quota="write",
        source="1.6",
        key_reference=KeyReference.ID_ONLY,
        parameters=(_KEY_ID,),
        note="What becomes of a CMK without material is the reading cancel_empty_key_state.",
    ),
)

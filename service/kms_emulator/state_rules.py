"""Which operation is legal in which state of a CMK: the table of contract section 6, cell by cell."""

from collections.abc import Mapping
from dataclasses import dataclass

from kms_emulator.errors import KmsError
from kms_emulator.keys import KeyState
from kms_emulator.standing import Standing

OK = ""
DISABLED = "Rejected.Disabled"
DELETION = "Rejected.PendingDeletion"
IMPORT = "Rejected.PendingImport"
MODIFIED = "Rejected.StateModifiedFailed"

COLUMNS = (KeyState.ENABLED, KeyState.DISABLED, KeyState.PENDING_DELETION, KeyState.PENDING_IMPORT)


@dataclass(frozen=True, slots=True)
class StateRule:
    """One row: the error code for each state in the order of COLUMNS; OK where the operation is legal."""

    operation: str
    codes: tuple[str, str, str, str]
    standing: Standing = Standing.DOCUMENTED


# fmt: off
#                                    Enabled   Disabled  PendingDeletion PendingImport
STATE_TABLE: tuple[StateRule, ...] = (
    StateRule("Encrypt",                (OK,       DISABLED, DELETION,       IMPORT)),
    StateRule("Decrypt",                (OK,       DISABLED, DELETION,       IMPORT)),
    StateRule("DescribeKey",            (OK,       OK,       OK,             OK)),
    StateRule("ListResourceTags",       (OK,       OK,       OK,             OK)),
    StateRule("ListAliasesByKeyId",     (OK,       OK,       OK,             OK), Standing.INFERRED),
    StateRule("EnableKey",              (OK,       OK,       MODIFIED,       MODIFIED)),
    StateRule("DisableKey",             (OK,       OK,       MODIFIED,       MODIFIED)),
    StateRule("ScheduleKeyDeletion",    (OK,       OK,       MODIFIED,       OK)),
    StateRule("CancelKeyDeletion",      (MODIFIED, MODIFIED, OK,             MODIFIED)),
    StateRule("CreateAlias",            (OK,       OK,       MODIFIED,       OK)),
    StateRule("UpdateAlias",            (OK,       OK,       DELETION,       OK)),
    StateRule("TagResource",            (OK,       OK,       DELETION,       OK)),
    StateRule("TagResources",           (OK,       OK,       DELETION,       OK), Standing.INFERRED),
    StateRule("GetParametersForImport", (OK,       OK,       OK,             OK)),
    StateRule("ImportKeyMaterial",      (OK,       OK,       MODIFIED,       OK)),
    StateRule("DeleteKeyMaterial",      (OK,       OK,       OK,             OK)),
)
# fmt: on

_CODES: Mapping[tuple[str, KeyState], str] = {
    (rule.operation, state): code for rule in STATE_TABLE for state, code in zip(COLUMNS, rule.codes, strict=True)
}


def check_state(operation: str, state: KeyState) -> None:
    """Raise the table's 409 when `operation` is not legal in `state`. Source: contract section 6."""
    code = _CODES[operation, state]
    if code:
        raise KmsError(code)

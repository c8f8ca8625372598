"""The events of the audit log: one before each change, one when it is known what came of it.

Their fields are built here from the row, so that what is told is what the ledger holds: who, what, for which CMK, with
which outcome and evidence. Key material, import tokens and wrapped key material are in none. How events become lines
of a chain is adapters/audit's. The fields are described in docs/audit.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from uuid import uuid4

from keybroker.domain.attempt import ENDS, Attempt, Kind, State
from keybroker.domain.errors import BrokerError, Reason
from keybroker.domain.external_key import CmkName, ExternalKey, NewKey
from keybroker.domain.key_check_value import KeyCheckValue

Value = str | int | bool


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One event. `id` is the same if it is written twice. `fields` are flat, named as in docs/audit.md."""

    id: str
    fields: Mapping[str, Value]


class Change(StrEnum):
    """What is changed: one request of the KMS, or several for the same aim."""

    CREATE = "create"
    CREATE_ALIAS = "create_alias"
    IMPORT = "import"
    IMPORT_WRAPPED = "import_wrapped"
    SCHEDULE_DELETION = "schedule_deletion"
    CANCEL_DELETION = "cancel_deletion"
    DELETE_ORPHAN = "delete_orphan"


_OUTCOME_UNKNOWN = {Reason.CHANGE_OUTCOME_UNKNOWN, Reason.INTERNAL}
_CHANGES = {Kind.IMPORT: Change.IMPORT, Kind.IMPORT_WRAPPED: Change.IMPORT_WRAPPED, Kind.CREATE: Change.CREATE}


def before_create(row: Attempt, new_key: NewKey) -> AuditEvent:
    """A CreateKey is about to be sent."""
    about = {"key_spec": new_key.spec.kms_name, "alias": new_key.alias}
    return _event("before", {"change": Change.CREATE.value, **_who(row), **about})


def before_import(row: Attempt, key: ExternalKey, *, algorithm: str, entropy_source: str) -> AuditEvent:
    """A CMK is held for an import; nothing was fetched, generated or sent for it by this attempt."""
    fields = {"change": _CHANGES[row.kind].value, **_who(row), **_cmk(key.name, key.arn)}
    spec = key.spec.kms_name if key.spec else ""
    return _event(
        "before", {**fields, "key_spec": spec, "wrapping_algorithm": algorithm, "entropy_source": entropy_source}
    )


def before_resend(row: Attempt) -> AuditEvent:
    """Material is about to be sent again that was first sent while nothing was audited."""
    cmk = _cmk(row.cmk, "") if row.cmk else {}
    about = {"wrapping_algorithm": row.algorithm, "entropy_source": row.entropy_source}
    return _event("before", {"change": _CHANGES[row.kind].value, **_who(row), **cmk, **about})


def after(row: Attempt) -> AuditEvent | None:
    """What came of a change, from the row that says so.

    None while it is under way, for one that could not be announced and so was not begun, and for a row that only holds
    a CMK while a CmkChange goes on.
    """
    unannounced = row.failure is not None and row.failure.reason == Reason.AUDIT_UNAVAILABLE
    if row.state not in ENDS or unannounced or row.kind is Kind.DELETE_ORPHAN:
        return None
    fields = _after_import(row) if row.cmk else _after_create(row)
    at = {"at": row.updated_at.isoformat()} if row.updated_at else {}
    return _event("after", {**fields, **_reason(row), **at})


def _after_create(row: Attempt) -> dict[str, Value]:
    key_id = row.creation.key_id if row.creation else ""
    outcome = "CREATED" if key_id else "NOT_CREATED"
    fields = {"change": Change.CREATE.value, "outcome": outcome, **_who(row), "key_id": key_id}
    return {**fields, "kms_request_id": row.kms_request_id}


def _after_import(row: Attempt) -> dict[str, Value]:
    fields: dict[str, Value] = {"change": _CHANGES[row.kind].value, "outcome": row.state.value, **_who(row)}
    if row.cmk is not None:
        fields |= _cmk(row.cmk, row.key.arn if row.key else "")
    known = row.state is State.IMPORTED and row.check_value
    return fields | {
        "wrapping_algorithm": row.algorithm,
        "entropy_source": row.entropy_source,
        "evidence": row.evidence.value if row.evidence else "",
        "check_value": str(KeyCheckValue(row.check_value)) if known else "",
        "kms_request_id": row.kms_request_id,
        "sends": row.sends,
        "refused": row.refused,
    }


def _reason(row: Attempt) -> dict[str, Value]:
    """Why it failed, and the RequestId of the KMS's answer that said so."""
    if row.failure is None:
        return {}
    refusal = dict(row.failure.metadata).get("kms_request_id", "")
    return {"reason": row.failure.reason, "refusal_kms_request_id": refusal}


@dataclass(frozen=True, slots=True)
class CmkChange:
    """A change of a CMK which no row is about: its alias or its deletion. Its two events have a record id of their own.

    `days`: the waiting period of a deletion.
    """

    change: Change
    caller: str
    request_id: str
    region: str
    dkms_instance_id: str
    cmk: CmkName
    arn: str
    alias: str = ""
    days: int = 0

    def before(self, record_id: str) -> AuditEvent:
        """It is about to be sent."""
        return _event("before", self._fields(record_id) | ({"days": self.days} if self.days else {}))

    def after(self, record_id: str, outcome: str, *, kms_request_id: str = "") -> AuditEvent:
        """DONE, or UNKNOWN."""
        fields = self._fields(record_id) | {"outcome": outcome, "kms_request_id": kms_request_id}
        return AuditEvent(f"{record_id}:after", _without_empty({"event": "after", **fields}))

    def after_failure(self, record_id: str, error: BrokerError) -> AuditEvent:
        """REFUSED if it provably was not done, else UNKNOWN."""
        outcome = "UNKNOWN" if error.reason in _OUTCOME_UNKNOWN else "REFUSED"
        why = {"reason": error.reason.value, "refusal_kms_request_id": error.metadata.get("kms_request_id", "")}
        fields = self._fields(record_id) | {"outcome": outcome, **why}
        return AuditEvent(f"{record_id}:after", _without_empty({"event": "after", **fields}))

    def _fields(self, record_id: str) -> dict[str, Value]:
        who = _names(record_id, self.caller, self.request_id, self.region, self.dkms_instance_id)
        return {"change": self.change.value, **who, **_cmk(self.cmk, self.arn), "alias": self.alias}


def _who(row: Attempt) -> dict[str, Value]:
    return _names(row.record_id, row.caller, row.request_id, row.region, row.dkms_instance_id)


def _names(record_id: str, caller: str, request_id: str, region: str, dkms_instance_id: str) -> dict[str, Value]:
    return {
        "record_id": record_id,
        "caller": caller,
        "request_id": request_id,
        "region": region,
        "dkms_instance_id": dkms_instance_id,
    }


def _cmk(cmk: CmkName, arn: str) -> dict[str, Value]:
    return {"key_id": cmk.key_id, "account": cmk.account, "arn": arn}


def _event(kind: str, fields: Mapping[str, Value]) -> AuditEvent:
    return AuditEvent(str(uuid4()), _without_empty({"event": kind, **fields}))


def _without_empty(fields: Mapping[str, Value]) -> dict[str, Value]:
    return {name: value for name, value in fields.items() if value != ""}

"""What the probe asks, what it saw, and what that says: values without behaviour, and the one table of questions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

COULD_NOT_TELL = "could_not_tell"


class Outcome(StrEnum):
    """What one request came to. UNCLEAR: no answer, a failure, a throttled or unauthorised request."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One request and its answer: never a body, never a parameter. Instants are of the monotonic clock, in seconds.

    `code` is the KMS's own word, "" on success, or "timeout", "connection", "unreadable" where there is none.
    """

    operation: str
    what: str
    outcome: Outcome
    http_status: int | None
    code: str
    request_id: str
    sent_at: float
    answered_at: float


@dataclass(frozen=True, slots=True)
class Interval:
    """A duration that was bracketed by observations, in seconds; `at_most` None: it was not seen to end."""

    at_least: float
    at_most: float | None


Position = bool | str | int | Interval


@dataclass(frozen=True, slots=True)
class Question:
    """One open point of the contract. `emulator` says which switch or fixed behaviour of the emulator stands for it."""

    title: str
    contract: str
    emulator: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An observation. `readings` are the emulator's switches in the position that was seen.

    `emulator_agrees` is for what the emulator has no switch for, and False too where no position of a switch fits.
    `measured` holds numbers that are nobody's switch.
    """

    question: str
    verdict: str
    detail: str
    evidence: tuple[Evidence, ...] = ()
    readings: Mapping[str, Position] = field(default_factory=dict)
    emulator_agrees: bool | None = None
    measured: Mapping[str, int | Interval] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ThrowawayReport:
    """One CMK the probe made, as it was left."""

    key_id: str
    deletion_scheduled: bool
    state: str
    delete_at: str


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a run saw. `ended` is "completed", or why it ended early."""

    instance: str
    region: str
    dkms_instance_id: str
    run_id: str
    started_at: datetime
    finished_at: datetime
    ended: str
    calls: int
    answers: tuple[Answer, ...]
    cmks: tuple[ThrowawayReport, ...]
    unaccounted: tuple[str, ...]  # descriptions of CMKs that may exist and were not found

    @property
    def clean(self) -> bool:
        """Whether nothing was left behind that is not scheduled for deletion."""
        return not self.unaccounted and all(cmk.deletion_scheduled for cmk in self.cmks)


QUESTIONS: Mapping[str, Question] = {
    "same_material_reimport": Question(
        "May the bound material be imported again?", "9.1", "switch same_material_reimport"
    ),
    "different_material": Question(
        "Is other material refused once a CMK is bound?", "9.1", "refused with 400 InvalidKeyMaterial"
    ),
    "delete_key_material": Question(
        "Is DeleteKeyMaterial refused on the instance?", "9.2", "refused with 400 Rejected.UnsupportedOperation"
    ),
    "import_token_length": Question("How long is an import token?", "9.3", "about 100 characters"),
    "older_token": Question(
        "Is an import token valid after a newer GetParametersForImport?", "9.4", "switch newest_token_only"
    ),
    "cancel_empty_key": Question(
        "What does CancelKeyDeletion make of a CMK without material?", "9.5", "switch cancel_empty_key_state"
    ),
    "expiry_absent": Question("Is an import without KeyMaterialExpireUnix accepted?", "9.6", "accepted"),
    "expiry_set": Question("Is an import with an expiry accepted?", "9.6", "accepted, and shown by DescribeKey"),
    "enabled_after_import": Question(
        "How late does DescribeKey show Enabled?", "9.7", "switches enabled_lag_seconds, enabled_lag_describes"
    ),
    "tag_filters": Question("Does ListKeys apply tag filters?", "1.7", "switch tag_filters_ignored"),
    "tag_filter_lag": Question("How late does a tag filter find a new CMK?", "1.7", "switch tag_filter_lag_seconds"),
    "encrypt_layout": Question(
        "Does an Encrypt blob open with the material, in the documented layout?", "1.10", "it does"
    ),
    "form_body": Question("Are parameters in a form body accepted?", "3.1", "accepted"),
    "clock_skew": Question("How far apart are this clock and the KMS's?", "3.4", "the setting clock_offset_seconds"),
}


def could_not_tell(question: str, why: str, *evidence: Evidence) -> Answer:
    """The answer where nothing was proved."""
    return Answer(question, COULD_NOT_TELL, why, evidence)


def utc_text(instant: datetime | None) -> str:
    """`YYYY-MM-DDThh:mm:ssZ`; empty for None."""
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ") if instant else ""

"""The CMKs a run makes: at most three, each with a description and tags that say what it is, each to be deleted.

A CMK counts as possibly made from before its CreateKey is sent until its id, or a proof that there is none, is in hand.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass

from keybroker.adapters.kms.replies import read_key
from keybroker.domain.errors import KmsError
from keybroker.domain.external_key import ORIGIN_EXTERNAL, CmkName, ExternalKey, KeyState
from keybroker.domain.key_spec import AES_256
from keybroker.probe.course import Course, ProbeStopped
from keybroker.probe.findings import Evidence, ThrowawayReport, utc_text
from keybroker.probe.kms_calls import Exchange, KmsCalls
from keybroker.probe.search import Filters, Search

MAX_CMKS = 3
PENDING_WINDOW_DAYS = 7
SPEC = AES_256
PURPOSE_TAG = ("purpose", "keybroker-probe")
RUN_TAG = "keybroker-probe-run"
_SCHEDULE_TRIES = 6
_SEARCH_ROUNDS = 3
_SEARCH_PAUSE_SECONDS = 5.0


class CannotTell(Exception):  # noqa: N818  # an answer, not an error
    """A step can't go on. `why` is for the report; `evidence` is what it saw."""

    def __init__(self, why: str, *evidence: Evidence) -> None:
        super().__init__(why)
        self.why = why
        self.evidence = evidence


@dataclass(frozen=True, slots=True)
class Cmk:
    """A throwaway CMK, and the CreateKey that made it."""

    name: CmkName
    created: Evidence


class Throwaways:
    """Makes CMKs and schedules the deletion of every one of them."""

    def __init__(  # noqa: PLR0913  # what it is made of
        self,
        *,
        calls: KmsCalls,
        course: Course,
        run_id: str,
        region: str,
        dkms_instance_id: str,
        say: Callable[[str], None],
    ) -> None:
        self._calls = calls
        self._course = course
        self._run_id = run_id
        self._region = region
        self._dkms_instance_id = dkms_instance_id
        self._say = say
        self._search = Search(calls, region=region, dkms_instance_id=dkms_instance_id)
        self._reports: dict[str, ThrowawayReport] = {}
        self._unaccounted: list[str] = []
        self._made = 0

    @property
    def run_filters(self) -> Filters:
        """Filters of ListKeys for the CMKs of this run."""
        return {"TagKey": RUN_TAG, "TagValue": self._run_id}

    def create(self, purpose: str) -> Cmk:
        """A new CMK. Raises CannotTell, also when there may be one whose id is not known; ProbeStopped."""
        if self._unaccounted or self._made == MAX_CMKS:
            raise CannotTell("no further CMK is made" + (" while one is unaccounted for" if self._unaccounted else ""))
        self._course.check()
        self._made += 1
        description = f"keybroker probe-kms run {self._run_id} CMK {self._made}: throwaway, its deletion is harmless"
        self._unaccounted.append(description)
        try:
            exchange = self._calls.call("CreateKey", self._parameters(description), what=f"a CMK for {purpose}")
        except ProbeStopped:  # raised only where every request sent was refused
            self._unaccounted.remove(description)
            raise
        name = self._name_of(exchange, description)
        if name is None:
            raise CannotTell("CreateKey did not give a CMK", exchange.evidence)
        return Cmk(name, exchange.evidence)

    def clean_up(self) -> None:
        """Schedules the deletion of every CMK, those too that have to be found first. See `reports`."""
        self._course.begin_clean_up()
        try:
            self._delete_all()
            for description in self.unaccounted:
                self._look_again(description)
            self._delete_all()
        except ProbeStopped:
            self._say("the time for cleaning up is over")

    @property
    def reports(self) -> tuple[ThrowawayReport, ...]:
        """Every CMK that was made, as it was last seen."""
        return tuple(self._reports.values())

    @property
    def unaccounted(self) -> tuple[str, ...]:
        """Descriptions of CMKs that may exist and were not found."""
        return tuple(self._unaccounted)

    def _parameters(self, description: str) -> dict[str, str]:
        tags = [{"TagKey": name, "TagValue": value} for name, value in (PURPOSE_TAG, (RUN_TAG, self._run_id))]
        return {
            "Origin": ORIGIN_EXTERNAL,
            "KeySpec": SPEC.kms_name,
            "DKMSInstanceId": self._dkms_instance_id,
            "Description": description,
            "Tags": json.dumps(tags, separators=(",", ":")),
        }

    def _name_of(self, exchange: Exchange, description: str) -> CmkName | None:
        if exchange.accepted:
            try:
                return self._account_for(read_key(exchange.body, region=self._region), description)
            except KmsError:
                pass
        elif exchange.committed_nothing:
            self._unaccounted.remove(description)
            return None
        key = self._find(description)
        return None if key is None else self._account_for(key, description)

    def _account_for(self, key: ExternalKey, description: str) -> CmkName:
        key_id = key.name.key_id
        self._reports[key_id] = ThrowawayReport(key_id, deletion_scheduled=False, state="unknown", delete_at="")
        self._unaccounted.remove(description)
        self._say(f"made throwaway CMK {key_id}")
        return key.name

    def _find(self, description: str) -> ExternalKey | None:
        waiting = {"DKMSInstanceId": self._dkms_instance_id, "KeyState": "PendingImport"}
        return self._search.find(description, [{**self.run_filters, **waiting}, waiting])

    def _look_again(self, description: str) -> None:
        """Several times: a list of the KMS may be late."""
        for _ in range(_SEARCH_ROUNDS):
            key = self._find(description)
            if key is not None:
                self._account_for(key, description)
                return
            self._course.wait(_SEARCH_PAUSE_SECONDS)

    def _delete_all(self) -> None:
        """Round after round, so that one CMK that can't be scheduled takes no time from the others."""
        for tries in range(_SCHEDULE_TRIES):
            left = [report.key_id for report in self.reports if not report.deletion_scheduled]
            if not left:
                return
            self._course.wait(2**tries - 1)
            for key_id in left:
                parameters = {"KeyId": key_id, "PendingWindowInDays": str(PENDING_WINDOW_DAYS)}
                self._calls.call("ScheduleKeyDeletion", parameters, what="clean up")
                self._reports[key_id] = self._seen(key_id)

    def _seen(self, key_id: str) -> ThrowawayReport:
        """Only DescribeKey's word counts: an answer to ScheduleKeyDeletion may be lost, or said too early."""
        exchange = self._calls.call("DescribeKey", {"KeyId": key_id}, what="see it scheduled for deletion")
        try:
            key = read_key(exchange.body, region=self._region)
        except KmsError:
            return ThrowawayReport(key_id, deletion_scheduled=False, state="unknown", delete_at="")
        scheduled = key.state is KeyState.PENDING_DELETION and key.name.key_id == key_id
        return ThrowawayReport(key_id, scheduled, str(key.state), utc_text(key.delete_at))

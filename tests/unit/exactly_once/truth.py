"""What was told and recorded, held against what is: the invariants of the import protocol, checked from outside.

S1 to S5 are the protocol's names. "Broken" is collected, because the code under test catches what is raised inside it.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass

from keybroker.adapters.ledger.sqlite import SqliteLedger
from keybroker.domain.attempt import Attempt, Evidence, Kind, State
from keybroker.domain.errors import BrokerError, Reason
from keybroker.domain.external_key import CmkName
from keybroker.domain.import_protocol import is_expired
from keybroker.domain.key_check_value import key_check_value
from keybroker.usecases.answers import Answer
from tests.builders import ACCOUNT, REGION
from tests.unit.exactly_once.requests import Request
from tests.unit.exactly_once.watched_kms import WatchedKms

Identity = tuple[str, str]

SAYS_NOTHING = frozenset(
    {
        Reason.IMPORT_UNRESOLVED,
        Reason.IMPORT_IN_PROGRESS,
        Reason.ENABLED_UNATTRIBUTED,
        Reason.LEDGER_RESTORED,
        Reason.LEDGER_UNAVAILABLE,
        Reason.REQUEST_ID_REUSED,
        Reason.CREATE_OUTCOME_UNKNOWN,
        Reason.CHANGE_OUTCOME_UNKNOWN,
    }
)
"""Any other failure tells the caller that nothing of its request so far is bound, or will be."""


class Broken(AssertionError):  # noqa: N818  # reads as what it says
    """An invariant does not hold."""


@dataclass(frozen=True)
class Told:
    """A terminal answer."""

    state: str
    reason: str = ""
    key_id: str = ""
    check_value: bytes = b""
    evidence: Evidence | None = None


class Truth:
    """See the module."""

    def __init__(self, kms: WatchedKms, ledger: SqliteLedger, sole_importer: bool) -> None:  # noqa: FBT001
        self._kms = kms
        self._ledger = ledger
        self._sole_importer = sole_importer
        self.owners: dict[bytes, Identity] = {}
        self.kinds: dict[Identity, Kind] = {}
        self.was_restored = False
        self._denied: dict[Identity, set[bytes]] = defaultdict(set)
        self._terminal: dict[Identity, Told] = {}
        self._rows: dict[Identity, Told] = {}
        self._imported: dict[Identity, Told] = {}  # told before the ledger was restored
        self._consents: Counter[Identity] = Counter()
        self.broken: list[str] = []
        self.outcomes: Counter[str] = Counter()
        self.last_told: dict[Identity, Told] = {}

    # What is told to it

    def generated(self, request: Request, material: bytes) -> None:
        """New key material, of this request's."""
        self.owners[material] = request.identity

    def consented(self, request: Request) -> None:
        """To one CMK more."""
        self._consents[request.identity] += 1

    def arrived(self, key_id: str, material: bytes) -> None:
        """Key material was sent: whatever becomes of it, no other may be on its way."""
        if self._kms.bound_material(key_id) is None:
            others = self._may_be_bound(key_id) - {material}
            self._hold(not others, f"S3: {key_id} gets material while {len(others)} other may still be bound")

    def fetched(self, cmk: CmkName) -> None:
        """The broker asked for a pair, and did not stand still since it saw that it may (see Site)."""
        row = self._ledger.holder(cmk)
        open_row = row is not None and row.state is State.PREPARED and row.open_sends and not row.restored
        if row is not None and open_row and not is_expired(row, self._kms.now()):
            self._hold(condition=False, what=f"L2: a new pair for {cmk.key_id} while a send is open")

    def deleted(self, key_id: str) -> None:
        """An orphan's deletion is scheduled."""
        bound = self._kms.bound_material(key_id)
        self._hold(bound not in self.owners, f"{key_id} was deleted although this broker's material is bound")

    def restored(self) -> None:
        """The ledger is an older copy: rows are gone or older. Terminal answers may be undone, but never contradicted.

        Source: the page of the import protocol, "After a restore".
        """
        self.was_restored = True
        self._imported |= {who: told for who, told in self._terminal.items() if told.state == State.IMPORTED}
        self._terminal.clear()
        self._rows.clear()

    def told(self, request: Request, outcome: Answer | BrokerError) -> None:
        """What the caller was told."""
        who = request.identity
        self.kinds[who] = request.kind
        told = self.last_told[who] = _told(outcome)
        self.outcomes[told.state if isinstance(outcome, Answer) else told.reason] += 1
        before = self._terminal.get(who)
        if before is not None and told.reason not in _NO_ANSWER:
            self._hold(told == before, f"S4: {request.name} was told {before}, then {told}")
        if isinstance(outcome, Answer):
            if request.kind is not Kind.CREATE:
                self._check_imported(request, outcome.attempt)
        elif outcome.reason not in SAYS_NOTHING:
            self._denied_by(request, outcome)
        self._check_after_restore(request, told)
        if self._is_terminal(request, outcome):
            self._terminal.setdefault(who, told)

    # What it looks at after each event

    def look(self) -> None:
        """Raises Broken, with everything that does not hold."""
        for key_id in self._kms.key_ids:
            self._look_at_cmk(key_id)
        self._look_at_rows()
        creations = Counter(self._kms.created_with.values())
        for caller, request_id in self.kinds:
            allowed = 1 + self._consents[caller, request_id]
            made = creations[self._ledger.tag(caller, request_id)]
            excused = self.was_restored  # its CreateKeys are forgotten with its row
            self._hold(made <= allowed or excused, f"CMKs: {made} were created for one request, {allowed} allowed")
        if self.broken:
            raise Broken("; ".join(self.broken))

    def _look_at_cmk(self, key_id: str) -> None:
        bound = self._kms.bound_material(key_id)
        live = self._kms.live(key_id)
        for who, materials in self._denied.items():
            self._hold(bound not in materials, f"S2: {who} was told that nothing was imported: it is bound")
            self._hold(not live & materials, f"S2: {who} was told that nothing was imported: it may still be")
        accepted = {material for key, material in self._kms.told_accepted if key == key_id}
        self._hold(len(accepted) <= 1, f"{key_id} accepted {len(accepted)} materials")

    def _look_at_rows(self) -> None:
        for row in self.rows():
            who = (row.caller, row.request_id)
            if row.state in {State.IMPORTED, State.ENABLED_UNATTRIBUTED, State.NOT_IMPORTED, State.ALREADY_BOUND}:
                told = Told(row.state, "", row.cmk.key_id if row.cmk else "", row.check_value, row.evidence)
                before = self._rows.setdefault(who, told)
                self._hold(told == before, f"S4: the row of {who} was {before}, is {told}")
                evident = row.state is State.IMPORTED and row.evidence is not None
                self._hold(evident or not row.check_value, f"S5: {who} has a check value without evidence")
            made_with = self._kms.created_with.get(row.creation.key_id) if row.creation else None
            if row.creation and row.creation.key_id:
                self._hold(made_with == row.creation.tag, f"adopted: the CMK of {who} was not made for it")

    def rows(self) -> list[Attempt]:
        """All that the ledger holds of the requests that were made."""
        found = [self._ledger.find(*who) for who in self.kinds]
        return [row for row in found if row is not None]

    # Inside

    def _check_imported(self, request: Request, row: Attempt) -> None:
        key_id = row.cmk.key_id if row.cmk else ""
        bound = self._kms.bound_material(key_id) or b""
        self._hold(
            self.owners.get(bound) == request.identity, f"S1: {request.name} is IMPORTED, {key_id} has other material"
        )
        if request.kind is Kind.IMPORT:
            right = bool(bound) and row.check_value == key_check_value(bound).value
            self._hold(right, f"S1: {request.name} was told the check value of other material")
        proved = {
            Evidence.ACCEPTED: (key_id, bound) in self._kms.told_accepted,
            Evidence.PROVED: key_id in self._kms.encrypted_for,
            Evidence.SOLE_IMPORTER: self._sole_importer,
            None: False,
        }[row.evidence]
        self._hold(proved, f"S5: {request.name} is IMPORTED by {row.evidence}, which nobody has")

    def _denied_by(self, request: Request, error: BrokerError) -> None:
        """Material of the caller's own may come again in a repeat, so that only a terminal answer denies it."""
        final = self._is_terminal(request, error)
        if self.was_restored and not final:
            return
        mine = {material for material, owner in self.owners.items() if owner == request.identity}
        if request.kind is Kind.IMPORT or final:
            self._denied[request.identity] |= mine
            return
        for key_id in self._kms.key_ids:
            bound = self._kms.bound_material(key_id)
            still = bound in mine or bool(self._kms.live(key_id) & mine)
            self._hold(not still, f"S2: {request.name} was told {error.reason}, but its material is or may be bound")

    def _check_after_restore(self, request: Request, told: Told) -> None:
        before = self._imported.get(request.identity)
        if before is None or not isinstance(request.target, int):
            return  # a CMK that was made for a forgotten request is forgotten too
        same = (told.state, told.key_id, told.check_value) == (before.state, before.key_id, before.check_value)
        self._hold(
            same or (told.state != State.IMPORTED and told.reason != Reason.KEY_MATERIAL_ALREADY_BOUND),
            f"S4: {request.name} was IMPORTED, after the restore it is told {told}",
        )

    def _is_terminal(self, request: Request, outcome: Answer | BrokerError) -> bool:
        if isinstance(outcome, Answer):
            return True
        if outcome.reason in _NO_ANSWER | {Reason.IMPORT_UNRESOLVED}:  # the write that ended it may be told as failed
            return False
        row = self._ledger.find(*request.identity)
        return outcome.reason is Reason.NOT_IMPORTED or (row is not None and row.is_terminal)

    def _may_be_bound(self, key_id: str) -> set[bytes]:
        """Material under way, and what a row is going to send again."""
        row = self._ledger.holder(CmkName(ACCOUNT, REGION, key_id))
        planned: set[bytes] = set()
        if (
            row is not None
            and row.state is State.PREPARED
            and not row.restored
            and not is_expired(row, self._kms.now())
        ):
            planned = {
                material
                for material, owner in self.owners.items()
                if owner == (row.caller, row.request_id) and row.check_value == key_check_value(material).value
            }
        return self._kms.live(key_id) | planned

    def _hold(self, condition: bool, what: str) -> None:  # noqa: FBT001  # an assertion
        if not condition and what not in self.broken:
            self.broken.append(what)


_NO_ANSWER = frozenset({Reason.IMPORT_IN_PROGRESS, Reason.LEDGER_UNAVAILABLE, Reason.REQUEST_ID_REUSED})
"""Told while others are at work, or when the ledger could not be asked."""


def _told(outcome: Answer | BrokerError) -> Told:
    if isinstance(outcome, BrokerError):
        return Told("", outcome.reason.value, outcome.metadata.get("key_id", ""))
    row = outcome.attempt
    key_id = row.cmk.key_id if row.cmk else row.creation.key_id if row.creation else ""
    return Told(row.state.value, "", key_id, row.check_value, row.evidence)

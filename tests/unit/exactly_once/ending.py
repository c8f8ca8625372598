"""The end of a run: faults stop, time passes, and everything has to come to an end (L1)."""

from keybroker.domain.attempt import UNFINISHED, State
from keybroker.domain.errors import Reason
from keybroker.domain.external_key import KeyState
from tests.unit.exactly_once.events import Event, What
from tests.unit.exactly_once.requests import importing
from tests.unit.exactly_once.site import Site
from tests.unit.exactly_once.truth import Broken

PAST_EXPIRY_SECONDS = 25 * 3600
SETTLING_SECONDS = 62
_LEFT_OPEN = frozenset({Reason.IMPORT_UNRESOLVED, Reason.IMPORT_IN_PROGRESS, Reason.LEDGER_RESTORED})


def converge(site: Site) -> None:
    """Raises Broken for a request that stays open, or a CMK that nobody can import into any more."""
    site.happen(Event(What.LAND))
    days = 2 if site.truth.was_restored else 1  # the first reply after a restore dates it, and a day goes by from there
    for seconds in (*(PAST_EXPIRY_SECONDS,) * days, SETTLING_SECONDS, SETTLING_SECONDS, SETTLING_SECONDS):
        site.happen(Event(What.MOVE, seconds))
        for process in range(len(site.processes)):
            site.happen(Event(What.RECOVER, process=process))
    left = [row for row in site.truth.rows() if row.state in UNFINISHED - {State.CREATING}]
    if left:
        raise Broken(f"L1: {[(row.request_id, row.state) for row in left]} stay unfinished")
    _ask_all(site)
    _import_everywhere(site)


def _ask_all(site: Site) -> None:
    """Everybody repeats, and hears how it ended. After a restore a day has to pass first, from the first question."""
    site.first = 0  # numbers mean all of them now
    known = [number for number, request in enumerate(site.requests) if request.identity in site.truth.kinds]
    for seconds in (*_waits(site), 0):
        for number in known:
            site.happen(Event(What.CALL, number))
        site.happen(Event(What.MOVE, seconds))
    for number in known:
        told = site.truth.last_told[site.requests[number].identity]
        deleted = bool(told.key_id) and site.kms.true_state(told.key_id) is KeyState.PENDING_DELETION
        if told.reason in _LEFT_OPEN and not deleted:
            raise Broken(f"L1: {site.requests[number].name} is still told {told.reason}")


def _import_everywhere(site: Site) -> None:
    """A CMK without material takes that of a new request."""
    empty = [key_id for key_id in site.kms.key_ids if site.kms.true_state(key_id) is KeyState.PENDING_IMPORT]
    site.key_ids = [*site.key_ids, *(key_id for key_id in empty if key_id not in site.key_ids)]
    for key_id in empty:
        request = importing(f"at the end, {key_id}", site.key_ids.index(key_id))
        site.requests.append(request)
        for seconds in (*_waits(site), 0):
            site.happen(Event(What.CALL, len(site.requests) - 1))
            site.happen(Event(What.MOVE, seconds))
        told = site.truth.last_told[request.identity]
        if told.state != State.IMPORTED:
            raise Broken(f"L1: {key_id} is free, and a new request for it is told {told.reason}")


def _waits(site: Site) -> tuple[int, ...]:
    """Between one question and the next: Enabled may show late, and a restored ledger waits for all to expire."""
    settled = (SETTLING_SECONDS, SETTLING_SECONDS)
    return (PAST_EXPIRY_SECONDS, *settled, SETTLING_SECONDS) if site.truth.was_restored else settled

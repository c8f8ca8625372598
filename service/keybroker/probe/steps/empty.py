"""CMKs without material: CancelKeyDeletion, and imports without and with an expiry. Contract 9.5, 9.6.

A refusal counts only with a control: another import of the same wrapped material into the same CMK that is accepted.
"""

from datetime import timedelta

from keybroker.domain.external_key import KeyState
from keybroker.probe.bench import NEVER, Bench
from keybroker.probe.findings import Answer, could_not_tell
from keybroker.probe.kms_calls import Exchange
from keybroker.probe.steps.visibility import watch_after_a_wait
from keybroker.probe.throwaways import PENDING_WINDOW_DAYS, CannotTell, Cmk

_CANCEL_PATIENCE_SECONDS = 10.0
_EXPIRY = timedelta(days=PENDING_WINDOW_DAYS + 1)  # after the CMK's own end: nothing expires while it lives
_USABLE = (KeyState.PENDING_IMPORT, KeyState.ENABLED)


def ask_cancel_empty_key(bench: Bench) -> list[Answer]:
    """Schedules the deletion of a new CMK and cancels it."""
    question = "cancel_empty_key"
    cmk = bench.throwaways.create("CancelKeyDeletion")
    asked = {"KeyId": cmk.name.key_id}
    window = asked | {"PendingWindowInDays": str(PENDING_WINDOW_DAYS)}
    scheduled = bench.calls.call("ScheduleKeyDeletion", window, what="of a CMK without material")
    if not scheduled.accepted:
        bench.spare, bench.spare_state = cmk, ""
        raise CannotTell("its deletion could not be scheduled for certain", scheduled.evidence)
    cancelled = bench.calls.call("CancelKeyDeletion", asked, what="of a CMK without material")
    state, described = _state_after_cancel(bench, cmk)
    evidence = (scheduled.evidence, cancelled.evidence, described.evidence)
    if state in _USABLE:
        bench.spare, bench.spare_state = cmk, state
        detail = f"the CMK is {state}"
        return [Answer(question, _word(state), detail, evidence, {"cancel_empty_key_state": str(state)})]
    if cancelled.refused:
        detail = f"CancelKeyDeletion is refused: {cancelled.evidence.code}"
        return [Answer(question, "refused", detail, evidence, emulator_agrees=False)]
    if state in {"", KeyState.PENDING_DELETION} or not cancelled.accepted:
        return [could_not_tell(question, f"the CMK's state after it: {state or 'not known'}", *evidence)]
    return [Answer(question, "other", f"the CMK is {state}", evidence, emulator_agrees=False)]


def _word(state: str) -> str:
    return "pending_import" if state == KeyState.PENDING_IMPORT else "enabled"


def _state_after_cancel(bench: Bench, cmk: Cmk) -> tuple[str, Exchange]:
    """The first state that is not PendingDeletion, within the patience for a late answer."""
    ends_at = bench.clock.monotonic() + _CANCEL_PATIENCE_SECONDS
    while True:
        key, exchange = bench.describe(cmk, what="the state after CancelKeyDeletion")
        state = "" if key is None else str(key.state)
        if state not in {"", KeyState.PENDING_DELETION} or bench.clock.monotonic() > ends_at:
            return state, exchange
        bench.course.wait(1.0)


def ask_expiry(bench: Bench) -> list[Answer]:
    """An import with an expiry; then one without the parameter, into a new CMK if the first one is taken."""
    cmk = bench.spare if bench.spare and bench.spare_state else bench.throwaways.create("imports without an expiry")
    pristine = cmk is not bench.spare or bench.spare_state == KeyState.PENDING_IMPORT
    expire_at = bench.clock.now().replace(microsecond=0) + _EXPIRY
    with_expiry = _import(bench, cmk, str(int(expire_at.timestamp())), "import with an expiry")
    effect = _material_expires(bench, cmk) if with_expiry.accepted else None
    without: tuple[Exchange, ...] = ()
    try:
        if not with_expiry.refused:
            cmk, pristine = bench.throwaways.create("an import without KeyMaterialExpireUnix"), True
        without = _import_without(bench, cmk)
    except CannotTell as failure:
        absent = could_not_tell("expiry_absent", failure.why, *failure.evidence)
    else:
        absent = _absent(without)
    if pristine and without and without[-1].accepted:
        watch_after_a_wait(bench, cmk, without[-1].evidence)
    return [_set(with_expiry, effect, without), absent]


def _import(bench: Bench, cmk: Cmk, expire_unix: str | None, what: str) -> Exchange:
    pair, _ = bench.parameters(cmk, what=f"a pair for the {what}")
    return bench.send(cmk, bench.wrap(bench.new_material(), pair), what=what, expire_unix=expire_unix)


def _import_without(bench: Bench, cmk: Cmk) -> tuple[Exchange, ...]:
    """Without the parameter and, if that is refused, the control with 0: the same material, the same token."""
    pair, _ = bench.parameters(cmk, what="a pair for the import without KeyMaterialExpireUnix")
    wrapped = bench.wrap(bench.new_material(), pair)
    absent = bench.send(cmk, wrapped, what="import without KeyMaterialExpireUnix", expire_unix=None)
    if not absent.refused:
        return (absent,)
    return absent, bench.send(cmk, wrapped, what="control: the same import with 0", expire_unix=NEVER)


def _material_expires(bench: Bench, cmk: Cmk) -> Exchange:
    _, exchange = bench.describe(cmk, what="whether it shows the expiry")
    return exchange


def _absent(without: tuple[Exchange, ...]) -> Answer:
    evidence = tuple(exchange.evidence for exchange in without)
    if without[0].accepted:
        return Answer("expiry_absent", "accepted", "accepted, as 0 is", evidence, emulator_agrees=True)
    if without[0].refused and without[-1].accepted:
        detail = f"refused ({evidence[0].code}), and accepted with 0"
        return Answer("expiry_absent", "refused", detail, evidence, emulator_agrees=False)
    why = "the control with 0 failed too" if without[0].refused else "the import got no clear answer"
    return could_not_tell("expiry_absent", why, *evidence)


def _set(with_expiry: Exchange, effect: Exchange | None, without: tuple[Exchange, ...]) -> Answer:
    question = "expiry_set"
    evidence = (with_expiry.evidence, *(exchange.evidence for exchange in (effect, *without[-1:]) if exchange))
    if with_expiry.accepted:
        metadata = effect.body.get("KeyMetadata") if effect else None
        shown = isinstance(metadata, dict) and bool(metadata.get("MaterialExpireTime"))
        detail = f"accepted; DescribeKey {'shows' if shown else 'does not show'} it"
        return Answer(question, "accepted", detail, evidence, emulator_agrees=shown)
    if with_expiry.refused and without and without[-1].accepted:
        detail = f"refused ({with_expiry.evidence.code}), and accepted without"
        return Answer(question, "refused", detail, evidence, emulator_agrees=False)
    why = "no import into this CMK was accepted" if with_expiry.refused else "the import got no clear answer"
    return could_not_tell(question, why, *evidence)

"""One attempt under each reading of the KMS: with which evidence it ends, and with which it does not."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from keybroker.assembly import Choices
from keybroker.domain.attempt import Evidence, State
from keybroker.domain.errors import BrokerError, KmsError, Reason
from keybroker.domain.external_key import KeyState
from keybroker.domain.import_protocol import Wrapped
from keybroker.domain.key_check_value import key_check_value
from keybroker.domain.wrapping import RSAES_OAEP_SHA_256, RSAES_PKCS1_V1_5
from keybroker.usecases.carry_on import Hand
from keybroker.usecases.import_wrapped_key_material import Given
from tests.builders import World, lost_reply, refusal
from tests.unit.usecases.support import (
    REQUEST,
    SENDS_OF_ONE_CALL,
    Killed,
    error_of,
    given,
    known,
    lose_replies,
    parameters_for,
    reason_of,
    restart,
    run,
    run_wrapped,
    stop_at,
    wrapped_reason,
)

PROVING = Choices(prove=True)
ASSERTING = Choices(sole_importer=True)


def bound_but_told_nothing(choices: Choices = PROVING, *, same_material_reimport: bool = False) -> tuple[World, str]:
    """The CMK is bound by a send whose answer was lost, and a second import is refused."""
    world = World(choices=choices)
    world.kms.same_material_reimport = same_material_reimport
    key_id = world.kms.add_key()
    world.kms.fail_next("ImportKeyMaterial", lost_reply(), when="after")
    return world, key_id


def test_lost_reply_where_the_same_material_may_come_again_is_imported_by_acceptance() -> None:
    world, key_id = bound_but_told_nothing(Choices(), same_material_reimport=True)
    assert run(world, key_id).evidence is Evidence.ACCEPTED


def test_lost_reply_where_any_second_import_is_refused_is_unattributed_and_has_no_check_value() -> None:
    world, key_id = bound_but_told_nothing(Choices())
    assert reason_of(world, key_id, request_id=REQUEST) is Reason.ENABLED_UNATTRIBUTED
    row = known(world)
    assert (row.state, row.check_value, row.evidence) == (State.ENABLED_UNATTRIBUTED, b"", None)
    assert row.open_sends == 1


def test_lost_reply_where_any_second_import_is_refused_is_proved_while_the_material_is_in_hand() -> None:
    world, key_id = bound_but_told_nothing()
    row = run(world, key_id)
    assert row.evidence is Evidence.PROVED
    assert row.check_value == key_check_value(world.kms.bound_material(key_id) or b"").value
    assert world.kms.calls["Encrypt"] == 1


@pytest.mark.parametrize("why", ["encrypt_refused", "encrypt_unreadable"])
def test_encrypt_that_proves_nothing_is_no_failure_and_no_proof(why: str) -> None:
    world, key_id = bound_but_told_nothing()
    setattr(world.kms, why, True)
    assert reason_of(world, key_id) is Reason.ENABLED_UNATTRIBUTED
    assert world.kms.calls["Encrypt"] == 1


@pytest.mark.parametrize("why", ["encrypt_refused", "encrypt_unreadable"])
def test_accepted_import_that_encrypt_does_not_prove_is_imported_by_acceptance(why: str) -> None:
    world = World(choices=PROVING)
    setattr(world.kms, why, True)
    assert run(world, world.kms.add_key()).evidence is Evidence.ACCEPTED


def test_accepted_import_is_proved_where_that_is_configured() -> None:
    world = World(choices=PROVING)
    assert run(world, world.kms.add_key()).evidence is Evidence.PROVED


def test_nothing_is_encrypted_where_that_is_not_configured() -> None:
    world = World()
    run(world, world.kms.add_key())
    assert world.kms.calls["Encrypt"] == 0


def test_accepted_but_disproved_once_the_layout_is_known_is_unattributed() -> None:
    """PKCS#1 v1.5 under a wrong key can import garbage: accepted, and not our material."""
    world = World(choices=PROVING)
    run(world, world.kms.add_key())
    key_id = world.kms.add_key()
    world.kms.after("ImportKeyMaterial", lambda: _replace_material(world, key_id))
    assert reason_of(world, key_id, algorithm=RSAES_PKCS1_V1_5, request_id=REQUEST) is Reason.ENABLED_UNATTRIBUTED
    assert known(world).check_value == b""


def test_accepted_but_not_opened_before_the_layout_is_known_disproves_nothing() -> None:
    world = World(choices=PROVING)
    key_id = world.kms.add_key()
    world.kms.after("ImportKeyMaterial", lambda: _replace_material(world, key_id))
    assert run(world, key_id).evidence is Evidence.ACCEPTED


def _replace_material(world: World, key_id: str) -> None:
    world.kms._keys[key_id].material = bytes(32)


def test_foreign_importer_between_the_look_and_the_send_is_told_as_bound_by_others() -> None:
    world = World()
    key_id = world.kms.add_key()
    world.kms.before("ImportKeyMaterial", lambda: world.kms.bind_foreign(key_id))
    assert reason_of(world, key_id, request_id=REQUEST) is Reason.KEY_MATERIAL_ALREADY_BOUND
    assert known(world).state is State.NOT_IMPORTED
    assert world.ledger.holder(world.cmk(key_id)) is None


@pytest.mark.parametrize("choices", [Choices(), PROVING], ids=["no proof", "proof"])
def test_foreign_importer_before_a_send_whose_answer_is_lost_is_unattributed(choices: Choices) -> None:
    world = World(choices=choices)
    key_id = world.kms.add_key()
    world.kms.before("ImportKeyMaterial", lambda: world.kms.bind_foreign(key_id))
    world.kms.fail_next("ImportKeyMaterial", lost_reply(), when="after")
    assert reason_of(world, key_id, request_id=REQUEST) is Reason.ENABLED_UNATTRIBUTED
    assert known(world).check_value == b""


def test_foreign_pair_that_revoked_the_own_one_costs_one_new_pair() -> None:
    world = World()
    world.kms.newest_token_only = True
    key_id = world.kms.add_key()
    foreign = lambda: world.kms.get_parameters_for_import(  # noqa: E731
        world.cmk(key_id), RSAES_PKCS1_V1_5, deadline=world.deadline()
    )
    world.kms.before("ImportKeyMaterial", foreign)
    row = run(world, key_id)
    assert (row.sends, row.refused) == (2, 1)
    assert len(world.entropy.filled) == 1


def test_no_new_pair_while_a_send_is_open_although_the_token_is_refused() -> None:
    """Rule R6: under newest-only a new pair would kill what may still land."""
    world = World()
    world.kms.newest_token_only = True
    key_id = world.kms.add_key()
    world.kms.fail_next("ImportKeyMaterial", lost_reply(), when="checked")
    world.kms.fail_next("ImportKeyMaterial", refusal(Reason.IMPORT_TOKEN_INVALID), times=SENDS_OF_ONE_CALL - 1)
    assert reason_of(world, key_id, request_id=REQUEST) is Reason.IMPORT_UNRESOLVED
    assert world.kms.calls["GetParametersForImport"] == 1
    assert world.kms.land_late() == [None]
    assert run(world, key_id, request_id=REQUEST).evidence is Evidence.ACCEPTED


def test_lost_reply_then_enabled_late_is_still_accepted() -> None:
    world = World()
    world.kms.show_enabled_after_describes(4)
    key_id = world.kms.add_key()
    world.kms.fail_next("ImportKeyMaterial", lost_reply(), when="after")
    assert run(world, key_id).evidence is Evidence.ACCEPTED


def test_request_that_lands_after_the_call_is_found_by_the_repeat() -> None:
    world = World()
    world.kms.same_material_reimport = False
    key_id = world.kms.add_key()
    lose_replies(world, "late")
    assert reason_of(world, key_id, request_id=REQUEST) is Reason.IMPORT_UNRESOLVED
    world.kms.land_late()
    assert reason_of(world, key_id, request_id=REQUEST) is Reason.ENABLED_UNATTRIBUTED
    assert len(world.kms.unwrapped) == 1


def test_pkcs1_is_not_stored_so_a_crash_leaves_only_waiting_or_unattributed() -> None:
    world = World()
    key_id = world.kms.add_key()
    stop_at(world, "send: accepted")
    with pytest.raises(Killed):
        run(world, key_id, algorithm=RSAES_PKCS1_V1_5, request_id=REQUEST)
    restart(world)
    row = known(world)
    assert (row.state, row.wrapped_key_material, row.import_token) == (State.PREPARED, b"", "")
    sent = world.kms.calls["ImportKeyMaterial"]
    assert reason_of(world, key_id, algorithm=RSAES_PKCS1_V1_5, request_id=REQUEST) is Reason.ENABLED_UNATTRIBUTED
    assert world.kms.calls["ImportKeyMaterial"] == sent


def test_oaep_is_stored_so_a_crash_after_the_send_still_ends_imported() -> None:
    world = World()
    key_id = world.kms.add_key()
    stop_at(world, "send: accepted")
    with pytest.raises(Killed):
        run(world, key_id, request_id=REQUEST)
    restart(world)
    row = run(world, key_id, request_id=REQUEST)
    assert row.evidence is Evidence.ACCEPTED
    assert row.check_value == key_check_value(world.kms.bound_material(key_id) or b"").value
    assert len(world.entropy.filled) == 1


class TestSoleImporter:
    """Said only with the assertion, for the first attempt ever, where no pair was handed out."""

    def test_sole_importer_with_the_assertion_and_a_first_attempt(self) -> None:
        world, key_id = bound_but_told_nothing(ASSERTING)
        row = run(world, key_id)
        assert row.evidence is Evidence.SOLE_IMPORTER
        assert row.check_value == key_check_value(world.kms.bound_material(key_id) or b"").value

    def test_sole_importer_without_the_assertion_is_unattributed(self) -> None:
        world, key_id = bound_but_told_nothing(Choices())
        assert reason_of(world, key_id) is Reason.ENABLED_UNATTRIBUTED

    def test_sole_importer_after_an_earlier_attempt_is_unattributed(self) -> None:
        world = World(choices=ASSERTING)
        key_id = world.kms.add_key()
        world.kms.same_material_reimport = False
        world.kms.fail_next("ImportKeyMaterial", refusal(Reason.KMS_ACCESS_DENIED))
        assert reason_of(world, key_id) is Reason.KMS_ACCESS_DENIED
        world.kms.fail_next("ImportKeyMaterial", lost_reply(), when="after")
        assert reason_of(world, key_id) is Reason.ENABLED_UNATTRIBUTED

    def test_sole_importer_after_a_pair_was_handed_out_is_unattributed(self) -> None:
        world, key_id = bound_but_told_nothing(ASSERTING)
        parameters_for(world, key_id)
        assert reason_of(world, key_id) is Reason.ENABLED_UNATTRIBUTED

    def test_sole_importer_is_not_said_of_material_that_a_caller_wrapped(self) -> None:
        world, key_id = bound_but_told_nothing(ASSERTING)
        assert wrapped_reason(world, key_id, given(parameters_for(world, key_id))) is Reason.ENABLED_UNATTRIBUTED

    def test_sole_importer_is_not_said_of_a_token_that_came_from_elsewhere(self) -> None:
        world, key_id = bound_but_told_nothing(replace(ASSERTING, allow_foreign_tokens=True))
        foreign = world.kms.get_parameters_for_import(world.cmk(key_id), RSAES_OAEP_SHA_256, deadline=world.deadline())
        assert wrapped_reason(world, key_id, given(foreign)) is Reason.ENABLED_UNATTRIBUTED

    def test_sole_importer_is_not_said_against_a_proof_to_the_contrary(self) -> None:
        world = World(choices=replace(ASSERTING, prove=True))
        run(world, world.kms.add_key())  # the layout is known now
        key_id = world.kms.add_key()
        world.kms.before("ImportKeyMaterial", lambda: world.kms.bind_foreign(key_id))
        world.kms.fail_next("ImportKeyMaterial", lost_reply(), when="after")
        assert reason_of(world, key_id) is Reason.ENABLED_UNATTRIBUTED


# The ledger fails

UNAVAILABLE = BrokerError(Reason.LEDGER_UNAVAILABLE, "The ledger can't be written.")


def fail_at(world: World, place: str) -> None:
    def at(here: str) -> None:
        if here == place:
            raise BrokerError(UNAVAILABLE.reason, UNAVAILABLE.message)

    world.at = at


@pytest.mark.parametrize("place", ["claim: before", "prepare: before", "prepare: after"])
def test_ledger_unavailable_before_the_send_sends_nothing_and_says_so(place: str) -> None:
    world = World()
    key_id = world.kms.add_key()
    fail_at(world, place)
    assert reason_of(world, key_id, request_id=REQUEST) is Reason.LEDGER_UNAVAILABLE
    assert world.kms.calls["ImportKeyMaterial"] == 0
    restart(world)
    assert run(world, key_id, request_id=REQUEST).evidence is Evidence.ACCEPTED


@pytest.mark.parametrize("place", ["acceptance: before", "acceptance: after", "finish: before", "resend: before"])
def test_ledger_unavailable_after_the_send_is_told_as_unresolved(place: str) -> None:
    world = World()
    key_id = world.kms.add_key()
    if place.startswith("resend"):
        world.kms.fail_next("ImportKeyMaterial", lost_reply(), when="after")
    fail_at(world, place)
    error = error_of(world, key_id, request_id=REQUEST)
    assert error.reason is Reason.IMPORT_UNRESOLVED
    assert error.metadata["key_id"] == key_id
    restart(world)
    row = run(world, key_id, request_id=REQUEST)
    assert row.check_value == key_check_value(world.kms.bound_material(key_id) or b"").value
    assert len(world.entropy.filled) == 1


def test_ledger_unavailable_after_a_refusal_is_told_as_unresolved_for_the_row_says_so() -> None:
    world = World()
    key_id = world.kms.add_key()
    world.kms.fail_next("ImportKeyMaterial", refusal(Reason.KMS_ACCESS_DENIED))
    fail_at(world, "refusal: before")
    assert reason_of(world, key_id, request_id=REQUEST) is Reason.IMPORT_UNRESOLVED
    assert known(world).open_sends == 1


def test_cmk_deleted_while_unresolved_ends_as_not_found_once_settled() -> None:
    world = World()
    key_id = world.kms.add_key()
    lose_replies(world)
    assert reason_of(world, key_id, request_id=REQUEST) is Reason.IMPORT_UNRESOLVED
    world.kms.remove_key(key_id)
    for seconds in (24 * 3600 + 301, 61, 61):
        world.clock.advance(seconds)
        world.recovery.run_due()
    assert reason_of(world, key_id, request_id=REQUEST) is Reason.KEY_NOT_FOUND


def test_cmk_being_deleted_keeps_the_attempt_unresolved() -> None:
    world = World()
    key_id = world.kms.add_key()
    lose_replies(world)
    assert reason_of(world, key_id, request_id=REQUEST) is Reason.IMPORT_UNRESOLVED
    world.kms.set_state(key_id, KeyState.PENDING_DELETION)
    for seconds in (24 * 3600 + 301, 61, 61):
        world.clock.advance(seconds)
        world.recovery.run_due()
    assert known(world).state is State.PREPARED


def test_wrapped_import_whose_answer_was_lost_is_never_proved() -> None:
    world = World(choices=PROVING)
    world.kms.same_material_reimport = False
    key_id = world.kms.add_key()
    world.kms.fail_next("ImportKeyMaterial", lost_reply(), when="after")
    assert wrapped_reason(world, key_id, given(parameters_for(world, key_id))) is Reason.ENABLED_UNATTRIBUTED
    assert world.kms.calls["Encrypt"] == 0


def test_wrapped_import_ends_accepted_where_the_same_material_may_come_again() -> None:
    world = World()
    key_id = world.kms.add_key()
    world.kms.fail_next("ImportKeyMaterial", lost_reply(), when="after")
    assert run_wrapped(world, key_id, given(parameters_for(world, key_id))).attempt.evidence is Evidence.ACCEPTED


def not_sent() -> KmsError:
    error = refusal(Reason.KMS_UNAVAILABLE)
    error.fails_fast, error.retry_after_seconds = True, 1.5
    return error


def test_resend_that_the_broker_does_not_send_leaves_it_unresolved_at_once() -> None:
    world = World()
    key_id = world.kms.add_key()
    world.kms.fail_next("ImportKeyMaterial", lost_reply())
    world.kms.fail_next("ImportKeyMaterial", not_sent(), times=9)
    error = error_of(world, key_id, request_id=REQUEST)
    assert (error.reason, error.retry_after_seconds) == (Reason.IMPORT_UNRESOLVED, 1.5)
    assert (world.kms.calls["ImportKeyMaterial"], sum(world.clock.slept)) == (2, 0)
    assert known(world).open_sends == 1


def test_first_send_that_the_broker_does_not_send_is_released_with_its_time_to_come_again() -> None:
    world = World()
    key_id = world.kms.add_key()
    world.kms.fail_next("ImportKeyMaterial", not_sent(), times=9)
    error = error_of(world, key_id, request_id=REQUEST)
    assert (error.reason, error.retry_after_seconds) == (Reason.KMS_UNAVAILABLE, 1.5)
    assert known(world).state is State.RELEASED


def test_nothing_that_is_held_of_an_attempt_shows_token_or_material() -> None:
    held = Wrapped("a-token", b"wrapped material", datetime(2026, 1, 1, tzinfo=UTC), "RSAES_OAEP_SHA_256")
    shown = repr(Hand(held)) + repr(held) + repr(Given(b"wrapped material", "a-token"))
    assert "a-token" not in shown
    assert "wrapped material" not in shown


# Without a sight of the CMK nothing is said of it


@pytest.mark.parametrize("failure", [lost_reply(), BrokerError(Reason.DEADLINE_TOO_SHORT, "No time.")])
def test_refused_material_without_a_sight_is_told_as_that_and_for_good(failure: BrokerError) -> None:
    world = World()
    key_id = world.kms.add_key()
    world.kms.fail_next("ImportKeyMaterial", refusal(Reason.WRAPPED_KEY_MATERIAL_REFUSED))
    world.kms.before("ImportKeyMaterial", lambda: world.kms.fail_next("DescribeKey", failure, times=9))  # type: ignore[arg-type]
    error = error_of(world, key_id, request_id=REQUEST)
    assert error.reason is Reason.GENERATED_MATERIAL_REFUSED
    assert "could not be seen" in error.message
    assert known(world).state is State.NOT_IMPORTED


def test_refused_wrapped_material_without_a_sight_counts_as_refused() -> None:
    world = World()
    key_id = world.kms.add_key()
    what = given(parameters_for(world, key_id))
    world.kms.fail_next("ImportKeyMaterial", refusal(Reason.WRAPPED_KEY_MATERIAL_REFUSED))
    too_late = BrokerError(Reason.DEADLINE_TOO_SHORT, "No time.")
    world.kms.before("ImportKeyMaterial", lambda: world.kms.fail_next("DescribeKey", too_late))  # type: ignore[arg-type]
    assert wrapped_reason(world, key_id, what) is Reason.WRAPPED_KEY_MATERIAL_REFUSED
    assert world.import_wrapped._refusals._of(world.cmk(key_id))[0] == 1


# Resends that say nothing


@pytest.mark.parametrize("when", ["before", "after"])
def test_material_in_hand_is_proved_where_no_resend_gets_an_answer(when: str) -> None:
    world = World(choices=Choices(prove=True))
    world.kms.same_material_reimport = False
    key_id = world.kms.add_key()
    world.kms.fail_next("ImportKeyMaterial", lost_reply(), when="after")
    world.kms.fail_next("ImportKeyMaterial", lost_reply(), when=when, times=99)  # type: ignore[arg-type]
    assert run(world, key_id).evidence is Evidence.PROVED


# The send that follows a refused signature is recorded as any other (R1)


def signs_anew() -> KmsError:
    error = refusal(Reason.KMS_CREDENTIALS_REJECTED)
    error.signs_anew = True
    return error


def test_send_that_is_signed_anew_is_recorded_before_it_leaves() -> None:
    world = World()
    world.kms.same_material_reimport = False
    key_id = world.kms.add_key()
    world.kms.fail_next("ImportKeyMaterial", signs_anew())
    world.kms.fail_next("ImportKeyMaterial", lost_reply(), when="after")
    assert reason_of(world, key_id, request_id=REQUEST) is Reason.ENABLED_UNATTRIBUTED
    assert world.kms.bound_material(key_id) is not None


def test_send_that_is_signed_anew_can_succeed_and_is_tried_once() -> None:
    world = World()
    key_id = world.kms.add_key()
    world.kms.fail_next("ImportKeyMaterial", signs_anew())
    assert run(world, key_id, request_id=REQUEST).sends == 2
    world.kms.fail_next("ImportKeyMaterial", signs_anew(), times=9)
    assert reason_of(world, world.kms.add_key()) is Reason.KMS_CREDENTIALS_REJECTED
    assert world.kms.calls["ImportKeyMaterial"] == 4

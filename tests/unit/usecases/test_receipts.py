"""Which ends get a receipt, who signs it, and that a repeat gets the identical one."""

import hashlib
import json
import re
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from keybroker.assembly import Choices
from keybroker.domain.attempt import Attempt, Evidence, State
from keybroker.domain.errors import Reason
from keybroker.domain.external_key import KeyReference, NewKey
from keybroker.domain.import_parameters import ImportParameters
from keybroker.domain.import_protocol import Wrapped
from keybroker.domain.key_spec import AES_256
from keybroker.domain.receipt import payload
from keybroker.domain.wrapping import RSAES_PKCS1_V1_5
from keybroker.usecases.asked import Asked
from tests.builders import FakeClock, World, lost_reply, refusal
from tests.unit.usecases.support import (
    REQUEST,
    FileLedger,
    Killed,
    given,
    known,
    parameters_for,
    reason_of,
    restart,
    run,
    run_wrapped,
    stop_at,
)


class Signer:
    """Says what it was asked to sign; no two of its receipts are the same."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.numbers = count(1)
        self.rows: list[Attempt] = []

    def __call__(self, row: Attempt) -> str:
        self.rows.append(row)
        return f"{next(self.numbers)}.{payload(row, version='1', issued_at=self.clock.now()).decode()}"


def signing(**options: Any) -> tuple[World, Signer]:
    clock = FakeClock()
    signer = Signer(clock)
    return World(clock=clock, receipt=signer, **options), signer


def claims(receipt: str) -> dict[str, Any]:
    return dict(json.loads(receipt.partition(".")[2]))


def told_by_get_import(world: World) -> str:
    return world.assembly.get_import.run(Asked("a caller", REQUEST)).receipt


def test_imported_gets_one_receipt_and_every_repeat_the_identical_one() -> None:
    world, signer = signing()
    key_id = world.kms.add_key()
    first = run(world, key_id, request_id=REQUEST).receipt
    assert first.startswith("1.")
    assert claims(first)["kms"]["accepted"]["request_id"] == known(world).kms_request_id
    world.clock.advance(3600)
    again = world.import_key(KeyReference(key_id), request_id=REQUEST)
    assert (again.replayed, again.attempt.receipt) == (True, first)
    restart(world)
    assert run(world, key_id, request_id=REQUEST).receipt == first
    assert told_by_get_import(world) == first
    assert len(signer.rows) == 1


def test_what_is_signed_is_what_is_recorded() -> None:
    world, signer = signing()
    row = run(world, world.kms.add_key(), request_id=REQUEST)
    recorded = known(world)
    assert claims(row.receipt) == json.loads(payload(recorded, version="1", issued_at=world.clock.now()))
    assert signer.rows[0].state is State.IMPORTED
    assert (signer.rows[0].import_token, signer.rows[0].wrapped_key_material) == ("", b"")


@pytest.mark.parametrize("evidence", Evidence)
def test_each_evidence_gets_its_receipt(evidence: Evidence) -> None:
    world, _ = signing(choices=Choices(prove=evidence is Evidence.PROVED, sole_importer=True))
    world.kms.same_material_reimport = False
    if evidence is not Evidence.ACCEPTED:
        world.kms.fail_next("ImportKeyMaterial", lost_reply(), when="after")
    told = claims(run(world, world.kms.add_key()).receipt)
    assert told["evidence"]["kind"] == evidence.value
    assert ("accepted" in told["kms"]) == (evidence is Evidence.ACCEPTED)


def test_new_cmk_whose_import_was_not_answered_is_not_told_with_the_answer_to_its_creation() -> None:
    """CreateKey's RequestId is none of the import's."""
    world, _ = signing(choices=Choices(prove=True))
    world.kms.same_material_reimport = False
    world.kms.fail_next("ImportKeyMaterial", lost_reply(), when="after")
    row = run(world, NewKey(AES_256), request_id=REQUEST)
    assert (row.evidence, row.kms_request_id, row.accepted_at) == (Evidence.PROVED, "", None)
    assert "accepted" not in claims(row.receipt)["kms"]


def test_new_cmk_is_told_with_the_answers_to_its_creation_and_to_its_import() -> None:
    world, _ = signing()
    row = run(world, NewKey(AES_256), request_id=REQUEST)
    kms = claims(row.receipt)["kms"]
    assert kms["created"]["request_id"] == (row.creation.kms_request_id if row.creation else None)
    assert kms["accepted"]["request_id"] == row.kms_request_id
    assert kms["created"]["request_id"] != kms["accepted"]["request_id"]


def test_unattributed_gets_none() -> None:
    world, signer = signing()
    world.kms.same_material_reimport = False
    world.kms.fail_next("ImportKeyMaterial", lost_reply(), when="after")
    assert reason_of(world, world.kms.add_key(), request_id=REQUEST) is Reason.ENABLED_UNATTRIBUTED
    assert (known(world).receipt, signer.rows) == ("", [])


def test_refused_gets_none() -> None:
    world, signer = signing()
    world.kms.fail_next("ImportKeyMaterial", refusal(Reason.KMS_ACCESS_DENIED))
    assert reason_of(world, world.kms.add_key(), request_id=REQUEST) is Reason.KMS_ACCESS_DENIED
    assert (known(world).state, known(world).receipt, signer.rows) == (State.NOT_IMPORTED, "", [])


def test_bound_by_others_gets_none() -> None:
    world, signer = signing()
    key_id = world.kms.add_key()
    stop_at(world, "pair: in hand")
    with pytest.raises(Killed):
        run(world, key_id, request_id=REQUEST)
    world.kms.bind_foreign(key_id)
    restart(world)
    assert reason_of(world, key_id, request_id=REQUEST) is Reason.KEY_MATERIAL_ALREADY_BOUND
    assert (known(world).state, known(world).receipt, signer.rows) == (State.ALREADY_BOUND, "", [])


def test_material_of_a_caller_gets_a_receipt_that_says_whose_it_was() -> None:
    world, _ = signing()
    key_id = world.kms.add_key()
    told = claims(run_wrapped(world, key_id, given(parameters_for(world, key_id))).attempt.receipt)
    assert told["material"] == {"from": "caller"}
    assert told["wrapped"] == {"algorithm": "RSAES_OAEP_SHA_256"}


def test_without_a_key_there_is_none() -> None:
    world = World()
    assert run(world, world.kms.add_key()).receipt == ""


@pytest.mark.parametrize("tested", [False, True])
def test_source_of_randomness_is_recorded_with_whether_it_was_tested(*, tested: bool) -> None:
    world, _ = signing()
    world.entropy.is_health_tested = tested
    told = claims(run(world, world.kms.add_key()).receipt)
    health_tests = "passed" if tested else "not tested"
    assert told["material"]["entropy"] == {"source": "os", "health_tests": health_tests}


# The wrapping public key is that of the send which counts


@pytest.fixture
def digests(monkeypatch: pytest.MonkeyPatch) -> Callable[[ImportParameters], bytes]:
    """Pairs of the fake KMS share one public key: here each pair has a digest of its own."""

    def digest(pair: ImportParameters) -> bytes:
        return hashlib.sha256(pair.import_token.encode()).digest()

    monkeypatch.setattr(ImportParameters, "wrapping_public_key_digest", property(digest))
    return digest


def fetched(world: World) -> list[ImportParameters]:
    """The pairs that the broker gets, in their order."""
    pairs: list[ImportParameters] = []
    fetch = world.kms.get_parameters_for_import

    def noted(*args: Any, **options: Any) -> ImportParameters:
        pairs.append(fetch(*args, **options))
        return pairs[-1]

    world.kms.get_parameters_for_import = noted  # type: ignore[method-assign]
    return pairs


def test_digest_is_that_of_the_wrapping_public_key() -> None:
    world, _ = signing()
    pairs = fetched(world)
    told = claims(run(world, world.kms.add_key()).receipt)["wrapped"]
    assert told["wrapping_public_key_sha256"] == hashlib.sha256(pairs[0].wrapping_public_key_der).hexdigest()


@pytest.mark.parametrize("answered", [True, False])
def test_digest_follows_a_rewrap(digests: Callable[[ImportParameters], bytes], *, answered: bool) -> None:
    world, _ = signing(choices=Choices(prove=not answered))
    world.kms.same_material_reimport = False
    pairs = fetched(world)
    world.kms.fail_next("ImportKeyMaterial", refusal(Reason.IMPORT_TOKEN_INVALID))
    if not answered:
        world.kms.fail_next("ImportKeyMaterial", lost_reply(), when="after")
    row = run(world, world.kms.add_key())
    assert (row.accepted_at is not None) == answered
    assert (len(pairs), row.open_sends) == (2, 1)
    assert claims(row.receipt)["wrapped"]["wrapping_public_key_sha256"] == digests(pairs[1]).hex()


def test_answer_to_an_earlier_send_is_told_with_the_public_key_of_that_send(
    digests: Callable[[ImportParameters], bytes],
) -> None:
    """Another process has wrapped the same material again before the answer to the first send came."""
    world, _ = signing()
    pairs = fetched(world)
    key_id = world.kms.add_key()

    def rewrap_elsewhere() -> None:
        from keybroker.domain.import_protocol import rewrapped  # noqa: PLC0415

        row = known(world)
        newer = Wrapped("t", b"w" * 256, row.pair_expiries[0], row.algorithm, b"digest of the newer")
        world.ledger.update(rewrapped(row, newer))

    world.kms.before("ImportKeyMaterial", rewrap_elsewhere)
    row = run(world, key_id, request_id=REQUEST)
    assert row.sends == 2
    assert claims(row.receipt)["wrapped"]["wrapping_public_key_sha256"] == digests(pairs[0]).hex()


def test_send_from_the_row_is_told_with_the_public_key_that_is_recorded(
    digests: Callable[[ImportParameters], bytes],
) -> None:
    world, _ = signing()
    pairs = fetched(world)
    stop_at(world, "send: before")
    with pytest.raises(Killed):
        run(world, world.kms.add_key(), request_id=REQUEST)
    restart(world)
    world.recovery.run_due()
    assert claims(known(world).receipt)["wrapped"]["wrapping_public_key_sha256"] == digests(pairs[0]).hex()


# Crashes, and who finishes


@pytest.mark.parametrize("place", ["send: before", "send: accepted", "acceptance: after", "finish: before"])
def test_recovery_signs_what_it_finishes_and_the_repeat_tells_that(place: str) -> None:
    world, signer = signing()
    key_id = world.kms.add_key()
    stop_at(world, place)
    with pytest.raises(Killed):
        run(world, key_id, request_id=REQUEST)
    restart(world)
    assert known(world).receipt == ""
    world.recovery.run_due()
    receipt = known(world).receipt
    assert claims(receipt)["request_id"] == REQUEST
    signed = len(signer.rows)
    answer = world.import_key(KeyReference(key_id), request_id=REQUEST)
    assert (answer.replayed, answer.attempt.receipt, len(signer.rows)) == (True, receipt, signed)
    assert told_by_get_import(world) == receipt


def test_send_that_a_crash_prevented_is_told_as_recorded_and_not_as_made() -> None:
    world, _ = signing()
    key_id = world.kms.add_key()
    stop_at(world, "send: before")
    with pytest.raises(Killed):
        run(world, key_id, request_id=REQUEST)
    restart(world)
    told = claims(run(world, key_id, request_id=REQUEST).receipt)
    assert world.kms.calls["ImportKeyMaterial"] == 1
    assert told["sends"] == {"recorded": 2, "without_effect": 0}


def copied_before_the_send(world: World, folder: Path) -> tuple[str, FileLedger]:
    """A CMK, and a ledger with a copy of when its import was recorded and not sent; a new process is at work."""
    files = FileLedger(world, folder)
    key_id = world.kms.add_key()
    stop_at(world, "send: before")
    with pytest.raises(Killed):
        run(world, key_id, request_id=REQUEST)
    restart(world)
    files.back_up()
    return key_id, files


def test_cmk_that_was_seen_before_the_success_is_not_told_as_seen_after_it(tmp_path: Path) -> None:
    """Restored material is sent again once the CMK is seen bound, and then accepted."""
    world, _ = signing()
    key_id, files = copied_before_the_send(world, tmp_path)
    run(world, key_id, request_id=REQUEST)
    files.put_back()
    world.kms.before("ImportKeyMaterial", lambda: world.clock.advance(5))
    told = claims(run(world, key_id, request_id=REQUEST).receipt)
    assert told["kms"]["described"]["as_of"] < told["kms"]["accepted"]["at"]
    assert told["evidence"]["kind"] == "ACCEPTED"
    assert not re.search(r"\b(then|after|before)\b", told["evidence"]["means"])


def test_import_that_is_decided_again_after_a_restore_says_that_it_may_not_know_every_send(tmp_path: Path) -> None:
    world, signer = signing()
    key_id, files = copied_before_the_send(world, tmp_path)
    first = claims(run(world, key_id, request_id=REQUEST).receipt)
    files.put_back()
    second = claims(run(world, key_id, request_id=REQUEST).receipt)
    assert len(signer.rows) == 2
    assert second["jti"] == first["jti"]
    assert "more_unknown" not in first["sends"]
    assert second["sends"]["more_unknown"] is True


def test_crash_after_the_end_was_recorded_leaves_the_one_receipt() -> None:
    world, signer = signing()
    key_id = world.kms.add_key()
    stop_at(world, "finish: after")
    with pytest.raises(Killed):
        run(world, key_id, request_id=REQUEST)
    recorded = known(world).receipt
    restart(world)
    assert run(world, key_id, request_id=REQUEST).receipt == recorded != ""
    assert len(signer.rows) == 1


def test_whoever_loses_the_last_write_tells_the_receipt_that_is_recorded() -> None:
    world, signer = signing()
    key_id = world.kms.add_key()
    other: list[str] = []

    def finish_elsewhere(place: str) -> None:
        if place == "finish: before" and not other:
            other.append("")
            rival = World.__new__(World)
            rival.__dict__.update(world.__dict__)
            rival.restart()  # another process on the same ledger
            rival.recovery.run_due()
            other[0] = known(world).receipt

    world.at = finish_elsewhere
    answer = world.import_key(KeyReference(key_id), request_id=REQUEST)
    assert len(signer.rows) == 2
    assert answer.attempt.receipt == other[0] == known(world).receipt
    assert answer.attempt.receipt.startswith("2.")


def test_pkcs1_gets_a_receipt_that_names_it() -> None:
    world, _ = signing()
    row = run(world, world.kms.add_key(), algorithm=RSAES_PKCS1_V1_5)
    assert claims(row.receipt)["wrapped"]["algorithm"] == "RSAES_PKCS1_V1_5"

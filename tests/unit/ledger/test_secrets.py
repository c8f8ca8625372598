"""What is sealed stays so, and is gone at the end; what was tampered with quarantines its CMK."""

import base64
import traceback
from collections.abc import Callable
from dataclasses import replace

import pytest
import structlog

from keybroker.adapters.ledger.sealing import key_id
from keybroker.adapters.ledger.sqlite import SqliteLedger
from keybroker.domain.attempt import TERMINAL, Attempt, State
from keybroker.domain.errors import BrokerError, Reason
from tests.unit.ledger.support import BLOB, KEY, OTHER_KEY, PKCS1, TOKEN, Files, attempt, cmk, prepared

SECRETS = {
    "token": TOKEN.encode(),
    "blob": BLOB[:19],
    "key": KEY,
}


def spellings(secret: bytes) -> list[bytes]:
    return [
        secret,
        secret.hex().encode(),
        base64.b64encode(secret)[: len(secret)],
        repr(secret)[2:-1].encode(),
    ]


def check_absent(content: bytes) -> None:
    found = [name for name, secret in SECRETS.items() if any(text in content for text in spellings(secret))]
    assert not found


def filled(files: Files, **changes: object) -> tuple[SqliteLedger, Attempt]:
    ledger = files.ledger()
    return ledger, ledger.update(prepared(ledger.insert(attempt(1)), **changes))


# At rest


def test_search_finds_what_stands_in_a_file(files: Files) -> None:
    (files.folder / "plain").write_bytes(b"x" + BLOB)
    with pytest.raises(AssertionError):
        check_absent(files.content())


@pytest.mark.parametrize("changes", [{}, {"algorithm": PKCS1}, {"algorithm": ""}], ids=str)
def test_secrets_are_in_no_file_at_any_time(files: Files, changes: dict[str, object]) -> None:
    ledger, row = filled(files, **changes)
    check_absent(files.content())
    row = ledger.update(replace(row, state=State.ACCEPTED))
    check_absent(files.content())
    ledger.update(replace(row, state=State.IMPORTED))
    check_absent(files.content())
    ledger.prune(files.clock.now())
    check_absent(files.content())
    files.close()
    check_absent(files.content())


@pytest.mark.parametrize("state", sorted(TERMINAL | {State.RELEASED}))
def test_sealed_values_are_in_no_file_after_the_end(files: Files, state: State) -> None:
    ledger, row = filled(files)
    sealed: list[bytes] = []
    for sends in range(2, 6):
        row = ledger.update(replace(row, sends=sends))
        sealed += files.execute("SELECT sealed_token, sealed_blob FROM attempts")[0]
    assert all(value in files.content() for value in sealed[-2:])
    ledger.update(replace(row, state=state))
    assert files.execute("SELECT sealed_by, sealed_token, sealed_blob FROM attempts") == [(None, None, None)]
    ledger.prune(files.clock.now())
    assert not any(value in files.content() for value in sealed)


def test_sealed_values_of_many_ended_rows_are_in_no_file(files: Files) -> None:
    ledger = files.ledger()
    rows = [ledger.update(prepared(ledger.insert(attempt(number)))) for number in range(60)]
    values = files.execute("SELECT sealed_token, sealed_blob FROM attempts")
    for row in rows:
        ledger.update(replace(row, state=State.IMPORTED))
    ledger.prune(files.clock.now())
    content = files.content()
    assert not [value for pair in values for value in pair if value in content]


@pytest.mark.parametrize("algorithm", [PKCS1, "", "RSAES_OAEP_SHA_1"])
def test_what_may_not_be_stored_is_not_even_sealed(files: Files, algorithm: str) -> None:
    filled(files, algorithm=algorithm)
    assert files.execute("SELECT sealed_by, sealed_token, sealed_blob FROM attempts") == [(None, None, None)]


def test_id_of_the_key_stands_beside_what_it_sealed(files: Files) -> None:
    filled(files)
    assert files.execute("SELECT sealed_by FROM attempts") == [(key_id(KEY),)]


# Rotation


def test_old_key_opens_old_records_until_they_are_written_again(files: Files) -> None:
    _, row = filled(files)
    files.close()
    ledger = files.ledger(key=OTHER_KEY, old=(KEY,))
    assert ledger.find("jwt:caller", "request-1") == row
    row = ledger.update(replace(row, sends=2))
    files.close()
    assert files.ledger(key=OTHER_KEY).find("jwt:caller", "request-1") == row


# Quarantine


def swap_with_another_row(files: Files) -> None:
    files.execute("""UPDATE attempts SET (sealed_token, sealed_blob) =
        (SELECT sealed_token, sealed_blob FROM attempts WHERE record_id = 'record-2') WHERE record_id = 'record-1'""")


def set_column(name: str, value: object) -> Callable[[Files], None]:
    return lambda files: files.execute(f"UPDATE attempts SET {name} = ? WHERE record_id = 'record-1'", value) and None


def in_body(before: str, after: str) -> Callable[[Files], None]:
    def change(files: Files) -> None:
        files.execute("UPDATE attempts SET body = replace(body, ?, ?) WHERE record_id = 'record-1'", before, after)
        assert after in files.execute("SELECT body FROM attempts WHERE record_id = 'record-1'")[0][0]

    return change


TAMPERINGS: dict[str, Callable[[Files], object]] = {
    "sealed values of another row": swap_with_another_row,
    "token and blob swapped": lambda files: files.execute(
        "UPDATE attempts SET sealed_token = sealed_blob, sealed_blob = sealed_token WHERE record_id = 'record-1'"
    ),
    "another algorithm": in_body("RSAES_OAEP_SHA_256", "RSAES_PKCS1_V1_5"),
    "a sealed value cut": set_column("sealed_blob", b"cut"),
    "a sealed value of another type": set_column("sealed_token", "text"),
    "a sealed value changed": set_column("sealed_blob", bytes(300)),
    "a key that nobody has": set_column("sealed_by", "00000000"),
    "no key named": set_column("sealed_by", None),
    "a body cut": set_column("body", '{"schema":1,"record_id":"rec'),
    "a body of bytes": set_column("body", b"\xff\xfe"),
    "another schema": in_body('"schema":1', '"schema":2'),
    "another record's body": in_body("record-1", "record-9"),
    "an older version": in_body('"version":2', '"version":1'),
    "another state in the body": in_body("PREPARED", "RELEASED"),
    "another state in the column": set_column("state", "ACCEPTED"),
    "a state that nobody knows": set_column("state", "SHIFTED"),
}


@pytest.mark.parametrize("tamper", TAMPERINGS.values(), ids=TAMPERINGS.keys())
def test_row_that_can_not_be_read_quarantines_its_request_and_cmk(
    files: Files, tamper: Callable[[Files], object]
) -> None:
    ledger, _ = filled(files)
    ledger.update(prepared(ledger.insert(attempt(2)), wrapped_key_material=bytes(256)))
    free = ledger.insert(attempt(3, state=State.CREATING, cmk=None))
    tamper(files)
    asks: list[Callable[[], object]] = [
        lambda: ledger.find("jwt:caller", "request-1"),
        lambda: ledger.holder(cmk("key-1")),
        lambda: ledger.insert(attempt(4, request_id="request-1")),
        lambda: ledger.insert(attempt(5, cmk=cmk("key-1"))),
        lambda: ledger.update(replace(free, state=State.CLAIMED, cmk=cmk("key-1"))),
    ]
    for ask in asks:
        with structlog.testing.capture_logs() as logs, pytest.raises(BrokerError) as caught:
            ask()
        assert caught.value.reason is Reason.LEDGER_RECORD_UNREADABLE
        assert caught.value.metadata == {"key_id": "key-1"}
        said = "".join(traceback.format_exception(caught.value)) + str(logs)
        check_absent(said.encode())
    assert ledger.attempted(cmk("key-1"))
    assert ledger.find("jwt:caller", "request-3") == free


@pytest.mark.parametrize("name", ["a body cut", "a key that nobody has"])
def test_unfinished_skips_it_and_logs_it_once(files: Files, name: str) -> None:
    ledger, _ = filled(files)
    TAMPERINGS[name](files)
    other = ledger.insert(attempt(2))
    with structlog.testing.capture_logs() as logs:
        assert list(ledger.unfinished()) == [other]
        assert list(ledger.unfinished()) == [other]
    assert [(entry["event"], entry["record_id"]) for entry in logs] == [("ledger_record_unreadable", "record-1")]
    check_absent(str(logs).encode())


def test_row_by_its_tag_that_can_not_be_read_is_refused(files: Files) -> None:
    ledger, _ = filled(files)
    set_column("tag", "some-tag")(files)
    with pytest.raises(BrokerError) as caught:
        ledger.find_tag("some-tag")
    assert caught.value.reason is Reason.LEDGER_RECORD_UNREADABLE


def test_secrets_are_in_no_repr_and_no_log(files: Files) -> None:
    with structlog.testing.capture_logs() as logs:
        ledger, row = filled(files)
        shown = repr(row) + repr(ledger) + repr(vars(ledger)) + repr(ledger.unfinished())
    check_absent((shown + str(logs)).encode())

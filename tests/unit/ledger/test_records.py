"""Bodies of rows: every Attempt comes back as it was, and nothing else is taken for one."""

import json
from dataclasses import fields, replace
from datetime import UTC
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keybroker.adapters.ledger.records import SCHEMA, Unreadable, columns, decode, encode
from keybroker.adapters.ledger.sealing import random_keyring
from keybroker.adapters.ledger.sqlite import SqliteLedger
from keybroker.domain.attempt import Attempt, Creation, Evidence, Failure, Kind, State
from keybroker.domain.external_key import CmkName, ExternalKey, KeyState
from keybroker.domain.key_spec import AES_128, AES_256, KEY_SPECS
from tests.unit.ledger.support import BLOB, EXPIRY, OAEP, TOKEN, StillClock, attempt, cmk

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
counts = st.integers(0, 99)
instants = st.datetimes(timezones=st.just(UTC))
maybe_instants = st.none() | instants
specs = st.sampled_from(list(KEY_SPECS.values()))
names = st.builds(CmkName, texts, texts, texts)
creations = st.builds(
    Creation,
    tag=texts,
    spec=specs,
    alias=texts,
    sends=counts,
    first_sent_at=maybe_instants,
    key_id=texts,
    kms_request_id=texts,
)
keys = st.builds(
    ExternalKey,
    name=names,
    arn=texts,
    dkms_instance_id=texts,
    spec=st.none() | specs,
    state=st.sampled_from(KeyState),
    origin=texts,
    created_at=maybe_instants,
    delete_at=maybe_instants,
    as_of=maybe_instants,
)
failures = st.builds(
    Failure, reason=texts, message=texts, metadata=st.lists(st.tuples(texts, texts), max_size=3).map(tuple)
)
EVERY_FIELD = {
    "record_id": texts,
    "caller": texts,
    "request_id": texts,
    "kind": st.sampled_from(Kind),
    "request_digest": st.binary(max_size=32),
    "region": texts,
    "dkms_instance_id": texts,
    "state": st.sampled_from([State.PREPARED, State.ACCEPTED]),
    "version": st.just(0),
    "cmk": st.none() | names,
    "creation": st.none() | creations,
    "first": st.booleans(),
    "restored": st.booleans(),
    "material_id": texts,
    "algorithm": st.just(OAEP),
    "parameters": texts,
    "sends": counts,
    "refused": counts,
    "pair_expiries": st.lists(instants, max_size=3).map(tuple),
    "import_token": texts,
    "wrapped_key_material": st.binary(max_size=300),
    "check_value": st.binary(max_size=8),
    "kms_request_id": texts,
    "accepted_at": maybe_instants,
    "entropy_source": texts,
    "entropy_tests": texts,
    "wrapping_public_key_digest": st.binary(max_size=32),
    "audit_line": texts,
    "receipt": texts,
    "evidence": st.none() | st.sampled_from(Evidence),
    "key": st.none() | keys,
    "failure": st.none() | failures,
    "created_at": maybe_instants,
    "updated_at": st.none(),
}


def full() -> Attempt:
    key = ExternalKey(cmk(), "acs:kms", "kst", AES_128, KeyState.ENABLED, "EXTERNAL", EXPIRY, EXPIRY, EXPIRY)
    return attempt(
        creation=Creation("tag", AES_256, "alias/a", 1, EXPIRY, "key-1", "a-request"),
        pair_expiries=(EXPIRY,),
        key=key,
        evidence=Evidence.PROVED,
        entropy_source="pkcs11",
        entropy_tests="passed",
        wrapping_public_key_digest=bytes(32),
        audit_line="ab" * 32,
        receipt="e30.e30.e30",
        failure=Failure("REASON", "Words.", (("a", "b"),)),
        accepted_at=EXPIRY,
        import_token=TOKEN,
        wrapped_key_material=BLOB,
    )


def row(body: str | bytes | None = None, **changes: object) -> dict[str, object]:
    return {**columns(full()), "body": encode(full()) if body is None else body, **changes}


@given(st.fixed_dictionaries(EVERY_FIELD))
def test_every_attempt_comes_back_from_the_ledger_as_it_was(values: dict[str, Any]) -> None:
    ledger = SqliteLedger(keyring=random_keyring(), clock=StillClock())
    ledger.connect()
    written = ledger.insert(Attempt(**values))
    (found,) = ledger.unfinished()
    ledger.close()
    assert found == written
    assert found == Attempt(
        **{
            **values,
            "version": written.version,
            "created_at": values["created_at"] or StillClock().now(),
            "updated_at": StillClock().now(),
        }
    )
    if found.key and values["key"]:
        assert found.key.as_of == values["key"].as_of  # which no comparison looks at


def test_strategy_has_every_field() -> None:
    assert EVERY_FIELD.keys() == {field.name for field in fields(Attempt)}


def test_body_has_neither_token_nor_blob() -> None:
    body = encode(full())
    assert TOKEN not in body
    assert BLOB.hex() not in body
    assert decode(row()) == replace(full(), import_token="", wrapped_key_material=b"")


# Bodies that are none


def changed(*path: str | int, to: object) -> str:
    tree: Any = json.loads(encode(full()))
    node = tree
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = to
    return json.dumps(tree)


def without(*path: str) -> str:
    tree: Any = json.loads(encode(full()))
    node = tree
    for step in path[:-1]:
        node = node[step]
    del node[path[-1]]
    return json.dumps(tree)


FIELDS = sorted(json.loads(encode(full())))


LATER = ["entropy_source", "entropy_tests", "wrapping_public_key_digest", "audit_line", "receipt"]


@pytest.mark.parametrize("name", LATER)
def test_body_of_before_a_field_was_recorded_has_none(name: str) -> None:
    found = decode(row(without(name)))
    assert not getattr(found, name)
    assert found.check_value == full().check_value


def test_creation_of_before_its_request_id_was_recorded_has_none() -> None:
    tree = json.loads(encode(full()))
    del tree["creation"]["kms_request_id"]
    assert decode(row(json.dumps(tree))).creation == replace(full().creation, kms_request_id="")


@pytest.mark.parametrize("name", [name for name in FIELDS if name not in LATER])
def test_body_without_a_field_is_unreadable(name: str) -> None:
    with pytest.raises(Unreadable):
        decode(row(without(name)))


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", [1.5, {}, {"a": 1}, [1], "a word", -1, [["a"]]], ids=repr)
def test_field_of_another_kind_is_unreadable(name: str, value: object) -> None:
    if name in {"sends", "refused"} and value == -1:
        return  # counts are the protocol's to judge
    good = {"entropy_source", "material_id", "algorithm", "parameters", "kms_request_id", "region", "dkms_instance_id"}
    good |= {"entropy_tests", "audit_line", "receipt"}
    if name in good and value == "a word":
        return
    with pytest.raises(Unreadable):
        decode(row(changed(name, to=value)))


@pytest.mark.parametrize(
    "body",
    [
        "",
        encode(full())[:-1],
        encode(full())[: len(encode(full())) // 2],
        "null",
        "[]",
        "{}",
        "[" * 100_000,
        b"\xff\xfe\x00",
        changed("schema", to=SCHEMA + 1),
        changed("schema", to=str(SCHEMA)),
        changed("something", to=1),
        changed("creation", "spec", to="Aliyun_SM4"),
        changed("creation", "something", to=1),
        without("creation", "tag"),
        without("key", "as_of"),
        without("failure", "reason"),
        changed("failure", "metadata", 0, to=["a"]),
        changed("cmk", to=["a", "b"]),
        changed("pair_expiries", 0, to="2026-01-03T03:04:05"),
        changed("state", to="SOMETHING"),
        changed("sends", to=True),
        changed("request_digest", to="0g"),
    ],
    ids=lambda body: repr(body[:30]),
)
def test_body_that_this_version_did_not_write_is_unreadable(body: str | bytes) -> None:
    with pytest.raises(Unreadable):
        decode(row(body))


@pytest.mark.parametrize("name", columns(full()))
def test_column_that_says_something_else_is_unreadable(name: str) -> None:
    with pytest.raises(Unreadable):
        decode(row(**{name: "other"}))
    with pytest.raises(Unreadable):
        decode(row(**{name: None}))


@given(st.text(max_size=60) | st.binary(max_size=60))
def test_noise_is_unreadable(noise: str | bytes) -> None:
    with pytest.raises(Unreadable):
        decode(row(noise))

"""What a receipt claims, for each evidence and each kind of import: what the row says, and nothing else."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from keybroker.domain.attempt import Attempt, Creation, Evidence, Kind, State
from keybroker.domain.external_key import CmkName, ExternalKey, KeyState
from keybroker.domain.key_spec import AES_192
from keybroker.domain.receipt import LONGEST_BYTES, claims, payload

REQUESTED = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
ACCEPTED = datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC)
DESCRIBED = datetime(2026, 1, 2, 3, 4, 7, tzinfo=UTC)
ISSUED = datetime(2026, 1, 2, 3, 4, 8, 999_999, tzinfo=UTC)
CMK = CmkName("1540355698840000", "cn-hangzhou", "key-1")
KEY = ExternalKey(CMK, "acs:kms:…:key/key-1", "kst-example", AES_192, KeyState.ENABLED, "EXTERNAL", as_of=DESCRIBED)
ROW = Attempt(
    record_id="record-1",
    caller="x509:spiffe://example/billing",
    request_id="request-1",
    kind=Kind.IMPORT,
    request_digest=b"request-digest-canary",
    region="cn-hangzhou",
    dkms_instance_id="kst-example",
    state=State.IMPORTED,
    cmk=CMK,
    material_id="material-id-canary",
    algorithm="RSAES_OAEP_SHA_256",
    parameters="cached",
    sends=3,
    refused=1,
    import_token="import-token-canary",
    wrapped_key_material=b"wrapped-canary",
    check_value=bytes.fromhex("4bfc29"),
    kms_request_id="kms-request-1",
    accepted_at=ACCEPTED,
    evidence=Evidence.ACCEPTED,
    entropy_source="pkcs11",
    entropy_tests="passed",
    wrapping_public_key_digest=bytes(range(32)),
    audit_line="ab" * 32,
    key=KEY,
    created_at=REQUESTED,
)
CREATION = Creation("tag", AES_192, sends=1, key_id="key-1")
WITHOUT_AN_ANSWER = replace(ROW, accepted_at=None)  # its kms_request_id is then of something else
BY_CALLER = replace(
    ROW,
    kind=Kind.IMPORT_WRAPPED,
    check_value=b"",
    entropy_source="",
    entropy_tests="",
    wrapping_public_key_digest=b"",
    material_id="f" * 64,
)

FULL: dict[str, Any] = {
    "iss": "keybroker",
    "broker_version": "1.2.3",
    "jti": "record-1",
    "iat": 1767323048,
    "caller": "x509:spiffe://example/billing",
    "request_id": "request-1",
    "requested_at": "2026-01-02T03:04:05Z",
    "cmk": {
        "arn": "acs:kms:…:key/key-1",
        "key_id": "key-1",
        "account": "1540355698840000",
        "region": "cn-hangzhou",
        "dkms_instance_id": "kst-example",
        "key_spec": "Aliyun_AES_192",
    },
    "material": {
        "from": "broker",
        "length_bits": 192,
        "check_value": {
            "method": "cmac-aes",
            "value": "4bfc29",
            "means": "24 bits that identify what was generated; no proof of what the HSM holds",
        },
        "entropy": {"source": "pkcs11", "health_tests": "passed"},
    },
    "wrapped": {"algorithm": "RSAES_OAEP_SHA_256", "wrapping_public_key_sha256": bytes(range(32)).hex()},
    "sends": {"recorded": 3, "without_effect": 1},
    "kms": {
        "accepted": {"request_id": "kms-request-1", "at": "2026-01-02T03:04:06Z"},
        "described": {"state": "Enabled", "as_of": "2026-01-02T03:04:07Z"},
    },
    "evidence": {
        "kind": "ACCEPTED",
        "means": "the KMS answered success to this wrapped key material, and showed the CMK with key material",
    },
    "audit_line": "ab" * 32,
}


def claimed(row: Attempt) -> dict[str, Any]:
    return dict(claims(row, version="1.2.3", issued_at=ISSUED))


def test_claims_of_an_accepted_import_are_all_that_its_row_says() -> None:
    assert claimed(ROW) == FULL


# What is not known is not there: the row, and the part of its claims that differs
LESS: list[tuple[str, Attempt, dict[str, Any]]] = [
    ("no answer", WITHOUT_AN_ANSWER, {"kms": {"described": FULL["kms"]["described"]}}),
    ("by a caller", BY_CALLER, {"material": {"from": "caller"}, "wrapped": {"algorithm": "RSAES_OAEP_SHA_256"}}),
    ("foreign token", replace(BY_CALLER, algorithm=""), {"material": {"from": "caller"}, "wrapped": None}),
    ("no audit", replace(ROW, audit_line=""), {"audit_line": None}),
    ("no identities", replace(ROW, caller=""), {"caller": None}),
    ("no time of request", replace(ROW, created_at=None), {"requested_at": None}),
    (
        "no date of the KMS",
        replace(WITHOUT_AN_ANSWER, key=replace(KEY, as_of=None)),
        {"kms": {"described": {"state": "Enabled"}}},
    ),
    (
        "disabled meanwhile",
        replace(WITHOUT_AN_ANSWER, key=replace(KEY, state=KeyState.DISABLED)),
        {"kms": {"described": {"state": "Disabled", "as_of": "2026-01-02T03:04:07Z"}}},
    ),
    (
        "of an older version",
        replace(ROW, entropy_tests="", wrapping_public_key_digest=b""),
        {
            "material": FULL["material"] | {"entropy": {"source": "pkcs11"}},
            "wrapped": {"algorithm": "RSAES_OAEP_SHA_256"},
        },
    ),
    (
        "restored",
        replace(ROW, restored=True),
        {"sends": {"recorded": 3, "without_effect": 1, "more_unknown": True}},
    ),
    (
        "a CMK that was made for it",
        replace(ROW, creation=replace(CREATION, kms_request_id="create-request-1")),
        {"kms": FULL["kms"] | {"created": {"request_id": "create-request-1"}}},
    ),
    ("a CMK that was found by its tag", replace(ROW, creation=CREATION), {}),
    (
        "a success without a request id",
        replace(ROW, kms_request_id=""),
        {"kms": FULL["kms"] | {"accepted": {"at": "2026-01-02T03:04:06Z"}}},
    ),
]


@pytest.mark.parametrize(("row", "different"), [case[1:] for case in LESS], ids=[case[0] for case in LESS])
def test_what_is_not_known_is_not_claimed(row: Attempt, different: dict[str, Any]) -> None:
    expected = {name: value for name, value in (FULL | different).items() if value is not None}
    assert claimed(row) == expected


@pytest.mark.parametrize("evidence", Evidence)
def test_each_evidence_is_said_with_its_meaning(evidence: Evidence) -> None:
    told = claimed(replace(WITHOUT_AN_ANSWER, evidence=evidence))["evidence"]
    assert told["kind"] == evidence.value
    words = {
        Evidence.ACCEPTED: "answered success",
        Evidence.PROVED: "encrypted a nonce",
        Evidence.SOLE_IMPORTER: "no success was heard",
    }
    assert [word for word in words.values() if word in told["means"]] == [words[evidence]]


@pytest.mark.parametrize("state", set(State) - {State.IMPORTED})
def test_row_that_is_not_imported_has_no_claims(state: State) -> None:
    with pytest.raises(ValueError, match="only an import with evidence"):
        claimed(replace(ROW, state=state))


@pytest.mark.parametrize("missing", ["evidence", "key"])
def test_row_without_evidence_has_no_claims(missing: str) -> None:
    with pytest.raises(ValueError, match="only an import with evidence"):
        claimed(replace(ROW, **{missing: None}))  # type: ignore[arg-type]


def test_payload_is_the_same_to_the_byte_and_holds_no_token_and_no_material() -> None:
    made = payload(ROW, version="1.2.3", issued_at=ISSUED)
    assert made == payload(replace(ROW), version="1.2.3", issued_at=ISSUED)
    assert json.loads(made) == FULL
    assert b"canary" not in made


@pytest.mark.parametrize("caller", ["x509:spiffe://example/" + "p" * 3000, "jwt:" + "\U0001f511" * 700, '"' * 1300])
def test_caller_that_is_too_long_is_told_by_its_hash(caller: str) -> None:
    import hashlib  # noqa: PLC0415

    told = claimed(replace(ROW, caller=caller))
    assert "caller" not in told
    assert told["caller_sha256"] == hashlib.sha256(caller.encode()).hexdigest()


@pytest.mark.parametrize(
    "caller", ["x509:spiffe://" + "p" * 2043, "jwt:https://issuer#" + "\U0001f511" * 512, '"' * 1190]
)
def test_receipt_of_the_longest_values_stays_under_8_kib(caller: str) -> None:
    """Each value at the limit of whoever lets it in: adapters/identity, adapters/kms/replies.py, rpc/requests.py."""
    cmk = CmkName("1" * 32, "r" * 64, "k" * 128)
    arn = f"acs:kms:{cmk.region}:{cmk.account}:key/{cmk.key_id}"
    row = replace(
        ROW,
        caller=caller,
        record_id="8a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4e",
        request_id="8a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4e",
        dkms_instance_id="k" * 64,
        cmk=cmk,
        kms_request_id="r" * 64,
        creation=replace(CREATION, kms_request_id="r" * 64),
        evidence=Evidence.SOLE_IMPORTER,
        sends=10**9,
        refused=10**9,
        restored=True,
        key=replace(KEY, name=cmk, arn=arn),
    )
    assert claimed(row)["caller"] == caller
    longest = payload(row, version="100.100.100.dev100", issued_at=ISSUED)
    header_and_signature = 170 + 86 + 2
    assert len(longest) * 4 / 3 + header_and_signature < LONGEST_BYTES

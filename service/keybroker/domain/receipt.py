"""What a receipt claims of an import: what the ledger's row says at its end, and no more.

Pure: the row goes in, the payload comes out, stable to the byte. Who signs it is adapters/receipts.py's. What is not
known is left out: the KMS's answer where none was heard, the wrapping public key and the check value of material that
a caller brought. docs/receipts.md has each claim with its meaning.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime

from keybroker.domain.attempt import Attempt, Evidence, Kind, State
from keybroker.domain.external_key import ExternalKey

MEDIA_TYPE = "keybroker-receipt+jwt"
"""The header's typ: tells a receipt from an access token. Source: RFC 8725 §3.11."""

LONGEST_BYTES = 8 * 1024
"""Of a receipt in compact form."""

ISSUER = "keybroker"

_LONGEST_CALLER_BYTES = 2400  # as JSON: a SPIFFE ID has at most 2048, a token's subject 512 characters
_CHECK_VALUE_MEANS = "24 bits that identify what was generated; no proof of what the HSM holds"
_EVIDENCE_MEANS = {
    Evidence.ACCEPTED: "the KMS answered success to this wrapped key material, and showed the CMK with key material",
    Evidence.PROVED: "the KMS encrypted a nonce under the CMK, and the material that was generated opened it",
    Evidence.SOLE_IMPORTER: (
        "no success was heard from the KMS; the CMK had no key material before the first send and has some now, and "
        "the operator asserts that nothing else imports into it"
    ),
}

Claims = Mapping[str, object]


def payload(row: Attempt, *, version: str, issued_at: datetime) -> bytes:
    """The claims of an IMPORTED row as one JSON object in UTF-8. `version` is the broker's."""
    return json.dumps(
        claims(row, version=version, issued_at=issued_at), separators=(",", ":"), ensure_ascii=False
    ).encode()


def claims(row: Attempt, *, version: str, issued_at: datetime) -> Claims:
    """See the module. `iss`, `iat` and `jti` as in RFC 7519 §4.1."""
    if row.state is not State.IMPORTED or row.evidence is None or row.key is None:
        raise ValueError("only an import with evidence gets a receipt")
    return _known(
        {
            "iss": ISSUER,
            "broker_version": version,
            "jti": row.record_id,
            "iat": int(issued_at.timestamp()),
            **_caller(row.caller),
            "request_id": row.request_id,
            "requested_at": _instant(row.created_at),
            "cmk": _cmk(row, row.key),
            "material": _generated(row, row.key) if row.kind is Kind.IMPORT else {"from": "caller"},
            "wrapped": _wrapped(row),
            "sends": _sends(row),
            "kms": _kms(row, row.key),
            "evidence": {"kind": row.evidence.value, "means": _EVIDENCE_MEANS[row.evidence]},
            "audit_line": row.audit_line,
        }
    )


def _caller(principal: str) -> Claims:
    """Who asked. A name that is too long for a receipt is told by its SHA-256; without identities there is none."""
    if len(json.dumps(principal, ensure_ascii=False).encode()) > _LONGEST_CALLER_BYTES:
        return {"caller_sha256": hashlib.sha256(principal.encode()).hexdigest()}
    return {"caller": principal}


def _cmk(row: Attempt, key: ExternalKey) -> Claims:
    return _known(
        {
            "arn": key.arn,
            "key_id": key.name.key_id,
            "account": key.name.account,
            "region": key.name.region,
            "dkms_instance_id": row.dkms_instance_id,
            "key_spec": key.spec.kms_name if key.spec else "",
        }
    )


def _generated(row: Attempt, key: ExternalKey) -> Claims:
    return _known(
        {
            "from": "broker",
            "length_bits": key.spec.length_bytes * 8 if key.spec else None,
            "check_value": {"method": "cmac-aes", "value": row.check_value.hex(), "means": _CHECK_VALUE_MEANS},
            "entropy": _known({"source": row.entropy_source, "health_tests": row.entropy_tests}),
        }
    )


def _wrapped(row: Attempt) -> Claims:
    return _known({"algorithm": row.algorithm, "wrapping_public_key_sha256": row.wrapping_public_key_digest.hex()})


def _sends(row: Attempt) -> Claims:
    """What was recorded. A send is recorded before it is made: one that a crash prevented counts too."""
    counts: dict[str, object] = {"recorded": row.sends, "without_effect": row.refused}
    return counts | {"more_unknown": True} if row.restored else counts


def _kms(row: Attempt, key: ExternalKey) -> Claims:
    """A success only if one was heard: `kms_request_id` alone proves none, and a success may have come without it."""
    created = {"request_id": row.creation.kms_request_id} if row.creation else {}
    accepted = {"request_id": row.kms_request_id, "at": _instant(row.accepted_at)} if row.accepted_at else {}
    described = {"state": key.state.value, "as_of": _instant(key.as_of)}
    return _known({"created": _known(created), "accepted": _known(accepted), "described": _known(described)})


def _instant(at: datetime | None) -> str:
    """RFC 3339 in UTC, to the second."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if at else ""


def _known(fields: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value not in ("", None, {})}

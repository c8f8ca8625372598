"""The KMS's replies, from JSON to domain values. Strict about types, sizes and what must agree; lenient about the rest.

No text of the KMS goes further than these values: not its messages, and of RequestIds only what looks like one.
Source: contract 1.1 to 1.4 and 3.4.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from keybroker.adapters.kms.error_table import kms_error
from keybroker.adapters.kms.failures import unreadable
from keybroker.adapters.kms.transport import Reply
from keybroker.domain.errors import KmsError
from keybroker.domain.external_key import CmkName, ExternalKey, KeyState
from keybroker.domain.import_parameters import ImportParameters
from keybroker.domain.key_spec import KEY_SPECS
from keybroker.domain.wrapping import WrappingAlgorithm
from keybroker.ports import KmsReply

Body = Mapping[str, Any]

MAX_RETRY_AFTER_SECONDS = 60.0
_MAX_TEXT = 16 * 1024
_OK = 200
_REQUEST_ID = re.compile(r"[0-9A-Za-z-]{1,64}")
_KEY_ID = re.compile(r"[0-9A-Za-z_-]{1,128}")
_ARN = re.compile(r"acs:kms:(?P<region>[a-z0-9-]{1,64}):(?P<account>[0-9]{1,32}):key/(?P<key_id>[0-9A-Za-z_-]{1,128})")
_IMPORT_TOKEN = re.compile(r"[!-~]{1,16384}")


def read_body(reply: Reply) -> Body:
    """The JSON object of a success reply.

    Reasons: those of the error table, KMS_ERROR_UNRECOGNISED, KMS_RESPONSE_INVALID, KMS_UNAVAILABLE.
    """
    body = _json_object(reply.body)
    if body is None:
        raise unreadable("it is not a JSON object", status=reply.status)
    request_id = _request_id(body)
    if reply.status == _OK and "Code" not in body:
        return body
    code = body.get("Code")
    if reply.status < 400 or not isinstance(code, str):  # noqa: PLR2004
        raise unreadable("it is neither success nor an error", status=reply.status, request_id=request_id)
    raise kms_error(code, reply.status, request_id=request_id, retry_after_seconds=_retry_after(reply))


def read_change(body: Body) -> KmsReply:
    """The KMS's word that a change was made. It always has a RequestId."""
    _text(body, "RequestId")
    return KmsReply(_request_id(body))


def read_key(body: Body, *, region: str) -> ExternalKey:
    """A KeyMetadata whose ARN, region and key id agree."""
    metadata = body.get("KeyMetadata")
    if not isinstance(metadata, dict):
        raise _invalid(body, "KeyMetadata")
    metadata = {**metadata, "RequestId": body.get("RequestId")}  # for the errors
    name = _name(metadata, region)
    state = _text(metadata, "KeyState")
    return ExternalKey(
        name=name,
        arn=_text(metadata, "Arn"),
        dkms_instance_id=_text(metadata, "DKMSInstanceId", optional=True),
        spec=KEY_SPECS.get(_text(metadata, "KeySpec", optional=True)),
        state=KeyState(state) if state in set(KeyState) else KeyState.UNKNOWN,
        origin=_text(metadata, "Origin"),
        created_at=_instant(metadata, "CreationDate"),
        delete_at=_instant(metadata, "DeleteDate"),
    )


def created_key_id(body: Body) -> dict[str, str]:
    """Error metadata that names the CMK which a CreateKey reply tells of, for a reply that read_key refuses."""
    metadata = body.get("KeyMetadata")
    key_id = metadata.get("KeyId") if isinstance(metadata, dict) else None
    return {"created_key_id": key_id} if isinstance(key_id, str) and _KEY_ID.fullmatch(key_id) else {}


def read_import_parameters(body: Body, *, cmk: CmkName, algorithm: WrappingAlgorithm) -> ImportParameters:
    """One GetParametersForImport answer, for the CMK that was asked for. The public key is not vetted here."""
    if _text(body, "KeyId") != cmk.key_id:
        raise _invalid(body, "KeyId")
    expires_at = _instant(body, "TokenExpireTime")
    if expires_at is None:
        raise _invalid(body, "TokenExpireTime")
    import_token = _text(body, "ImportToken")
    if not _IMPORT_TOKEN.fullmatch(import_token):
        raise _invalid(body, "ImportToken")
    return ImportParameters(cmk, algorithm, _decoded(body, "PublicKey"), import_token, expires_at)


def _name(metadata: Body, region: str) -> CmkName:
    key_id = _text(metadata, "KeyId")
    if not _KEY_ID.fullmatch(key_id):
        raise _invalid(metadata, "KeyId")
    arn = _ARN.fullmatch(_text(metadata, "Arn"))
    if arn is None or arn["region"] != region or arn["key_id"] != key_id:
        raise _invalid(metadata, "Arn")
    return CmkName(arn["account"], region, key_id)


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _text(body: Body, name: str, *, optional: bool = False) -> str:
    """A text field. An optional one may be absent, null or empty."""
    value = body.get(name)
    if optional and value is None:
        return ""
    if not isinstance(value, str) or len(value) > _MAX_TEXT or not (value or optional):
        raise _invalid(body, name)
    return value


def _instant(body: Body, name: str) -> datetime | None:
    text = _text(body, name, optional=True)
    if not text:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        failure = _invalid(body, name)
    raise failure


def _decoded(body: Body, name: str) -> bytes:
    text = _text(body, name)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        failure = _invalid(body, name)
    raise failure


def _request_id(body: Body) -> str:
    request_id = body.get("RequestId")
    return request_id if isinstance(request_id, str) and _REQUEST_ID.fullmatch(request_id) else ""


def _retry_after(reply: Reply) -> float | None:
    """x-acs-retry-after is in milliseconds."""
    text = reply.headers.get("x-acs-retry-after", "")
    if not re.fullmatch(r"[0-9]{1,12}", text) or int(text) == 0:
        return None
    return min(int(text) / 1000, MAX_RETRY_AFTER_SECONDS)


def _invalid(body: Body, name: str) -> KmsError:
    return unreadable(f"{name} is missing or not what it must be", request_id=_request_id(body))

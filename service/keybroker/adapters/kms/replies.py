"""The KMS's replies, from JSON to domain values. Strict about types, sizes and what must agree; lenient about the rest.

No text of the KMS goes further than these values: not its messages, and of RequestIds only what looks like one.
Source: contract 1.1 to 1.4, 1.7, 1.10, 1.11 and 3.4; RFC 9110 §5.6.7 for Date.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any

from keybroker.adapters.kms.error_table import kms_error
from keybroker.adapters.kms.failures import unreadable
from keybroker.adapters.kms.transport import Reply
from keybroker.domain.errors import KmsError
from keybroker.domain.external_key import CmkName, ExternalKey, KeyState
from keybroker.domain.import_parameters import ImportParameters
from keybroker.domain.key_spec import KEY_SPECS
from keybroker.domain.wrapping import WrappingAlgorithm
from keybroker.ports import KeyPage, KmsReply

Body = Mapping[str, Any]

MAX_RETRY_AFTER_SECONDS = 60.0
PAGE_SIZE = 100
_MAX_TEXT = 16 * 1024
_OK = 200
_REQUEST_ID = re.compile(r"[0-9A-Za-z-]{1,64}")
_KEY_ID = re.compile(r"[0-9A-Za-z_-]{1,128}")
_ARN = re.compile(r"acs:kms:(?P<region>[a-z0-9-]{1,64}):(?P<account>[0-9]{1,32}):key/(?P<key_id>[0-9A-Za-z_-]{1,128})")
_IMPORT_TOKEN = re.compile(r"[!-~]{1,16384}")
_YEARS = range(1970, 3000)
_IMF_FIXDATE = re.compile(r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT")


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


def read_date(reply: Reply) -> datetime | None:
    """The reply's Date, cut to the second by who sent it.

    None if there is none, or not one IMF-fixdate, or of a year that no clock shows: what our time is corrected by must
    leave it a time.
    """
    text = reply.headers.get("date", "")
    if not _IMF_FIXDATE.fullmatch(text):
        return None
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    is_one = format_datetime(date, usegmt=True) == text and date.year in _YEARS  # the weekday must agree too
    return date if is_one else None


def read_change(body: Body) -> KmsReply:
    """The KMS's word that a change was made. It always has a RequestId."""
    _text(body, "RequestId")
    return KmsReply(_request_id(body))


def read_key(body: Body, *, region: str, as_of: datetime | None = None) -> ExternalKey:
    """A KeyMetadata whose ARN, region and key id agree. `as_of` is the Date that it came with."""
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
        as_of=as_of,
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


def read_key_page(body: Body, *, page: int) -> KeyPage:
    """The key ids of one ListKeys answer, for the page that was asked for."""
    if body.get("PageNumber") != page:
        raise _invalid(body, "PageNumber")
    key_ids = tuple(_text(each, "KeyId") for each in _objects(body, "Keys", "Key"))
    if len(key_ids) > PAGE_SIZE or not all(map(_KEY_ID.fullmatch, key_ids)):
        raise _invalid(body, "Keys")
    total = body.get("TotalCount")
    if type(total) is not int or total < len(key_ids):
        raise _invalid(body, "TotalCount")
    return KeyPage(key_ids, total)


def read_tags(body: Body, *, key_id: str) -> Mapping[str, str]:
    """The tags of the CMK that was asked for."""
    entries = _objects(body, "Tags", "Tag")
    tags = {_text(each, "TagKey"): _text(each, "TagValue", optional=True) for each in entries}
    if len(tags) < len(entries) or any(each.get("KeyId") != key_id for each in entries):
        raise _invalid(body, "Tags")
    return tags


def read_ciphertext(body: Body, *, key_id: str) -> bytes:
    """The ciphertext blob of one Encrypt answer, at most 12 KiB, made with the CMK that was asked for."""
    if _text(body, "KeyId") != key_id:
        raise _invalid(body, "KeyId")
    return _decoded(body, "CiphertextBlob")


def _objects(body: Body, outer: str, inner: str) -> list[Body]:
    """A list as the KMS nests it, {"Keys": {"Key": […]}}. Its entries get the RequestId, for the errors."""
    nested = body.get(outer)
    entries = nested.get(inner) if isinstance(nested, dict) else None
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        raise _invalid(body, outer)
    return [{**each, "RequestId": body.get("RequestId")} for each in entries]


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

"""Requests and replies as values, and the documented shapes of bodies. No sockets.

Source: contract sections 1 (RequestId), 3.1 (parameters) and 3.4 (error bodies).
"""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from kms_emulator.errors import KmsError, Layer, rule_for_code
from kms_emulator.faults import Fault
from kms_emulator.signatures import decode_query

FORM_CONTENT_TYPE = "application/x-www-form-urlencoded"

Transport = Literal["whole", "truncated", "dropped", "reset"]


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One HTTP request; `headers` has lower-case names, `query` is as it stood in the URL."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    def parameters(self) -> dict[str, str]:
        """Query and form parameters together; UnicodeDecodeError when they are not UTF-8. Contract section 3.1."""
        pairs = decode_query(self.query)
        if self.headers.get("content-type", "").partition(";")[0].strip().lower() == FORM_CONTENT_TYPE:
            pairs += decode_query(self.body.decode())
        return dict(pairs)


@dataclass(frozen=True, slots=True)
class HttpReply:
    """One HTTP reply; `transport` says how much of it reaches the client."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json;charset=utf-8"
    transport: Transport = "whole"


def json_reply(status: int, body: Mapping[str, object], headers: Mapping[str, str] | None = None) -> HttpReply:
    """A whole reply with a JSON body."""
    return HttpReply(status, json.dumps(body, separators=(",", ":")).encode(), headers or {})


def success_reply(body: Mapping[str, object]) -> HttpReply:
    """200 with the operation's body and a lower-case RequestId."""
    return json_reply(200, {**body, "RequestId": str(uuid.uuid4())})


def error_reply(error: KmsError, *, host: str = "") -> HttpReply:
    """The answer to a refused request, in the shape of the layer that refused it; `host` is the request's."""
    rule = error.rule
    body = _error_body(rule.layer, rule.status, rule.code, error.message, host)
    return json_reply(rule.status, body, _retry_header(error.retry_after_ms))


def broken_reply(fault: Fault, reply: HttpReply) -> HttpReply:
    """What a fault that breaks the answer makes of `reply`."""
    match fault.action:
        case "drop" | "late":
            return replace(reply, transport="dropped")
        case "reset":
            return replace(reply, transport="reset")
        case "truncated":
            return replace(reply, transport="truncated")
        case "garbage":
            return HttpReply(200, b"\x00\xff<html>{not json", content_type="text/html")
        case "oversize":
            padded = {**json.loads(reply.body), "Padding": "x" * fault.size_bytes}
            return json_reply(200, padded)
        case _:
            return _fault_error(fault)


def _fault_error(fault: Fault) -> HttpReply:
    rule = rule_for_code(fault.code)
    status = fault.status or (rule.status if rule else 0)
    message = fault.message or (rule.message if rule else fault.code)
    body = _error_body(rule.layer if rule else "service", status, fault.code, message, "")
    return json_reply(status, body, _retry_header(fault.retry_after_ms))


def _retry_header(retry_after_ms: int | None) -> dict[str, str]:
    return {"x-acs-retry-after": str(retry_after_ms)} if retry_after_ms else {}


def _error_body(layer: Layer, status: int, code: str, message: str, host: str) -> dict[str, object]:
    request_id = str(uuid.uuid4())
    if layer == "service":
        return {"HttpStatus": status, "Code": code, "Message": message, "RequestId": request_id}
    return {
        "RequestId": request_id.upper(),
        "HostId": host,
        "Code": code,
        "Message": message,
        "Recommend": f"https://error-center.aliyun.com/status/search?Keyword={code}&source=PopGw",
    }

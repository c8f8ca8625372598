"""Made-up HTTP replies of a KMS, as bytes: good ones with something changed, and what no KMS would send.

Strings have the mark in them. Source: RFC 9112 (messages), contract 1 and 3.4 (bodies, headers, codes).
"""

import copy
import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from keybroker.adapters.kms.error_table import ERROR_TABLE
from tests.fuzz.examples import MARK

STATUSES = st.one_of(st.sampled_from([200, 200, 200, 400, 400, 403, 404, 409, 429, 500, 503]), st.integers(100, 999))
REFUSALS = st.sampled_from([400, 403, 404, 409, 429, 500, 503])
CODES = st.one_of(st.sampled_from(sorted(ERROR_TABLE)), st.sampled_from([MARK, f"Forbidden.{MARK}", "", "throttling"]))
REQUEST_IDS = st.sampled_from(
    [MARK, f"{MARK} x", f"<{MARK}>", f"{MARK}\r\n", MARK * 10, "caf\u00e9", "", None, 1, [MARK]]
)
_DEPTH = 20_000

JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=8).map(lambda text: MARK + text),
        st.sampled_from(["", "Enabled", "PendingImport", "EXTERNAL", "2023-03-25T10:00:00Z", 2**70, -1, MARK * 2000]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=5,
)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "Date",
            "Content-Type",
            "Content-Encoding",
            "Transfer-Encoding",
            "Location",
            "Set-Cookie",
            "Connection",
            "X-Acs-Request-Id",
            "X-Acs-Retry-After",
            "X-Kms-Emulator",
            MARK,
        ]
    ),
    st.sampled_from(
        [
            MARK,
            "",
            "gzip",
            "chunked",
            "0",
            "99999999999999999999",
            "1500",
            "\u00b2",  # a digit, and no number
            "9" * 5000,
            "application/json",
            "http://127.0.0.1:9/",
            "Tue, 24 Nov 2026 10:00:00 GMT",
            "Mon, 01 Jan 0001 00:00:00 GMT",
            "Fri, 31 Dec 9999 23:59:59 GMT",
            "x" * 5000,
            "caf\u00e9",
        ]
    ),
    max_size=3,
)
ODD_BODIES = [
    b"",
    b"<html>" + MARK.encode(),
    b'{"RequestId": NaN}',
    b'{"RequestId": "' + MARK.encode() + b'\xff"}',
    b'{"RequestId": "a", "RequestId": "b", "Code": 1}',
    b"[" * _DEPTH,
    b'{"a":' * _DEPTH,
    b"9" * 6000,
    b'{"KeyMetadata": ' + b"9" * 6000 + b"}",
    b" " * 70_000,
    b"\xef\xbb\xbf{}",
    gzip.compress(b'{"RequestId": "a"}'),
]
BODIES = st.one_of(
    st.binary(max_size=40).map(lambda raw: MARK.encode() + raw),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.sampled_from(ODD_BODIES),
)


@dataclass(frozen=True)
class Made:
    """One reply. `status` and `code` are what it says by itself, `whole` that nothing of it was cut.

    A length that is no number says nothing: such a reply goes up to the end of the connection.
    """

    sent: bytes
    status: int
    code: object = None
    whole: bool = True


def reply(status: int, headers: Mapping[str, str], body: bytes, *, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status} {MARK}", f"Content-Length: {len(body) if length is None else length}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


@st.composite
def any_reply(draw: Callable[[Any], Any], good_body: Mapping[str, Any]) -> Made:
    """A good reply with fields changed, an error reply, or anything. Half are odd in nothing but that: they get far."""
    kind = draw(st.sampled_from(["changed", "changed", "error", "error", "body", "raw"]))
    is_plain = draw(st.booleans())
    statuses = (REFUSALS if kind == "error" else st.just(200)) if is_plain else STATUSES
    status, headers = draw(statuses), {} if is_plain else draw(HEADERS)
    code = None
    match kind:
        case "changed":
            value = _changed(draw, copy.deepcopy(dict(good_body)))
            body, code = json.dumps(value).encode(), value.get("Code")
        case "error":
            code = draw(st.one_of(CODES, CODES, JSON))
            fields = {
                "Code": code,
                "Message": MARK,
                "RequestId": draw(REQUEST_IDS),
                "HttpStatus": draw(STATUSES),
                "HostId": MARK,
            }
            body = json.dumps(fields).encode()
        case "body":
            body = draw(BODIES)
        case _:
            return Made(draw(st.binary(max_size=60)), 0)
    if is_plain:
        return Made(reply(status, headers, body), status, code)
    cut = draw(st.sampled_from([0, 0, 0, 0, 1, 7, 300]))
    extra = draw(st.sampled_from([None, None, None, len(body) + 9, 0, 10**9, -1]))
    sent = reply(status, headers, body, length=extra)
    return Made(sent[: len(sent) - cut], status, code, whole=not cut and extra in {None, -1})


def _changed(draw: Callable[[Any], Any], body: dict[str, Any]) -> dict[str, Any]:
    """One or two fields set to anything or left out; also inside of KeyMetadata."""
    for _ in range(draw(st.integers(0, 2))):
        inner = body.get("KeyMetadata")
        node = inner if isinstance(inner, dict) and draw(st.booleans()) else body
        name = draw(st.sampled_from([*node, "Code", MARK]))
        if draw(st.booleans()):
            node[name] = draw(REQUEST_IDS if name == "RequestId" else JSON)
        else:
            node.pop(name, None)
    return body


def proves_it(made: Made) -> bool:
    """Rule R2: a code of the closed list, with a status that goes with it, is a refusal; or an emulator answered."""
    if b"X-Kms-Emulator" in made.sent:
        return True
    rule = ERROR_TABLE.get(made.code) if isinstance(made.code, str) else None
    return rule is not None and rule.committed_nothing and made.status in rule.statuses and made.status < 500

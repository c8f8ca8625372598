"""The search itself: it finds each form that a secret can take, whole and in part, and nothing else."""

import base64
import json
import os
import pprint
import urllib.parse
from collections.abc import Callable

import pytest

from keymaterial.v1 import key_broker_service_pb2 as pb
from tests.canaries.search import TEXT_RUN_BYTES, Search, Secret

MATERIAL = bytes.fromhex("fbff3e00c1e7275cffd0225c0afb0d1b7f80ff22c3a9e1fa5e3f0900d7b25a11")
TOKEN = "kHt3-Zy0_Qw+9r/8uVb=Lm2%Xn5'Jp7\"Gd4"
SECRETS = [Secret("material", MATERIAL), Secret("token", TOKEN.encode(), TEXT_RUN_BYTES)]

FORMS: dict[str, Callable[[bytes], bytes | str]] = {
    "raw": lambda value: value,
    "backwards": lambda value: value[::-1],
    "hex": lambda value: value.hex(),
    "hex in capitals": lambda value: value.hex().upper(),
    "hex with colons": lambda value: value.hex(":"),
    "hex dump": lambda value: value.hex(" ", -2),
    "base64": base64.b64encode,
    "base64 after 1 byte": lambda value: base64.b64encode(b"?" + value + b"!"),
    "base64 after 2 bytes": lambda value: base64.b64encode(b"??" + value + b"!!"),
    "base64 for URLs": base64.urlsafe_b64encode,
    "base64 for URLs after 1 byte": lambda value: base64.urlsafe_b64encode(b"?" + value),
    "base64 in lines": lambda value: b"\n".join(base64.b64encode(value)[at : at + 5] for at in range(0, 48, 5)),
    "percent-encoded": urllib.parse.quote_from_bytes,
    "every byte percent-encoded": lambda value: "".join(f"%{byte:02x}" for byte in value),
    "base64, percent-encoded": lambda value: urllib.parse.quote(base64.b64encode(value), safe=""),
    "percent-encoded twice": lambda value: urllib.parse.quote(urllib.parse.quote_from_bytes(value)),
    "Python's repr": repr,
    "repr of a text": lambda value: repr(value.decode("latin-1")),
    "repr in a repr": lambda value: repr(repr(value)),
    "repr in JSON": lambda value: json.dumps({"value": repr(value)}),
    "JSON": lambda value: json.dumps(value.decode("latin-1")),
    "JSON with UTF-8": lambda value: json.dumps(value.decode("latin-1"), ensure_ascii=False),
    "JSON of undecodable bytes": lambda value: json.dumps(value.decode("utf-8", errors="surrogateescape")),
    "UTF-8 of a Latin-1 text": lambda value: value.decode("latin-1").encode(),
    "UTF-16": lambda value: value.decode("latin-1").encode("utf-16-be"),
    "UTF-16, the lower byte first": lambda value: value.decode("latin-1").encode("utf-16-le"),
    "base64 in UTF-16": lambda value: base64.b64encode(value).decode().encode("utf-16"),
    "numbers": lambda value: str(list(value)),
    "numbers in JSON": lambda value: json.dumps(list(value), separators=(",", ":")),
    "a message of protobuf as text": lambda value: str(pb.ImportWrappedKeyMaterialRequest(wrapped_key_material=value)),
    "pprint": lambda value: pprint.pformat([value, "x" * 200]),
}


def within(text: bytes | str) -> bytes:
    """Somewhere in a text, at an odd place."""
    return b'{"x": "' + (text if isinstance(text, bytes) else text.encode(errors="surrogatepass")) + b'"}\n' * 3


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: secret.name)
def test_secret_in_a_form_is_found(secret: Secret, form: Callable[[bytes], bytes | str]) -> None:
    assert {finding.secret for finding in Search(SECRETS).findings(within(form(secret.value)))} == {secret.name}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("start", [0, 1, 2, 11, 23, 24])
def test_8_bytes_of_material_in_a_form_are_found(form: Callable[[bytes], bytes | str], start: int) -> None:
    part = os.urandom(3) + MATERIAL[start : start + 8] + os.urandom(3)
    assert {finding.secret for finding in Search(SECRETS).findings(within(form(part)))} == {"material"}


@pytest.mark.parametrize("form", ["raw", "hex", "base64", "JSON", "percent-encoded"])
def test_less_than_a_run_is_not_found(form: str) -> None:
    search = Search(SECRETS)
    assert search.findings(within(FORMS[form](b"\xee" * 3 + MATERIAL[5:12] + b"\xee" * 3))) == []
    assert search.findings(within(FORMS[form](TOKEN.encode()[3 : 3 + TEXT_RUN_BYTES - 1]))) == []


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_what_is_no_secret_is_not_found(form: Callable[[bytes], bytes | str]) -> None:
    assert Search(SECRETS).findings(within(form(os.urandom(48)))) == []


def test_finding_says_what_and_where_and_shows_nothing_of_it() -> None:
    text = b"0123456789" + base64.b64encode(MATERIAL)
    (finding,) = Search(SECRETS).findings(text)
    assert (finding.secret, finding.form, finding.reading) == ("material", "base64", "as it is")
    assert 10 <= finding.offset < len(text)
    shown = repr((finding, SECRETS))
    assert Search(SECRETS).findings(shown) == []


def test_secret_that_is_too_short_to_be_found_is_refused() -> None:
    with pytest.raises(ValueError, match="pin is too short"):
        Secret("pin", b"1234567")


def test_every_secret_of_many_is_found() -> None:
    many = [Secret(f"material {number}", os.urandom(16)) for number in range(300)]
    text = b"\n".join(secret.value.hex().encode() for secret in many)
    assert {finding.secret for finding in Search(many).findings(text)} == {secret.name for secret in many}

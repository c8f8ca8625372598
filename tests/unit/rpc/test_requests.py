"""What bad input gets: each field, each limit, before anything goes upstream.

Source of the limits: the comments of the .proto files; contract 1.1, 1.6, 1.8, 1.11.
"""

import re
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from keybroker.domain.errors import Code, InvalidField, Reason
from keybroker.domain.external_key import KeyReference, NewKey
from keybroker.domain.key_spec import AES_128, AES_192, AES_256, KeySpec
from keybroker.domain.wrapping import RSAES_OAEP_SHA_256, RSAES_PKCS1_V1_5
from keybroker.rpc import requests
from keymaterial.v1 import types_pb2

REGION = "cn-hangzhou"
UUID_TEXT = "8a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"
ARN = "acs:kms:cn-hangzhou:1540355698840000:key/key-hzz62f1cb66fa42qo0000"
AES = types_pb2.KEY_SPEC_AES_256


def reference(value: str) -> KeyReference:
    return requests.key_reference(value, region=REGION)


def described(value: str) -> KeyReference:
    return requests.key_reference(value, region=REGION, alias_allowed=True)


def new_key(**fields: object) -> NewKey:
    return requests.new_key(types_pb2.NewKey(**({"key_spec": AES} | fields)))


def days(number: float) -> Duration:
    seconds, nanos = divmod(round(number * 86400 * 10**9), 10**9)
    return Duration(seconds=seconds, nanos=nanos)


def tags(number: int) -> dict[str, str]:
    return {f"key{index}": "value" for index in range(number)}


Bad = tuple[Callable[[], object], str]

BAD: dict[str, Bad] = {
    # request_id: a UUID in text form
    "request_id empty": (lambda: requests.request_id(""), "request_id"),
    "request_id in words": (lambda: requests.request_id("my-request"), "request_id"),
    "request_id without hyphens": (lambda: requests.request_id(UUID_TEXT.replace("-", "")), "request_id"),
    "request_id in braces": (lambda: requests.request_id(f"{{{UUID_TEXT}}}"), "request_id"),
    "request_id as URN": (lambda: requests.request_id(f"urn:uuid:{UUID_TEXT}"), "request_id"),
    "request_id one digit short": (lambda: requests.request_id(UUID_TEXT[:-1]), "request_id"),
    "request_id one digit long": (lambda: requests.request_id(f"{UUID_TEXT}0"), "request_id"),
    "request_id not hex": (lambda: requests.request_id(f"g{UUID_TEXT[1:]}"), "request_id"),
    "request_id with a line break": (lambda: requests.request_id(f"{UUID_TEXT}\n"), "request_id"),
    "request_id with foreign digits": (lambda: requests.request_id(f"\u0663{UUID_TEXT[1:]}"), "request_id"),
    # key_id: an id or an ARN, an alias for DescribeKey only
    "key_id empty": (lambda: reference(""), "key_id"),
    "key_id an alias": (lambda: reference("alias/mine"), "key_id"),
    "key_id of 65 characters": (lambda: reference("k" * 65), "key_id"),
    "key_id with a slash": (lambda: reference("key/1"), "key_id"),
    "key_id with a space": (lambda: reference("key 1"), "key_id"),
    "key_id with a line break": (lambda: reference("key-1\n"), "key_id"),
    "key_id with a hyphen first": (lambda: reference("-key"), "key_id"),
    "key_id with a letter that is not ASCII": (lambda: reference("k\u00e9y"), "key_id"),
    "key_id an ARN of another region": (lambda: reference(ARN.replace("hangzhou", "beijing")), "key_id"),
    "key_id an ARN of another service": (lambda: reference(ARN.replace("kms", "oss", 1)), "key_id"),
    "key_id an ARN of an alias": (lambda: reference("acs:kms:cn-hangzhou:1:alias/mine"), "key_id"),
    "key_id an ARN without account": (lambda: reference("acs:kms:cn-hangzhou::key/key-1"), "key_id"),
    "key_id an ARN without key": (lambda: reference("acs:kms:cn-hangzhou:1:key/"), "key_id"),
    "key_id an ARN with a path": (lambda: reference(f"{ARN}/2"), "key_id"),
    "key_id an ARN whose key has 65 characters": (
        lambda: reference("acs:kms:cn-hangzhou:1:key/" + "k" * 65),
        "key_id",
    ),
    "key_id an alias without name": (lambda: described("alias/"), "key_id"),
    "key_id an alias of 256 characters": (lambda: described("alias/" + "a" * 256), "key_id"),
    "key_id an alias with a dot": (lambda: described("alias/a.b"), "key_id"),
    "key_id an alias in capitals": (lambda: described("ALIAS/mine"), "key_id"),
    # new_key
    "key_spec left out": (lambda: requests.new_key(types_pb2.NewKey()), "new_key.key_spec"),
    "key_spec unspecified": (lambda: new_key(key_spec=0), "new_key.key_spec"),
    "key_spec of a newer version": (lambda: new_key(key_spec=4), "new_key.key_spec"),
    "key_spec negative": (lambda: new_key(key_spec=-1), "new_key.key_spec"),
    "description of 8193 characters": (lambda: new_key(description="x" * 8193), "new_key.description"),
    "description of 16386 encoded bytes in spaces": (lambda: new_key(description=" " * 5462), "new_key.description"),
    "description of 16389 encoded bytes in CJK": (lambda: new_key(description="\u5bc6" * 1821), "new_key.description"),
    "description of 16385 encoded bytes": (lambda: new_key(description=" " * 5461 + "xx"), "new_key.description"),
    "description of 8192 characters of 4 bytes": (
        lambda: new_key(description="\U0001f511" * 8192),
        "new_key.description",
    ),
    "alias of 256 characters": (lambda: new_key(alias="alias/" + "a" * 256), "new_key.alias"),
    "alias without prefix": (lambda: new_key(alias="mine"), "new_key.alias"),
    "alias without name": (lambda: new_key(alias="alias/"), "new_key.alias"),
    "alias with a space": (lambda: new_key(alias="alias/a b"), "new_key.alias"),
    "alias with a line break": (lambda: new_key(alias="alias/a\n"), "new_key.alias"),
    "alias reserved": (lambda: new_key(alias="alias/acs/mine"), "new_key.alias"),
    "alias reserved, shortest": (lambda: new_key(alias="alias/acs"), "new_key.alias"),
    "tags 10": (lambda: new_key(tags=tags(10)), "new_key.tags"),
    "tag key empty": (lambda: new_key(tags={"": "value"}), "new_key.tags"),
    "tag key of 129 characters": (lambda: new_key(tags={"k" * 129: ""}), "new_key.tags"),
    "tag value of 129 characters": (lambda: new_key(tags={"key": "v" * 129}), "new_key.tags"),
    "tag key of aliyun": (lambda: new_key(tags={"aliyun-key": "value"}), "new_key.tags"),
    "tag key of acs": (lambda: new_key(tags={"acs:key": "value"}), "new_key.tags"),
    "tag key bad beside a good one": (lambda: new_key(tags={"good": "value", "": "value"}), "new_key.tags"),
    # wrapping_algorithm
    "wrapping_algorithm of a newer version": (lambda: requests.wrapping_algorithm(3), "wrapping_algorithm"),
    "wrapping_algorithm negative": (lambda: requests.wrapping_algorithm(-1), "wrapping_algorithm"),
    # wrapped_key_material: 256 bytes
    "wrapped_key_material empty": (lambda: requests.wrapped_key_material(b""), "wrapped_key_material"),
    "wrapped_key_material of 255 bytes": (lambda: requests.wrapped_key_material(bytes(255)), "wrapped_key_material"),
    "wrapped_key_material of 257 bytes": (lambda: requests.wrapped_key_material(bytes(257)), "wrapped_key_material"),
    "wrapped_key_material in base64": (lambda: requests.wrapped_key_material(b"A" * 344), "wrapped_key_material"),
    "wrapped_key_material of a larger key": (lambda: requests.wrapped_key_material(bytes(512)), "wrapped_key_material"),
    # import_token: 1 to 16384 visible ASCII characters
    "import_token empty": (lambda: requests.import_token(""), "import_token"),
    "import_token of 16385 characters": (lambda: requests.import_token("t" * 16385), "import_token"),
    "import_token with a space": (lambda: requests.import_token("a b"), "import_token"),
    "import_token with a line break": (lambda: requests.import_token("token\n"), "import_token"),
    "import_token with NUL": (lambda: requests.import_token("to\x00ken"), "import_token"),
    "import_token with DEL": (lambda: requests.import_token("to\x7fken"), "import_token"),
    "import_token that is not ASCII": (lambda: requests.import_token("t\u00f6ken"), "import_token"),
    # pending_window: whole days, 7 to 30
    "pending_window left out": (lambda: requests.pending_window(Duration()), "pending_window"),
    "pending_window of 6 days": (lambda: requests.pending_window(days(6)), "pending_window"),
    "pending_window of 31 days": (lambda: requests.pending_window(days(31)), "pending_window"),
    "pending_window of seven and a half days": (lambda: requests.pending_window(days(7.5)), "pending_window"),
    "pending_window a nanosecond over": (
        lambda: requests.pending_window(Duration(seconds=604800, nanos=1)),
        "pending_window",
    ),
    "pending_window a second short": (lambda: requests.pending_window(Duration(seconds=604799)), "pending_window"),
    "pending_window negative": (lambda: requests.pending_window(days(-7)), "pending_window"),
    "pending_window of 366 days, as the KMS's newer SDK allows": (
        lambda: requests.pending_window(days(366)),
        "pending_window",
    ),
}


@pytest.mark.parametrize(("call", "field"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_refused_naming_the_field(call: Callable[[], object], field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        call()
    assert caught.value.field == field
    assert caught.value.reason is Reason.INVALID_FIELD
    assert caught.value.rule.code is Code.INVALID_ARGUMENT
    assert caught.value.message.startswith(f"{field}: ")


GOOD: dict[str, Callable[[], object]] = {
    "request_id in capitals": lambda: requests.request_id(UUID_TEXT.upper()),
    "request_id nil": lambda: requests.request_id(str(UUID(int=0))),
    "request_id of version 7": lambda: requests.request_id("0197f5a0-0000-7000-8000-000000000000"),
    "key_id of 64 characters": lambda: reference("k" * 64),
    "key_id of one character": lambda: reference("k"),
    "key_id a UUID, as of the default instance": lambda: reference(UUID_TEXT),
    "key_id an ARN whose key has 64 characters": lambda: reference("acs:kms:cn-hangzhou:1:key/" + "k" * 64),
    "key_id an alias of 255 characters": lambda: described("alias/" + "a" * 255),
    "key_id an alias reserved by the KMS": lambda: described("alias/acs/kms"),
    "description empty": lambda: new_key(description=""),
    "description of 8192 characters": lambda: new_key(description="x" * 8192),
    "description of 8192 characters that are not encoded": lambda: new_key(description="aZ09-_.~" * 1024),
    "description of 16384 encoded bytes in spaces": lambda: new_key(description=" " * 5461 + "x"),
    "description of 16380 encoded bytes in CJK": lambda: new_key(description="\u5bc6" * 1820),
    "description of 16380 encoded bytes of 4 bytes each": lambda: new_key(description="\U0001f511" * 1365),
    "alias of 255 characters": lambda: new_key(alias="alias/" + "a" * 255),
    "alias with all that is allowed": lambda: new_key(alias="alias/Az09_-/x"),
    "alias left out": lambda: new_key(alias=""),
    "alias that only resembles the reserved ones": lambda: new_key(alias="alias/my-acs"),
    "tags 9": lambda: new_key(tags=tags(9)),
    "tag of 128 and 128 characters": lambda: new_key(tags={"k" * 128: "v" * 128}),
    "tag of one character without value": lambda: new_key(tags={"k": ""}),
    "tag key that only resembles the reserved ones": lambda: new_key(tags={"acs": "", "my-aliyun": ""}),
    "wrapped_key_material of 256 bytes": lambda: requests.wrapped_key_material(bytes(256)),
    "import_token of one character": lambda: requests.import_token("t"),
    "import_token of 16384 characters": lambda: requests.import_token("t" * 16384),
    "import_token of every visible character": lambda: requests.import_token("".join(map(chr, range(0x21, 0x7F)))),
}


@pytest.mark.parametrize("call", GOOD.values(), ids=GOOD.keys())
def test_input_at_its_limit_is_taken(call: Callable[[], object]) -> None:
    call()


def test_key_reference_of_an_arn_is_its_key_and_account() -> None:
    assert reference(ARN) == KeyReference("key-hzz62f1cb66fa42qo0000", "1540355698840000")


def test_key_reference_of_an_id_has_no_account() -> None:
    assert reference("key-1") == described("key-1") == KeyReference("key-1")


def test_key_reference_of_an_alias_is_the_alias() -> None:
    assert described("alias/mine") == KeyReference("alias/mine")


def test_new_key_has_all_fields() -> None:
    made = new_key(key_spec=types_pb2.KEY_SPEC_AES_192, description="d", alias="alias/a", tags={"k": "v"})
    assert made == NewKey(AES_192, "d", "alias/a", {"k": "v"})


@pytest.mark.parametrize("number", range(7, 31))
def test_pending_window_of_whole_days_is_taken(number: int) -> None:
    assert requests.pending_window(days(number)) == timedelta(days=number)


# Enums: every value of the .proto, and those of versions to come


SPECS: dict[str, KeySpec | None] = {
    "KEY_SPEC_UNSPECIFIED": None,
    "KEY_SPEC_AES_128": AES_128,
    "KEY_SPEC_AES_192": AES_192,
    "KEY_SPEC_AES_256": AES_256,
}


def test_key_spec_of_each_value_of_the_proto() -> None:
    assert {name: requests.KEY_SPECS.get(value) for name, value in types_pb2.KeySpec.items()} == SPECS


def test_wrapping_algorithm_of_each_value_of_the_proto() -> None:
    assert {name: requests.wrapping_algorithm(value) for name, value in types_pb2.WrappingAlgorithm.items()} == {
        "WRAPPING_ALGORITHM_UNSPECIFIED": RSAES_OAEP_SHA_256,
        "WRAPPING_ALGORITHM_RSAES_OAEP_SHA_256": RSAES_OAEP_SHA_256,
        "WRAPPING_ALGORITHM_RSAES_PKCS1_V1_5": RSAES_PKCS1_V1_5,
    }


numbers = st.integers(-(2**31), 2**31 - 1)


@given(value=numbers)
def test_enum_numbers_are_known_ones_or_refused(value: int) -> None:
    if value not in types_pb2.WrappingAlgorithm.values():
        with pytest.raises(InvalidField):
            requests.wrapping_algorithm(value)
    if value not in types_pb2.KeySpec.values() or value == 0:
        with pytest.raises(InvalidField):
            new_key(key_spec=value)


# Whatever comes, it is refused by name or within the limits

texts = st.one_of(
    st.text(max_size=300),
    st.from_regex(r"(alias/|acs:kms:cn-hangzhou:[0-9]{0,3}:key/|key-)[A-Za-z0-9_/\n -]{0,300}", fullmatch=True),
    st.sampled_from([UUID_TEXT, ARN, "alias/acs", "alias/acs/x", "\n", "\x00"]),
    st.uuids().map(str),
)


def taken(call: Callable[[], object], field: str) -> object:
    """What `call` returns; None for a refusal, which must name the field and quote nothing of the value."""
    try:
        return call()
    except InvalidField as refusal:
        named = refusal.field
    assert named == field
    return None


@given(value=texts)
def test_request_id_of_any_text_is_refused_or_a_uuid(value: str) -> None:
    if taken(lambda: requests.request_id(value), "request_id") is not None:
        assert str(UUID(value)) == value.lower()


@given(value=texts, alias_allowed=st.booleans())
def test_key_reference_of_any_text_is_refused_or_within_limits(value: str, alias_allowed: bool) -> None:  # noqa: FBT001
    found = taken(lambda: requests.key_reference(value, region=REGION, alias_allowed=alias_allowed), "key_id")
    if isinstance(found, KeyReference):
        assert found.key_id.isascii()
        assert "\n" not in found.key_id
        assert 1 <= len(found.key_id.removeprefix("alias/")) <= 255
        assert found.key_id.startswith("alias/") <= alias_allowed
        assert found.key_id.startswith("alias/") or len(found.key_id) <= 64
        assert found.account in {"", *re.findall(r"[0-9]+", value)}


def encoded_bytes(text: str) -> int:
    unreserved = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~"
    return sum(1 if character in unreserved else 3 * len(character.encode()) for character in text)


@given(
    value=st.one_of(
        texts,
        st.integers(8185, 8200).map(lambda length: "e" * length),
        st.integers(2725, 2735).map(lambda length: "\u00e9" * length),
    )
)
def test_description_of_any_text_is_refused_or_within_limits(value: str) -> None:
    found = taken(lambda: new_key(description=value), "new_key.description")
    assert (found is None) == (len(value) > 8192 or encoded_bytes(value) > 16384)


@given(value=texts)
def test_alias_of_any_text_is_refused_or_within_limits(value: str) -> None:
    found = taken(lambda: new_key(alias=value), "new_key.alias")
    if isinstance(found, NewKey) and value:
        assert re.fullmatch(r"alias/[A-Za-z0-9_/-]{1,255}", found.alias)
        assert not found.alias.startswith("alias/acs")


tag_texts = st.one_of(st.text(max_size=3), st.text(alphabet="x", min_size=126, max_size=130), st.just("aliyun"))


@given(value=st.dictionaries(tag_texts, tag_texts, max_size=11))
def test_tags_of_any_text_are_refused_or_within_limits(value: dict[str, str]) -> None:
    found = taken(lambda: new_key(tags=value), "new_key.tags")
    good = len(value) <= 9 and all(
        1 <= len(key) <= 128 and len(text) <= 128 and not key.startswith(("aliyun", "acs:"))
        for key, text in value.items()
    )
    assert (found is not None) == good
    assert not isinstance(found, NewKey) or found.tags == value


@given(
    value=st.one_of(
        st.text(max_size=50), st.integers(16380, 16390).map(lambda length: "t=" * (length // 2) + "t" * (length % 2))
    )
)
def test_import_token_of_any_text_is_refused_or_within_limits(value: str) -> None:
    found = taken(lambda: requests.import_token(value), "import_token")
    good = 1 <= len(value) <= 16384 and all("!" <= character <= "~" for character in value)
    assert found == (value if good else None)


@given(value=st.one_of(st.binary(max_size=600), st.binary(min_size=255, max_size=257)))
def test_wrapped_key_material_of_any_bytes_is_refused_or_of_its_length(value: bytes) -> None:
    found = taken(lambda: requests.wrapped_key_material(value), "wrapped_key_material")
    assert found == (value if len(value) == 256 else None)


@given(
    seconds=st.one_of(st.integers(-(2**62), 2**62), st.integers(-40, 40).map(lambda day: day * 86400)), nanos=numbers
)
def test_pending_window_of_any_duration_is_refused_or_within_limits(seconds: int, nanos: int) -> None:
    found = taken(lambda: requests.pending_window(Duration(seconds=seconds, nanos=nanos)), "pending_window")
    whole = nanos == 0 and seconds % 86400 == 0 and 7 <= seconds // 86400 <= 30
    assert found == (timedelta(seconds=seconds) if whole else None)


CANARY = "canary7c9f1d"


@pytest.mark.parametrize(
    "call",
    [
        lambda: requests.request_id(CANARY),
        lambda: reference(f"{CANARY} "),
        lambda: reference(f"alias/{CANARY}"),
        lambda: reference(f"acs:kms:cn-{CANARY}:1:key/key-1"),
        lambda: described(f"alias/{CANARY} "),
        lambda: new_key(description=CANARY * 1000),
        lambda: new_key(alias=CANARY),
        lambda: new_key(alias=f"alias/acs{CANARY}"),
        lambda: new_key(tags={f"acs:{CANARY}": CANARY}),
        lambda: new_key(tags={"key": CANARY * 20}),
        lambda: requests.wrapped_key_material(CANARY.encode()),
        lambda: requests.import_token(f"{CANARY} "),
    ],
)
def test_refusal_quotes_nothing_of_the_value(call: Callable[[], object]) -> None:
    with pytest.raises(InvalidField) as caught:
        call()
    assert CANARY not in f"{caught.value!r}{caught.value.message}{caught.value.metadata}"


def test_request_id_made_by_a_library_is_taken() -> None:
    value = str(uuid4())
    assert requests.request_id(value) == value

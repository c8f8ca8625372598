"""Made-up messages, as bytes on the wire: what a caller can send and our own stubs would not.

Walks the message's descriptor, so that a new field or message is made up without a change here. Most fields are good,
so that what is odd gets far; strings have the mark in them. Source: the Protocol Buffers encoding specification.
"""

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import strategies as st

from tests.fuzz.examples import MARK

Bytes = st.SearchStrategy[bytes]
Good = Mapping[str, Bytes]
"""Good contents by the name of the field: a string's UTF-8, or bytes."""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_LONGEST = 200_000  # longer than a message may be

NUMBERS = st.one_of(
    st.integers(0, 12), st.integers(-3, 3), st.sampled_from([7 * 86400, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63)])
)


def texts() -> Bytes:
    """Any text with the mark: also NUL, surrogates, bytes that are no UTF-8, and very long ones."""
    odd = st.text(st.characters(), max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass"))
    return st.one_of(
        st.builds(lambda before, after: before + MARK.encode() + after, odd, odd),
        st.binary(max_size=10).map(lambda raw: MARK.encode() + raw),
        st.sampled_from([64, 128, 300, 8200, 16400, _LONGEST]).map(lambda size: (MARK * (size // 10 + 1)).encode()),
        st.sampled_from([b"alias/", b"acs:kms:cn-hangzhou:1540355698840000:key/", b"aliyun"]).map(
            lambda prefix: prefix + MARK.encode()
        ),
        st.just(b""),
    )


def request_ids() -> Bytes:
    """Few enough that some come again."""
    return st.integers(0, 40).map(lambda number: str(UUID(int=number)).encode())


def messages(descriptor: Descriptor, good: Good) -> Bytes:
    """A message of this kind with at most two odd fields, and perhaps parts that do not belong to it."""

    @st.composite
    def made_up(draw: Callable[[Bytes], Any]) -> bytes:
        fields = list(descriptor.fields)
        odd = draw(st.sets(st.sampled_from(range(len(fields))), max_size=2)) if fields else set()  # type: ignore[arg-type]
        parts = [draw(_odd(each, good) if place in odd else _good(each, good)) for place, each in enumerate(fields)]
        return b"".join([*parts, draw(_strange())])

    return made_up()


def _good(field: FieldDescriptor, good: Good) -> Bytes:
    content = _content(field, good, odd=False)
    return content if field.containing_oneof is None else st.one_of(content, st.just(b""))


def _odd(field: FieldDescriptor, good: Good) -> Bytes:
    """Absent, odd in its content, several times, or of another wire type."""
    content = _content(field, good, odd=True)
    other = st.sampled_from([_VARINT, _FIXED64, _FIXED32, 3, 4, 7]).map(
        lambda kind: _tag(field.number, kind) + bytes(8)
    )
    return st.one_of(content, content, st.lists(content, max_size=12).map(b"".join), other, st.just(b""))


def _content(field: FieldDescriptor, good: Good, *, odd: bool) -> Bytes:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        assert field.message_type is not None
        return messages(field.message_type, good).map(lambda inner: _delimited(field.number, inner))
    if field.type in {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES}:
        contents = texts() if odd else good.get(field.name, texts())
        return contents.map(lambda inner: _delimited(field.number, inner))
    least = int(field.type == FieldDescriptor.TYPE_ENUM)
    known = {"seconds": st.just(7 * 86400), "nanos": st.just(0)}.get(field.name, st.integers(least, least + 1))
    numbers = NUMBERS if odd else known
    return numbers.map(lambda number: _tag(field.number, _VARINT) + varint(number))


def _strange() -> Bytes:
    """Nothing, or a field that no message has, or bytes that end in the middle of one."""
    unknown = st.integers(100, 2**29 - 1).map(lambda number: _delimited(number, MARK.encode()))
    return st.one_of(*[st.just(b"")] * 9, unknown, st.binary(max_size=4), st.just(b"\x0a\x7f"))


def _delimited(number: int, content: bytes) -> bytes:
    return _tag(number, _LENGTH) + varint(len(content)) + content


def _tag(number: int, kind: int) -> bytes:
    return varint(number << 3 | kind)


def varint(number: int) -> bytes:
    """Base 128; a negative number as its 64-bit two's complement."""
    number &= 2**64 - 1
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])

"""Looks for planted secrets in anything that was written down, in every form that they may have taken.

Looked for is each run of a few bytes of a secret, so that a part of one counts too: as it is, in hex, and in base64 at
each of the three alignments, less the characters at the edges that depend on what stands beside. The text that is
looked through is also read as what percent encoding, escapes (Python's, JSON's, protobuf's, once and twice), UTF-16,
Latin-1 written as UTF-8, separated hex digits and lists of numbers make of it. Not found: what was compressed or
encrypted, and runs that are shorter.

A Finding names the secret and the place; it shows nothing of the secret.
"""

import base64
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

MATERIAL_RUN_BYTES = 8  # a run by which key material is known
TEXT_RUN_BYTES = 16  # of a token: shorter runs of it can be the name of a CMK or of a claim
_INDEXED_BYTES = 8


@dataclass(frozen=True, slots=True)
class Secret:
    """What was planted. `run_bytes`: how much of it, in one piece, is looked for; at every `stride`-th byte of it."""

    name: str
    value: bytes = field(repr=False)
    run_bytes: int = MATERIAL_RUN_BYTES
    stride: int = 1

    def __post_init__(self) -> None:
        if len(self.value) < self.run_bytes or self.run_bytes < MATERIAL_RUN_BYTES:
            raise ValueError(f"{self.name} is too short to be looked for")


@dataclass(frozen=True, slots=True)
class Finding:
    """A secret, the form it has, how the text was read, and where: an offset in the text as it was read."""

    secret: str
    form: str
    reading: str
    offset: int


@dataclass(frozen=True, slots=True)
class _Needle:
    secret: str
    form: str
    text: bytes = field(repr=False)


class Search:
    """For these secrets, in as many texts as there are."""

    def __init__(self, secrets: Iterable[Secret]) -> None:
        self._needles: dict[int, list[_Needle]] = {}
        for secret in secrets:
            for form, text in _forms(secret):
                key = int.from_bytes(text[:_INDEXED_BYTES], sys.byteorder)
                self._needles.setdefault(key, []).append(_Needle(secret.name, form, text))
        self._keys = frozenset(self._needles)

    def findings(self, text: bytes | str) -> list[Finding]:
        """What is in it: each secret once for each form and way of reading."""
        found: dict[tuple[str, str, str], Finding] = {}
        for reading, content in _readings(text.encode(errors="surrogatepass") if isinstance(text, str) else text):
            for needle in self._met(content):
                offset = content.find(needle.text)
                if offset >= 0:
                    key = (needle.secret, needle.form, reading)
                    found.setdefault(key, Finding(needle.secret, needle.form, reading, offset))
        return list(found.values())

    def _met(self, content: bytes) -> Iterator[_Needle]:
        """The needles whose first bytes are somewhere in it."""
        view = memoryview(content)
        met: set[int] = set()
        for offset in range(_INDEXED_BYTES):
            length = (len(view) - offset) // _INDEXED_BYTES * _INDEXED_BYTES
            if length > 0:
                met |= self._keys.intersection(view[offset : offset + length].cast("Q"))
        for key in met:
            yield from self._needles[key]


def _forms(secret: Secret) -> Iterator[tuple[str, bytes]]:
    """The runs of a secret as they would be written."""
    for start in range(0, len(secret.value) - secret.run_bytes + 1, secret.stride):
        run = secret.value[start : start + secret.run_bytes]
        yield "raw", run
        yield "backwards", run[::-1]
        yield "hex", run.hex().encode()
        yield "hex in capitals", run.hex().upper().encode()
        for alignment in range(3):
            encoded = _base64_middle(run, alignment)
            yield "base64", encoded
            url_safe = encoded.translate(bytes.maketrans(b"+/", b"-_"))
            if url_safe != encoded:
                yield "base64 for URLs", url_safe


def _base64_middle(run: bytes, alignment: int) -> bytes:
    """The characters that the run alone decides, with `alignment` bytes before it."""
    first = -(-alignment * 8 // 6)
    after = (alignment + len(run)) * 8 // 6
    return base64.b64encode(bytes(alignment) + run)[first:after]


def _readings(text: bytes) -> Iterator[tuple[str, bytes]]:
    """The text as it is, and as it is when what may have been done to it is undone, as far as that changes it."""
    seen = {text}
    yield "as it is", text
    for name, undo in _UNDOING.items():
        undone = undo(text)
        if undone not in seen:
            seen.add(undone)
            yield name, undone


_ESCAPE = re.compile(
    rb"\\(?:x(?P<x>[0-9a-fA-F]{2})|u(?P<u>[0-9a-fA-F]{4})|(?P<octal>[0-3][0-7]{2})|(?P<letter>[abfnrtv0\\'\"/]))"
)
_LETTERS = dict(zip(b"abfnrtv0\\'\"/", b"\a\b\f\n\r\t\v\0\\'\"/", strict=True))
_UTF_16 = re.compile(rb"(?:[^\0]\0|\0\0){8,}", re.DOTALL)
_NUMBERS = re.compile(rb"\d{1,3}(?:[,;]? ?\d{1,3}){7,}")
_SEPARATED_HEX = re.compile(rb"[0-9a-fA-F]{2}(?:[: -]+[0-9a-fA-F]{2}){7,}")
_MOST_OF_A_BYTE = 255
_ESCAPED_BYTES = range(0xDC80, 0xDD00)  # how Python has bytes that are no UTF-8 in a text


def _unescaped(text: bytes, *, as_utf8: bool = False) -> bytes:
    """Characters beyond ASCII are bytes of that number, or UTF-8."""

    def written(match: re.Match[bytes]) -> bytes:
        if match["letter"]:
            return bytes((_LETTERS[match["letter"][0]],))
        number = int(match["octal"], 8) if match["octal"] else int(match["x"] or match["u"], 16)
        if number in _ESCAPED_BYTES or (number <= _MOST_OF_A_BYTE and not (match["u"] and as_utf8)):
            return bytes((number % 256,))
        return chr(number).encode(errors="surrogatepass")

    return _ESCAPE.sub(written, text)


def _from_utf16(text: bytes) -> bytes:
    """Every other byte where every other one is 0."""
    return b"|".join(found[0][::2] for found in _UTF_16.finditer(text))


def _from_utf8(text: bytes) -> bytes:
    """Each character below 256 as the byte of that number, as a text has it that was bytes read as Latin-1."""
    return text.decode(errors="replace").encode("latin-1", errors="replace")


def _numbers(text: bytes) -> bytes:
    """All lists of numbers below 256 in it, as bytes."""
    lists = [[int(number) for number in re.findall(rb"\d+", found[0])] for found in _NUMBERS.finditer(text)]
    return b"|".join(bytes(numbers) for numbers in lists if max(numbers) <= _MOST_OF_A_BYTE)


_UNDOING: Mapping[str, Callable[[bytes], bytes]] = {
    "percent encoding undone": unquote_to_bytes,
    "percent encoding undone twice": lambda text: unquote_to_bytes(unquote_to_bytes(text)),
    "escapes undone": _unescaped,
    "escapes undone twice": lambda text: _unescaped(_unescaped(text)),
    "as Latin-1": _from_utf8,
    "as Latin-1, escapes undone": lambda text: _unescaped(_from_utf8(text)),
    "escapes undone, as UTF-8": lambda text: _unescaped(text, as_utf8=True),
    "from UTF-16": _from_utf16,
    "from UTF-16, the higher byte first": lambda text: _from_utf16(text[1:] + b"\0"),
    "without line breaks": lambda text: re.sub(rb"\s+", b"", text),
    "separators between hex digits taken away": lambda text: _SEPARATED_HEX.sub(
        lambda found: re.sub(rb"[: -]", b"", found[0]), text
    ),
    "numbers as bytes": _numbers,
}

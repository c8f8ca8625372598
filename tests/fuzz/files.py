"""Made-up files: good ones with something changed, and YAML of any kind. Source: YAML 1.1, as PyYAML reads it."""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import yaml
from hypothesis import strategies as st

from tests.fuzz.examples import MARK

Place = tuple[Any, ...]

ODD_VALUES: list[Any] = [
    *(
        None,
        True,
        -1,
        0,
        2**63,
        2**200,
        float("nan"),
        float("inf"),
        "",
        "*",
        "**",
        "/",
        "..",
        "\x00",
        "a\x00b",
        "\ud800",
    ),
    *(
        "x" * 5000,
        "127.0.0.1:0",
        "[::1]:99999",
        "https://[",
        "https://a:b@c",
        f"{MARK}\n",
        [],
        {},
        [[]],
        {"": ""},
        {1: 2},
    ),
]

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.dates(),
    st.binary(max_size=6),
    st.text(max_size=10).map(lambda text: MARK + text),
    st.sampled_from(ODD_VALUES),
)
HASHABLE = SCALARS.filter(lambda value: not isinstance(value, list | dict))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.text(max_size=5).map(lambda text: MARK + text), HASHABLE), inner, max_size=3),
    ),
    max_leaves=6,
)

ODD_YAML = [
    b"",
    b"\xef\xbb\xbf",
    b"\xff\xfe\x00",
    b"\x00",
    b"&a [*a]",
    b"a: &a {b: *a}",
    b"a: &a {<<: *a}",
    b"<<: 1",
    b"[" * 5000,
    b"a: " * 3000,
    b"- " * 5000,
    b"{" * 5000,
    b"? " * 3000,
    b"!!python/object/apply:os.system [true]",
    b"!!python/name:os.system",
    b"!!set {a, b}",
    b"!!omap [a: 1]",
    b"!!binary '*'",
    b"!!timestamp x",
    b"!!float x",
    b"!!int 1:1:1",
    b"0x" + b"f" * 6000 + b": 1",
    b"1" * 6000 + b": 1",
    b"--- 1\n--- 2",
    b"%YAML 9.9\n--- 1",
    b"%TAG ! tag:x,1:\n--- !y 1",
    b'kms: "\\ud800"',
    b'"\\ud800": 1',
    b"? [a]\n: 1",
    b"? {a: 1}\n: 1",
    b"? !!timestamp 2001-01-01\n: 1",
    b"rules: 2001-13-45",
]


def bombs(key: str) -> Iterator[bytes]:
    """Small files that stand for huge values: aliases of aliases, as lists, as mappings, merged."""
    for first, each in ((b"[x]", b"[%s]"), (b"{x: 1}", b"{<<: [%s]}"), (b"{x: 1}", b"{%s}")):
        lines = [b"a0: &a0 " + first]
        for level in range(1, 30):
            names = [b"*a%d" % (level - 1)] * 9
            if each == b"{%s}":
                names = [b"k%d: %s" % (number, name) for number, name in enumerate(names)]
            lines.append(b"a%d: &a%d " % (level, level) + each % b", ".join(names))
        yield b"\n".join([*lines, key.encode() + b": *a29"])


def places(tree: Any, at: Place = ()) -> Iterator[Place]:
    """Where something stands in a tree, from its root."""
    yield at
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, inner in pairs:
        yield from places(inner, (*at, key))


def changed(tree: Any, at: Place, change: Callable[[Any, Any], None]) -> Any:
    """A copy in which `change(container, key)` was done at a place that is not the root."""
    fresh = copy.deepcopy(tree)
    node = fresh
    for key in at[:-1]:
        node = node[key]
    change(node, at[-1])
    return fresh


def put(tree: Any, at: Place, value: Any) -> Any:
    """A copy with another value at a place."""
    return changed(tree, at, lambda node, key: node.__setitem__(key, value))


@st.composite
def mutations(draw: Callable[[Any], Any], tree: Any) -> Any:
    """The tree with one to three places set to anything, left out, or given a key that nobody knows."""
    for _ in range(draw(st.integers(1, 3))):
        known = [place for place in places(tree) if place]
        if not known:
            break
        place, value = draw(st.sampled_from(known)), draw(VALUES)
        match draw(st.sampled_from(["set", "set", "drop", "add"])):
            case "set":
                tree = put(tree, place, value)
            case "drop":
                tree = changed(tree, place, lambda node, key: node.__delitem__(key))
            case "add":
                tree = changed(tree, place, partial(_add, value))
    return tree


def _add(value: Any, node: Any, _key: Any) -> None:
    if isinstance(node, dict):
        node[MARK] = value
    else:
        node.append(value)


def written(tree: Any) -> bytes:
    """The tree as YAML, without aliases."""
    return yaml.dump(tree, Dumper=_Dumper, allow_unicode=False, encoding="utf-8")


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

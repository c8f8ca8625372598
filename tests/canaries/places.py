"""The named places of the use cases, read from their code: `at("name")`, and before and after each write by name."""

import ast
from collections.abc import Iterator
from pathlib import Path

import keybroker

_WRITES = ("write", "learn", "finish")


def named_places() -> set[str]:
    """All of them."""
    folder = Path(keybroker.__file__).parent / "usecases"
    return {place for path in folder.glob("*.py") for place in _places_in(ast.parse(path.read_text()))}


def _places_in(tree: ast.AST) -> Iterator[str]:
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.args:
            name = call.args[0].value if isinstance(call.args[0], ast.Constant) else None
            on_rows = ast.unparse(call.func.value).endswith("rows")
            if isinstance(name, str) and on_rows and call.func.attr == "at":
                yield name
            if isinstance(name, str) and on_rows and call.func.attr in _WRITES:
                yield from (f"{name}: before", f"{name}: after")

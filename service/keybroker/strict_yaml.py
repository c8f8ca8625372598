"""YAML as configuration needs it: plain values only, and no key twice, of which the last would silently count."""

from collections.abc import Hashable
from typing import Any

import yaml

# What else escapes from PyYAML: from dates such as 2026-13-45, [[[[…, !!int "", !!bool x, !!timestamp x.
NOT_YAML = (yaml.YAMLError, ValueError, RecursionError, LookupError, AttributeError, TypeError)


class DuplicateKeyError(yaml.constructor.ConstructorError):
    """A key stands twice in a mapping."""


class _StrictLoader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002
        """As the library, after a look for keys that stand twice."""
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                break  # the library refuses it
            if key in seen:
                raise DuplicateKeyError(problem="key stands twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def load(content: str | bytes) -> Any:  # noqa: ANN401  # whatever the text holds
    """The value in `content`. Raises one of NOT_YAML, for a key that stands twice DuplicateKeyError."""
    return yaml.load(content, Loader=_StrictLoader)  # noqa: S506  # a subclass of SafeLoader


def wording(error: BaseException, *, with_line: bool) -> str:
    """What is wrong, in our words; with the line where that is known and wanted."""
    mark = getattr(error, "problem_mark", None) if with_line else None
    place = f" in line {mark.line + 1}" if mark else ""
    return f"has a key twice{place}" if isinstance(error, DuplicateKeyError) else f"is not YAML{place}"

"""Reads the configuration: one YAML file and the environment over it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from keybroker import strict_yaml
from keybroker.settings.base import ConfigurationError
from keybroker.settings.model import Settings

ENV_PREFIX = "KEYBROKER__"
_WORDINGS = {"extra_forbidden": "unknown key", "model_type": "must be a mapping"}


def load_settings(path: Path | None, *, environ: Mapping[str, str] = os.environ) -> Settings:
    """Reads the YAML file, if there is one, and the environment over it. Raises ConfigurationError."""
    tree: dict[str, Any] = {}
    if path is not None:
        tree = _read_yaml(path)
    for name, value in sorted(environ.items()):
        if name.upper().startswith(ENV_PREFIX):
            _set(tree, name, value)
    return parse_settings(tree)


def parse_settings(tree: Mapping[str, Any]) -> Settings:
    """Checks a configuration tree. Raises ConfigurationError."""
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, problem['loc'])) or 'configuration'}: {wording(problem['type'], problem['msg'])}"
            for problem in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        raise ConfigurationError("\n".join(lines)) from None


def wording(kind: str, message: str) -> str:
    """A problem that pydantic found, without its name for us."""
    return _WORDINGS.get(kind) or message.removeprefix("Value error, ")


def read_file(path: Path, *, key: str) -> bytes:
    """The bytes of a file that the configuration names under `key`. Raises ConfigurationError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{key}: can't read {path}: {error.strerror}") from None


def _read_yaml(path: Path) -> dict[str, Any]:
    content = read_file(path, key="--config")
    try:
        tree = strict_yaml.load(content)
    except strict_yaml.NOT_YAML as error:
        raise ConfigurationError(f"--config: {path} {strict_yaml.wording(error, with_line=True)}") from None
    if tree is not None and not isinstance(tree, dict):
        raise ConfigurationError(f"--config: {path} must hold a mapping")
    return tree or {}


def _set(tree: dict[str, Any], name: str, value: str) -> None:
    *sections, key = name[len(ENV_PREFIX) :].lower().split("__")
    node: Any = tree
    for section in sections:
        if node.get(section) is None:
            node[section] = {}
        node = node[section]
        if not isinstance(node, dict):
            raise ConfigurationError(f"{name}: {section} is not a section")
    try:
        node[key] = strict_yaml.load(value)
    except strict_yaml.NOT_YAML as error:
        raise ConfigurationError(f"{name}: the value {strict_yaml.wording(error, with_line=False)}") from None

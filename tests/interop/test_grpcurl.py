"""grpcurl and buf curl against a real broker: the recipes of docs/grpcurl.md, and reflection off."""

import json
import re
from collections.abc import Callable

import pytest

from kms_emulator import Emulator
from tests.integration.conftest import RunningBroker
from tests.interop.documents import run_block, shell_blocks

RECIPES = shell_blocks("docs/grpcurl.md")


def test_every_recipe_works_and_imports_bind_keys(
    emulator: Emulator, make_broker: Callable[..., RunningBroker]
) -> None:
    broker = make_broker(server={"reflection": True})
    key_id = emulator.create_key()
    answers = [run_block(recipe, address=broker.address, KEY_ID=key_id) for recipe in RECIPES]
    for recipe, answer in zip(RECIPES, answers, strict=True):
        assert answer.returncode == 0, f"{recipe}\n{answer.stderr}"
    assert "keymaterial.v1.KeyBrokerService" in answers[0].stdout
    assert emulator.key_state(key_id) == "Enabled"
    imported = [
        _key_id(answer.stdout)
        for recipe, answer in zip(RECIPES, answers, strict=True)
        if "CMAC_AES" in answer.stdout and "GetImport" not in recipe
    ]
    assert len(imported) == 4
    assert {emulator.key_state(key) for key in imported} == {"Enabled"}


@pytest.mark.parametrize("tool", ["grpcurl", "buf"])
def test_reflection_is_off_by_default(broker: RunningBroker, tool: str) -> None:
    recipe = RECIPES[0] if tool == "grpcurl" else RECIPES[-1]
    answer = run_block(recipe, address=broker.address)
    assert answer.returncode != 0
    assert re.search("reflection|failed to find service", answer.stderr)


def test_protos_serve_grpcurl_where_reflection_is_off(emulator: Emulator, broker: RunningBroker) -> None:
    (recipe,) = [recipe for recipe in RECIPES if "-import-path protos" in recipe]
    answer = run_block(recipe, address=broker.address)
    assert answer.returncode == 0, answer.stderr
    assert emulator.key_state(_key_id(answer.stdout)) == "Enabled"


def _key_id(answer: str) -> str:
    """Field names are in snake case by reflection (Python's descriptors have no JSON names), else in camel case."""
    key = json.loads(answer)["key"]
    return str(key.get("key_id") or key["keyId"])

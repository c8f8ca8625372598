"""No object shows a secret that it holds: printed, formatted, logged, or among a traceback's locals."""

import copy
import io
import json
import logging
import pickle
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pprint import pformat
from typing import Any

import pytest
import structlog

from keybroker.domain.key_material import KeyMaterial
from keybroker.telemetry.logs import configure_logs
from keybroker.usecases.carry_on import Hand
from tests.canaries.objects import Maker, all_classes, name_of, shows_something
from tests.canaries.search import Search
from tests.canaries.shown import HIDDEN, SHOWN


def logged_by_the_library(value: Any) -> str:
    stream = io.StringIO()
    logger, handler = logging.getLogger("canaries"), logging.StreamHandler(stream)
    logger.addHandler(handler)
    logger.error("%s %r", value, value, extra={"value": value})
    logger.removeHandler(handler)
    return stream.getvalue()


def logged(value: Any) -> str:
    """As the broker logs."""
    with pytest.MonkeyPatch.context() as patch:
        stream = io.StringIO()
        patch.setattr(sys, "stderr", stream)
        configure_logs("DEBUG")
        try:
            structlog.get_logger().error("event", value=value, values=[value], by_name={"name": value})
        finally:
            structlog.reset_defaults()
    assert json.loads(stream.getvalue())["event"] == "event"
    return stream.getvalue()


def in_a_traceback(value: Any) -> str:
    def fail(local: Any) -> None:
        raise RuntimeError(local)

    try:
        fail(value)
    except RuntimeError as error:
        return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    raise AssertionError("it fails")


PRINTS: dict[str, Callable[[Any], str]] = {
    "repr": repr,
    "str": str,
    "format": lambda value: f"{value}",
    "repr in a text": lambda value: f"{value!r} {value!s} {value!a}",
    "in a list": lambda value: str([{"value": (value,)}]),
    "pretty-printed": pformat,
    "pretty-printed narrowly": lambda value: pformat(value, width=40),
    "by %": lambda value: "%s %r" % (value, value),  # noqa: UP031  # as old code does
    "logged": logged,
    "logged by the standard library": logged_by_the_library,
    "in a traceback with locals": in_a_traceback,
}


@cache
def shown_of(cls: type[Any]) -> tuple[frozenset[str], frozenset[str]]:
    """The fields of its own and of what it holds that are shown, and those that are not, each with its class."""
    maker = Maker()
    value = maker.make(cls)
    search = Search(maker.secrets)
    shown = {finding.secret for show in PRINTS.values() for finding in search.findings(show(value))}
    return frozenset(shown), frozenset({secret.name for secret in maker.secrets} - shown)


SHOWING = {name_of(cls): cls for cls in all_classes() if shows_something(cls)}


def in_full(table: Any) -> set[str]:
    return {f"{cls}.{field}" for cls, listed in table.items() for field in listed.split()}


@pytest.mark.parametrize("cls", SHOWING.values(), ids=SHOWING)
def test_object_shows_what_is_listed_and_nothing_else(cls: type[Any]) -> None:
    shown, _ = shown_of(cls)
    assert shown <= in_full(SHOWN)


def test_what_is_listed_is_shown() -> None:
    """A list that has more than there is would hide what comes under an old name."""
    found = {name for cls in SHOWING.values() for name in shown_of(cls)[0]}
    assert found == in_full(SHOWN)


def test_secrets_are_held_and_hidden() -> None:
    held = {name for cls in SHOWING.values() for name in shown_of(cls)[1]}
    assert in_full(HIDDEN) <= held


@pytest.mark.parametrize("show", PRINTS.values(), ids=PRINTS)
def test_way_to_print_shows_what_is_no_secret(show: Callable[[Any], str]) -> None:
    """Otherwise it would be no test that it shows no secret."""
    maker = Maker()
    value = maker.make(SHOWING["usecases.asked.Asked"])
    assert {finding.secret for finding in Search(maker.secrets).findings(show(value))} >= {
        "usecases.asked.Asked.caller"
    }


COPIES: dict[str, Callable[[KeyMaterial], object]] = {
    "pickle": pickle.dumps,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "asdict": lambda material: asdict(Hand(material=material)),
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_key_material_can_not_be_copied(copied: Callable[[KeyMaterial], object]) -> None:
    material: KeyMaterial = Maker().make(KeyMaterial)
    with pytest.raises(TypeError, match="can't be copied or pickled"):
        copied(material)


def test_slot_of_key_material_can_not_be_pickled() -> None:
    material: KeyMaterial = Maker().make(KeyMaterial)
    with pytest.raises(TypeError, match="can't be copied or pickled"):
        pickle.dumps(material._slot)

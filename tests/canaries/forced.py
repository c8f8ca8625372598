"""Every function that a call runs through, and every named place, struck once; what each strike let out."""

import gc
import io
import logging
import secrets
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Any

from kms_emulator import Emulator
from tests.canaries.brokers import Estate
from tests.canaries.planted import Planted, Witness, secret_of, watched_emulator
from tests.canaries.scenarios import SCENARIOS, Scenario, request_of
from tests.canaries.search import TEXT_RUN_BYTES, Finding, Search, Secret
from tests.canaries.strikes import Strike, Watch, place_of
from tests.canaries.struck import OneCall, Outcome, Tracer

SENT = "send: before"
_STRIDE = 8


@dataclass(frozen=True)
class Struck:
    """One strike: where, whether it struck, what the call was told, what was written and what of it is secret.

    `held`: the secrets that the function had at that moment; `in_traceback`: those that a traceback with locals shows.
    """

    scenario: str
    place: str
    struck: bool
    code: str
    written: str
    findings: tuple[Finding, ...]
    held: frozenset[str]
    in_traceback: frozenset[str]


@dataclass
class Forced:
    """All strikes. `functions` and `places` are those that were struck."""

    made: list[Struck] = field(default_factory=list)
    functions: set[str] = field(default_factory=set)
    places: set[str] = field(default_factory=set)


def all_strikes(folder: Path) -> Forced:
    """Takes some seconds."""
    witness = Witness()
    estate = Estate(folder, Planted())
    with (
        unclosed_sockets_ignored(),  # outermost: threads of the emulator keep the strikes that they were traced by
        watched_emulator(witness, [estate.access_key]) as emulator,
        foreign_log() as foreign,
    ):
        striker = _Striker(estate, emulator, witness, foreign)
        for name, scenario in SCENARIOS.items():
            striker.strike_all(name, scenario)
        return striker.forced


@contextmanager
def unclosed_sockets_ignored() -> Iterator[None]:
    """A function that is struck as it returns a connection gives it to nobody."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


@contextmanager
def foreign_log() -> Iterator[io.StringIO]:
    """What the libraries log by the standard library's means, exceptions with their texts; nobody else gets it."""
    stream = io.StringIO()
    root = logging.getLogger()
    others, root.handlers = root.handlers, [logging.StreamHandler(stream)]
    try:
        yield stream
    finally:
        root.handlers = others


class _Striker:
    def __init__(self, estate: Estate, emulator: Emulator, witness: Witness, foreign: io.StringIO) -> None:
        self.forced = Forced()
        self._estate = estate
        self._emulator = emulator
        self._witness = witness
        self._foreign = foreign
        self._one_call = OneCall(emulator, estate)
        self._struck: set[tuple[CodeType, bool]] = set()

    def strike_all(self, name: str, scenario: Scenario) -> None:
        """All that this scenario runs through and no earlier one did."""
        self._call(scenario, None)  # what happens once in a process has happened
        watch = Watch(until=SENT)
        self._call(scenario, watch, at=watch.at)
        for place in watch.places:
            if place not in self.forced.places:
                self._strike_place(name, scenario, place)
        for code in watch.run | watch.run_later:
            for late in (False, True):
                both = code in watch.run and code in watch.run_later and not place_of(code).startswith("rpc/")
                if (code, late) not in self._struck and (both or not late):
                    self._struck.add((code, late))
                    self._strike_function(name, scenario, code, late=late)

    def _strike_function(self, name: str, scenario: Scenario, code: CodeType, *, late: bool) -> None:
        strike = Strike(code, secrets.token_urlsafe(30), armed=not late)

        def arm(place: str) -> None:
            strike.armed = strike.armed or place == SENT

        given, issued, received = self._marks()
        outcome = self._call(scenario, strike, at=arm)
        self._keep(name, f"{place_of(code)}{' after sending' * late}", strike, outcome, (given, issued, received))
        self.forced.functions.add(place_of(code))

    def _strike_place(self, name: str, scenario: Scenario, place: str) -> None:
        strike = Strike(None, secrets.token_urlsafe(30))

        def raise_there(reached: str) -> None:
            if reached == place:
                strike.raise_once()

        marks = self._marks()
        outcome = self._call(scenario, None, at=raise_there)
        self._keep(name, place, strike, outcome, marks)
        self.forced.places.add(place)

    def _call(self, scenario: Scenario, tracer: Tracer | None, *, at: Callable[[str], Any] | None = None) -> Outcome:
        """The emulator is as new for each; so is the call's CMK."""
        fields = scenario.fields(
            self._emulator, lambda method, request: self._one_call.call(method, request).told_first
        )
        for fault in scenario.faults:
            self._emulator.faults.add(fault)
        try:
            return self._one_call.call(scenario.method, request_of(scenario.method, **fields), tracer, at=at)
        finally:
            self._emulator.faults.clear()

    def _marks(self) -> tuple[int, int, int]:
        return len(self._one_call.entropy.given), len(self._witness.issued), len(self._witness.received)

    def _secrets(self, marks: tuple[int, int, int], strike: Strike) -> Iterator[Secret]:
        """What came up since."""
        given, issued, received = marks
        yield Secret("text of the exception", strike.text.encode(), TEXT_RUN_BYTES)
        yield Secret("bearer token", self._one_call.bearer.rpartition(".")[2].encode(), TEXT_RUN_BYTES, _STRIDE)
        yield Secret("access-key secret", self._estate.access_key.access_key_secret.encode(), TEXT_RUN_BYTES)
        yield Secret("STS token", self._estate.access_key.security_token.encode(), TEXT_RUN_BYTES)
        for material in self._one_call.entropy.given[given:]:
            yield Secret("key material", material)
        tokens = list(self._witness.issued)[issued:] + [token for token, _ in self._witness.received[received:]]
        for token in tokens:
            yield Secret("import token", secret_of(token).encode(), TEXT_RUN_BYTES, _STRIDE)
        for _, blob in self._witness.received[received:]:
            yield Secret("wrapped material", blob, TEXT_RUN_BYTES, _STRIDE)

    def _keep(self, name: str, place: str, strike: Strike, outcome: Outcome, marks: tuple[int, int, int]) -> None:
        search = Search(self._secrets(marks, strike))
        foreign = self._foreign.getvalue()
        self._foreign.seek(0)
        self._foreign.truncate()
        told = b"" if (outcome.code, SCENARIOS[name].method) == ("OK", "GetImportParameters") else outcome.told
        audited = strike.text * (strike.text in outcome.audited)  # test_run.py looks through a whole audit log
        written = f"{outcome.metrics}{outcome.written}{audited}{foreign}".encode()
        findings = search.findings(b"\n".join([told, written]))
        held, shown = (
            frozenset(finding.secret for finding in search.findings(text)) for text in (strike.held, strike.shown)
        )
        made = Struck(
            name, place, strike.error is not None, outcome.code, outcome.written, tuple(findings), held, shown
        )
        self.forced.made.append(made)

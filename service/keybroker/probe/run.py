"""One run: the steps in their order, and the cleaning up that follows whatever happens."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from keybroker.adapters.kms.credentials import Credentials
from keybroker.adapters.kms.transport import Transport
from keybroker.ports import Clock
from keybroker.probe.bench import Bench
from keybroker.probe.course import CLEAN_UP_SECONDS, Course, ProbeStopped
from keybroker.probe.findings import QUESTIONS, Answer, Report, could_not_tell
from keybroker.probe.kms_calls import Exchange, KmsCalls
from keybroker.probe.search import list_keys
from keybroker.probe.steps.binding import (
    ask_delete_key_material,
    ask_different_material,
    ask_encrypt_layout,
    ask_same_material,
)
from keybroker.probe.steps.empty import ask_cancel_empty_key, ask_expiry
from keybroker.probe.steps.lists import ask_tag_filters
from keybroker.probe.steps.tokens import ask_tokens
from keybroker.probe.steps.visibility import ask_enabled, watch_first_import
from keybroker.probe.steps.wire import ClockComparison, ask_form_body
from keybroker.probe.throwaways import CannotTell, Throwaways
from keybroker.settings import ConfigurationError, InstanceSettings

Step = Callable[[Bench], list[Answer]]

STEPS: Sequence[tuple[Step, tuple[str, ...]]] = (
    (ask_tag_filters, ("tag_filters", "tag_filter_lag")),
    (ask_tokens, ("import_token_length", "older_token")),
    (watch_first_import, ()),
    (ask_encrypt_layout, ("encrypt_layout",)),
    (ask_form_body, ("form_body",)),
    (ask_same_material, ("same_material_reimport",)),
    (ask_different_material, ("different_material",)),
    (ask_delete_key_material, ("delete_key_material",)),
    (ask_cancel_empty_key, ("cancel_empty_key",)),
    (ask_expiry, ("expiry_absent", "expiry_set")),
    (ask_enabled, ("enabled_after_import",)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The instance that is asked."""

    name: str
    settings: InstanceSettings
    credentials: Callable[[], Credentials]


class Probe:
    """A run against one instance. `say` is told in words what happens; `run` returns whatever happened."""

    def __init__(self, *, target: Target, clock: Clock, course: Course, say: Callable[[str], None]) -> None:
        self._target = target
        self._clock = clock
        self._course = course
        self._say = say
        self._run_id = secrets.token_hex(16)
        self._comparison = ClockComparison()
        self._sent = 0
        self._answers: dict[str, Answer] = {}

    def run(self) -> Report:
        """Asks everything and cleans up. Raises ConfigurationError before it sends anything, and nothing after."""
        started_at = self._clock.now()
        transport = _transport(self._target.name, self._target.settings)
        try:
            return self._run(transport, started_at)
        finally:
            transport.close()

    def _run(self, transport: Transport, started_at: datetime) -> Report:
        calls = KmsCalls(
            transport=transport,
            credentials=self._target.credentials,
            clock=self._clock,
            course=self._course,
            on_exchange=self._take,
        )
        throwaways = self._throwaways(calls)
        bench = Bench(calls, self._course, self._clock, throwaways, self._target.settings.region)
        ended = "failed"
        try:
            ended = self._ask(bench)
        finally:
            self._clean_up(throwaways)
        return self._report(throwaways, started_at, ended)

    def _throwaways(self, calls: KmsCalls) -> Throwaways:
        return Throwaways(
            calls=calls,
            course=self._course,
            run_id=self._run_id,
            region=self._target.settings.region,
            dkms_instance_id=self._target.settings.dkms_instance_id,
            say=self._say,
        )

    def _ask(self, bench: Bench) -> str:
        """The steps, until one stops the run. A read comes first: what can't be listed could not be found again."""
        try:
            first = list_keys(bench.calls, {}, what="may this account list CMKs?", size=1)
            if first.error is not None:
                self._say(f"nothing was made: ListKeys came to {first.evidence.code}: {first.error.message}")
                return "could_not_start"
            for step, questions in STEPS:
                self._take_step(bench, step, questions)
        except ProbeStopped as stop:
            self._say(f"{stop.why}: no more questions, cleaning up (at most {CLEAN_UP_SECONDS:.0f} s)")
            return stop.why
        except Exception as error:  # noqa: BLE001  # a defect must not keep the CMKs or the report from their end
            self._say(f"the probe failed: {type(error).__name__}")
            return "failed"
        return "completed"

    def _take_step(self, bench: Bench, step: Step, questions: tuple[str, ...]) -> None:
        try:
            answers = step(bench)
        except CannotTell as failure:
            answers = [could_not_tell(question, failure.why, *failure.evidence) for question in questions]
        for answer in answers:
            self._answers[answer.question] = answer
            self._say(f"{answer.question}: {answer.verdict}")

    def _clean_up(self, throwaways: Throwaways) -> None:
        try:
            throwaways.clean_up()
        except Exception as error:  # noqa: BLE001  # the report names what is left
            self._say(f"cleaning up failed: {type(error).__name__}")

    def _take(self, exchange: Exchange) -> None:
        self._sent += 1
        self._comparison.take(exchange)

    def _report(self, throwaways: Throwaways, started_at: datetime, ended: str) -> Report:
        self._answers["clock_skew"] = self._comparison.answer()
        return Report(
            instance=self._target.name,
            region=self._target.settings.region,
            dkms_instance_id=self._target.settings.dkms_instance_id,
            run_id=self._run_id,
            started_at=started_at,
            finished_at=self._clock.now(),
            ended=ended,
            calls=self._sent,
            answers=tuple(self._answers.get(name) or could_not_tell(name, "not asked") for name in QUESTIONS),
            cmks=throwaways.reports,
            unaccounted=throwaways.unaccounted,
        )


def _transport(name: str, settings: InstanceSettings) -> Transport:
    try:
        return Transport(
            endpoint=settings.endpoint,
            proxy=settings.proxy_url,
            ca_bundle=settings.ca_bundle_file,
            connect_timeout_seconds=settings.connect_timeout_seconds,
            read_timeout_seconds=settings.read_timeout_seconds,
            pool_size=1,
            allow_emulator=settings.allow_emulator,
        )
    except ValueError as error:
        raise ConfigurationError(f"kms.instances.{name}: {error}") from None

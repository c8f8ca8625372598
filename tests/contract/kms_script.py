"""What a test tells a FakeKms to do at coming calls: fail, hold a request back, run something before or after."""

from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from keybroker.domain.errors import KmsError

When = Literal["before", "after", "late", "checked"]
Hook = Callable[[], object]


@dataclass(frozen=True)
class Moment:
    """What a request is checked against: the KMS's clock, and the tokens that were issued last."""

    now: datetime
    newest_tokens: frozenset[str]


@dataclass(frozen=True)
class Held:
    """A request whose caller was told something else and that has not taken effect yet."""

    act: Callable[[], object]
    checked: Moment | None  # None: it is checked when it lands


class Script:
    """Per operation, in the order of the calls. Each entry is used up by one call."""

    def __init__(self) -> None:
        self._failures: dict[str, deque[tuple[When, KmsError]]] = defaultdict(deque)
        self._hooks: dict[tuple[str, When], deque[Hook]] = defaultdict(deque)

    def fail_next(self, operation: str, error: KmsError, when: When = "before", times: int = 1) -> None:
        """The next `times` calls of `operation` not yet scripted raise `error`.

        When the request takes effect: "before" never, "after" at once, "late" as if it arrived at land_late(),
        "checked" at land_late() too, but its token was checked at the call.
        """
        self._failures[operation].extend([(when, error)] * times)

    def before(self, operation: str, hook: Hook) -> None:
        """Runs `hook` at the next call of `operation`, before it has any effect. What it raises, the call raises."""
        self._hooks[operation, "before"].append(hook)

    def after(self, operation: str, hook: Hook) -> None:
        """Runs `hook` at the next call of `operation`, when its effect is there and its answer is not yet told."""
        self._hooks[operation, "after"].append(hook)

    def _scripted_failure(self, operation: str) -> tuple[When, KmsError] | None:
        failures = self._failures[operation]
        return failures.popleft() if failures else None

    def _run_hook(self, operation: str, when: When) -> None:
        hooks = self._hooks[operation, when]
        if hooks:
            hooks.popleft()()

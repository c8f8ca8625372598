"""Temporary credentials kept fresh: fetched when first needed, and again ahead of their expiry.

Each fetch runs in a thread of its own that ends with it, one at a time. So nobody waits while the credentials in hand
are valid, and when there are none everybody waits for the same fetch, each until its own deadline. A fetch that fails
leaves valid credentials in use. Left out: fetching while nobody asks; after a quiet day the first call waits.
"""

import threading
from datetime import datetime, timedelta

import structlog

from keybroker.adapters.kms.credentials import Credentials, CredentialsError, Provider, TemporaryCredentials
from keybroker.domain.deadline import Deadline
from keybroker.ports import Clock

AHEAD_OF_EXPIRY = timedelta(minutes=15)  # contract 4, item 2; at most a quarter of the credentials' life
LONGEST_BACKOFF_SECONDS = 30.0
RENEW_EVERY_SECONDS = 10.0  # a KMS that refuses whatever it is sent must not become a flood at the provider
LONGEST_WAIT_SECONDS = 10.0  # of a caller without a deadline
_BETWEEN_FETCHES_SECONDS = 1.0
_NEVER = float("-inf")


class RefreshingCredentials:
    """See credentials.CredentialsSource. `instance` is the name to log. Fetches nothing until it is asked."""

    def __init__(self, provider: Provider, *, instance: str, clock: Clock) -> None:
        self._provider = provider
        self._instance = instance
        self._clock = clock
        self._changed = threading.Condition()
        self._fetching = False
        self._held: TemporaryCredentials | None = None
        self._fetch_from: datetime | None = None
        self._not_before = _NEVER
        self._renewed_at = _NEVER
        self._failures = 0
        self._failure = "not fetched yet"
        self._logged: tuple[str, bool] | None = None

    def __call__(self, *, deadline: Deadline | None = None) -> Credentials:
        """The credentials in hand if they are valid, else those of the fetch under way.

        Raises CredentialsError when it fails, when the last one failed a moment ago, or when the wait is over.
        """
        with self._changed:
            if self._is_due():
                self._start_fetch()
            if self._valid() is None:
                self._wait(deadline)
            valid, failure = self._valid(), self._failure
        if valid is None:
            raise CredentialsError(failure)
        return valid

    def renewed(self, refused: Credentials, *, deadline: Deadline) -> Credentials:
        """Fetches others, unless they are here already or were fetched for this reason a moment ago."""
        with self._changed:
            if self._valid() in {None, refused}:
                self._start_renewal()
                self._wait(deadline)
            return self._valid() or refused

    def _valid(self) -> Credentials | None:
        if self._held is None or self._clock.now() >= self._held.expires_at:
            return None
        return self._held.credentials

    def _is_due(self) -> bool:
        if self._fetching or self._clock.monotonic() < self._not_before:
            return False
        return self._fetch_from is None or self._clock.now() >= self._fetch_from

    def _start_renewal(self) -> None:
        now = self._clock.monotonic()
        if not self._fetching and now - self._renewed_at >= RENEW_EVERY_SECONDS:
            self._renewed_at = now
            self._start_fetch()

    def _start_fetch(self) -> None:
        threading.Thread(target=self._fetch, name=f"credentials-{self._instance}", daemon=True).start()
        self._fetching = True  # the thread can't end before this: it needs the lock

    def _wait(self, deadline: Deadline | None) -> None:
        seconds = LONGEST_WAIT_SECONDS if deadline is None else deadline.remaining_seconds()
        self._changed.wait_for(lambda: not self._fetching, timeout=seconds)

    def _fetch(self) -> None:
        fetched, failure = None, ""
        try:
            fetched = self._provider.fetch()
        except CredentialsError as error:
            failure = error.kind
        except Exception as error:  # noqa: BLE001  # whatever it is, those who wait must hear of it
            failure = type(error).__name__
        if fetched is not None and fetched.expires_at <= self._clock.now():
            fetched, failure = None, "already expired"
        with self._changed:
            self._fetching = False
            if fetched is None:
                self._take_failure(failure)
            else:
                self._take(fetched)
            self._changed.notify_all()

    def _take(self, fetched: TemporaryCredentials) -> None:
        life = fetched.expires_at - self._clock.now()
        self._held = fetched
        self._fetch_from = fetched.expires_at - min(AHEAD_OF_EXPIRY, life / 4)
        self._not_before = self._clock.monotonic() + _BETWEEN_FETCHES_SECONDS
        self._failures, self._failure, self._logged = 0, "expired", None
        structlog.get_logger().info(
            "kms_credentials_fetched", instance=self._instance, valid_seconds=round(life.total_seconds())
        )

    def _take_failure(self, failure: str) -> None:
        self._failures += 1
        self._failure = failure
        backoff = min(2.0 ** min(self._failures - 1, 10), LONGEST_BACKOFF_SECONDS)
        self._not_before = self._clock.monotonic() + backoff
        still_valid = self._valid() is not None
        if self._logged != (failure, still_valid):
            self._logged = (failure, still_valid)
            structlog.get_logger().warning(
                "kms_credentials_not_fetched", instance=self._instance, failure=failure, still_valid=still_valid
            )

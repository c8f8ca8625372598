"""Sends one operation to the KMS and reads its answer: credentials, date, signature, and the one repetition.

An operation is sent once more if the KMS refused the credentials or the date, which proves that it did nothing, and
others are to be had; but never one of SENT_ONCE: each of their sends is recorded before it leaves (rule R1 of the
import protocol), so their caller decides. Source: contract 1.12 (traps) and 3.4.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar

from keybroker.adapters.kms import replies
from keybroker.adapters.kms.clock_skew import LEAST_CORRECTED_SECONDS, ClockSkew, Heard
from keybroker.adapters.kms.credentials import Credentials, CredentialsSource
from keybroker.adapters.kms.error_table import ERROR_TABLE, OTHER, STALE_CREDENTIALS_CODES
from keybroker.adapters.kms.failures import credentials_unreadable
from keybroker.adapters.kms.signing import Acs3Auth
from keybroker.adapters.kms.transport import Reply, Transport
from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import KmsError, Reason
from keybroker.ports import Clock

OK = "OK"
SEND_SECONDS = 0.05  # with less left of the deadline a request is not sent
SENT_ONCE = frozenset({"CreateKey", "ImportKeyMaterial"})

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Answer:
    """A success reply: its JSON object and its Date."""

    body: replies.Body = field(repr=False)  # it may hold an import token
    date: datetime | None


@dataclass(frozen=True, slots=True)
class _Signed:
    """What a request was signed with."""

    credentials: Credentials
    correction: timedelta


class Sender:
    """One instance's. `observe(operation, code, seconds)` is told of every request, as KmsClient says."""

    def __init__(  # noqa: PLR0913  # what it works with
        self,
        *,
        transport: Transport,
        credentials: CredentialsSource,
        clock: Clock,
        skew: ClockSkew,
        observe: Callable[[str, str, float], None],
        nonce: Callable[[], str],
    ) -> None:
        self._transport = transport
        self._credentials = credentials
        self._clock = clock
        self._skew = skew
        self._observe = observe
        self._nonce = nonce

    def call(self, action: str, parameters: Mapping[str, str], deadline: Deadline, parse: Callable[[Answer], _T]) -> _T:
        """What `parse` makes of the answer. Raises what ports.Kms says."""
        deadline.require(SEND_SECONDS, step=action)
        signed = _Signed(self._current_credentials(action, deadline), self._skew.correction())
        try:
            return self._send(action, parameters, signed, deadline, parse)
        except KmsError as error:
            refusal = error
        better = self._better(signed, refusal, deadline)
        if better == signed or action in SENT_ONCE or deadline.remaining_seconds() < SEND_SECONDS:
            refusal.signs_anew = better != signed
            raise refusal
        return self._send(action, parameters, better, deadline, parse)

    def _better(self, signed: _Signed, refusal: KmsError, deadline: Deadline) -> _Signed:
        """What to sign with after this refusal; `signed` itself if nothing else is to be had."""
        if not refusal.committed_nothing:
            return signed
        if refusal.kms_code in STALE_CREDENTIALS_CODES:
            return _Signed(self._renewed(signed.credentials, deadline), signed.correction)
        correction = self._skew.correction()
        moved = abs((correction - signed.correction).total_seconds()) >= LEAST_CORRECTED_SECONDS
        if refusal.reason is Reason.KMS_CLOCK_SKEW and moved:
            return _Signed(signed.credentials, correction)
        return signed

    def _send(
        self,
        action: str,
        parameters: Mapping[str, str],
        signed: _Signed,
        deadline: Deadline,
        parse: Callable[[Answer], _T],
    ) -> _T:
        started = self._clock.monotonic()
        code = OTHER
        try:
            result = parse(self._exchange(action, parameters, signed, deadline))
            code = OK
        except KmsError as error:
            code = error.kms_code
            raise
        finally:
            self._observe(action, code, self._clock.monotonic() - started)
        return result

    def _exchange(self, action: str, parameters: Mapping[str, str], signed: _Signed, deadline: Deadline) -> Answer:
        auth = Acs3Auth(
            signed.credentials, action=action, now=lambda: self._clock.now() + signed.correction, nonce=self._nonce
        )
        sent_at, started = self._clock.now(), self._clock.monotonic()
        reply = self._transport.post(parameters, auth=auth, deadline=deadline)
        took_seconds = self._clock.monotonic() - started
        date = replies.read_date(reply)
        heard = Heard(date, sent_at, took_seconds) if date else None
        return Answer(self._read(reply, heard), date)

    def _read(self, reply: Reply, heard: Heard | None) -> replies.Body:
        """The clock is measured by what is certainly the KMS's answer, not by a gateway's on the way."""
        try:
            body = replies.read_body(reply)
        except KmsError as error:
            if heard is not None and error.kms_code in ERROR_TABLE:
                proved = error.committed_nothing and error.reason is Reason.KMS_CLOCK_SKEW
                (self._skew.start_anew if proved else self._skew.hear)(heard)
            raise
        if heard is not None:
            self._skew.hear(heard)
        return body

    def _current_credentials(self, action: str, deadline: Deadline) -> Credentials:
        failure: KmsError | None = None
        try:
            credentials = self._credentials(deadline=deadline)
        except (OSError, ValueError) as error:
            failure = credentials_unreadable(type(error).__name__)
        deadline.require(SEND_SECONDS, step=action)  # the source may have waited
        if failure is not None:
            raise failure
        return credentials

    def _renewed(self, refused: Credentials, deadline: Deadline) -> Credentials:
        try:
            return self._credentials.renewed(refused, deadline=deadline)
        except (OSError, ValueError):
            return refused

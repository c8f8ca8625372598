"""Requests of the probe: any operation with any parameters, and the KMS's own words in answer.

It stands on the adapter's transport, signing and reply reading. Unlike the adapter it keeps codes that nobody knows:
they are what it is looking for. Repeated are only throttled requests, reads that got no answer, and, with other
credentials, what was refused for stale ones.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from requests import PreparedRequest
from requests.auth import AuthBase

from keybroker.adapters.kms.credentials import Credentials, as_source
from keybroker.adapters.kms.error_table import STALE_CREDENTIALS_CODES
from keybroker.adapters.kms.failures import credentials_unreadable
from keybroker.adapters.kms.replies import Body, read_body
from keybroker.adapters.kms.signing import Acs3Auth
from keybroker.adapters.kms.transport import Reply, Transport
from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import KmsError, Reason
from keybroker.ports import Clock
from keybroker.probe.course import REQUEST_SECONDS, Course
from keybroker.probe.findings import Evidence, Outcome

FORM_CONTENT_TYPE = "application/x-www-form-urlencoded"
READS = frozenset({"DescribeKey", "ListKeys", "GetParametersForImport", "Encrypt"})
_TRIES = 5
_LONGEST_BACKOFF_SECONDS = 8.0
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,99}")
_REQUEST_ID = re.compile(r"[0-9A-Za-z-]{1,64}")
_PROVES_NOTHING = frozenset(  # about the question: the request was not looked at
    {
        Reason.KMS_THROTTLED,
        Reason.KMS_UNAVAILABLE,
        Reason.KMS_RESPONSE_INVALID,
        Reason.KMS_INSTANCE_NOT_READY,
        Reason.KMS_ACCESS_DENIED,
        Reason.KMS_CREDENTIALS_REJECTED,
        Reason.KMS_ACCOUNT_BLOCKED,
        Reason.KMS_CLOCK_SKEW,
        Reason.EMULATOR_NOT_ALLOWED,
    }
)


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request: the evidence of it, and its body when it was accepted. `error` is set when it was not."""

    evidence: Evidence
    body: Body = field(default_factory=dict, repr=False)
    error: KmsError | None = None
    date: datetime | None = None  # the header Date of the reply
    local_times: tuple[datetime, datetime] | None = None  # by this machine: sent, answered

    @property
    def accepted(self) -> bool:
        """Whether the KMS answered success."""
        return self.evidence.outcome is Outcome.ACCEPTED

    @property
    def refused(self) -> bool:
        """Whether the KMS looked at the request and said no."""
        return self.evidence.outcome is Outcome.REFUSED

    @property
    def committed_nothing(self) -> bool:
        """Whether it is certain that the request changed nothing."""
        return self.error is not None and self.error.committed_nothing


class FormBody(AuthBase):
    """Moves the parameters from the query to a form body, then signs. Source: contract 3.1, vector C of 3.3."""

    def __init__(self, signing: AuthBase) -> None:
        self._signing = signing

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        """Changes `r` in place."""
        parts = urlsplit(str(r.url))
        r.body, r.url = parts.query, parts._replace(query="").geturl()
        r.headers["Content-Length"] = str(len(parts.query))
        r.headers["Content-Type"] = FORM_CONTENT_TYPE
        return self._signing(r)


class KmsCalls:
    """Sends paced, signed requests to one instance. `on_exchange` is told of every one, the repeated ones too."""

    def __init__(
        self,
        *,
        transport: Transport,
        credentials: Callable[[], Credentials],
        clock: Clock,
        course: Course,
        on_exchange: Callable[[Exchange], None],
    ) -> None:
        self._transport = transport
        self._credentials = as_source(credentials)
        self._used: Credentials | None = None
        self._clock = clock
        self._course = course
        self._on_exchange = on_exchange

    def call(self, action: str, parameters: Mapping[str, str], *, what: str, form: bool = False) -> Exchange:
        """One request, or as many as it takes to be heard. Raises ProbeStopped where nothing is under way."""
        tries = 1
        while True:
            exchange = self._send(action, parameters, what, form=form)
            if tries == _TRIES or not (_is_worth_repeating(action, exchange) or self._has_renewed(exchange)):
                return exchange
            self._course.wait(_backoff_seconds(exchange, tries))
            tries += 1

    def _send(self, action: str, parameters: Mapping[str, str], what: str, *, form: bool) -> Exchange:
        deadline = self._course.take_turn()
        sent_at, sent_time = self._clock.monotonic(), self._clock.now()
        reply: Reply | None = None
        body: Body = {}
        error: KmsError | None = None
        try:
            signing = Acs3Auth(self._current_credentials(deadline), action=action, now=self._clock.now)
            reply = self._transport.post(parameters, auth=FormBody(signing) if form else signing, deadline=deadline)
            body = read_body(reply)
        except KmsError as failure:
            error = failure
        answered_at = self._clock.monotonic()
        evidence = Evidence(
            operation=action,
            what=what,
            outcome=_outcome(error, reply),
            http_status=None if reply is None else reply.status,
            code="" if error is None else _code(error, reply),
            request_id=_request_id(body, error),
            sent_at=sent_at,
            answered_at=answered_at,
        )
        exchange = Exchange(evidence, body, error, _date(reply), (sent_time, self._clock.now()))
        self._on_exchange(exchange)
        return exchange

    def _current_credentials(self, deadline: Deadline) -> Credentials:
        try:
            self._used = self._credentials(deadline=deadline)
        except (OSError, ValueError) as error:
            failure = credentials_unreadable(type(error).__name__)
        else:
            return self._used
        raise failure

    def _has_renewed(self, exchange: Exchange) -> bool:
        """Whether there are other credentials now than those that were refused."""
        stale = exchange.committed_nothing and exchange.evidence.code in STALE_CREDENTIALS_CODES
        if not stale or self._used is None:
            return False
        deadline = Deadline.after(REQUEST_SECONDS, monotonic=self._clock.monotonic)
        try:
            return self._credentials.renewed(self._used, deadline=deadline) != self._used
        except (OSError, ValueError):
            return False


def _outcome(error: KmsError | None, reply: Reply | None) -> Outcome:
    if error is None:
        return Outcome.ACCEPTED
    if reply is None or reply.status >= 500 or error.reason in _PROVES_NOTHING or _is_throttled(error, reply):  # noqa: PLR2004
        return Outcome.UNCLEAR
    return Outcome.REFUSED


def _is_throttled(error: KmsError, reply: Reply | None) -> bool:
    return error.reason is Reason.KMS_THROTTLED or (reply is not None and reply.status == 429)  # noqa: PLR2004


def _is_worth_repeating(action: str, exchange: Exchange) -> bool:
    if exchange.error is None or exchange.error.reason is Reason.EMULATOR_NOT_ALLOWED:
        return False
    if exchange.error.reason is Reason.KMS_THROTTLED:
        return exchange.committed_nothing
    unanswered = {Reason.KMS_UNAVAILABLE, Reason.KMS_RESPONSE_INVALID}
    return action in READS and exchange.error.reason in unanswered


def _backoff_seconds(exchange: Exchange, tries: int) -> float:
    asked = exchange.error.retry_after_seconds if exchange.error else None
    return min(_LONGEST_BACKOFF_SECONDS, max(asked or 0.0, 0.5 * 2.0**tries))


def _code(error: KmsError, reply: Reply | None) -> str:
    """The KMS's own code, if the answer has one that looks like a code; otherwise the adapter's word."""
    try:
        said = json.loads(reply.body)["Code"] if reply is not None else None
    except (ValueError, RecursionError, KeyError, TypeError):
        said = None
    return said if isinstance(said, str) and _CODE.fullmatch(said) else error.kms_code


def _request_id(body: Body, error: KmsError | None) -> str:
    if error is not None:
        return error.kms_request_id
    said = body.get("RequestId")
    return said if isinstance(said, str) and _REQUEST_ID.fullmatch(said) else ""


def _date(reply: Reply | None) -> datetime | None:
    try:
        return parsedate_to_datetime(reply.headers["date"]) if reply is not None else None
    except (KeyError, ValueError):
        return None

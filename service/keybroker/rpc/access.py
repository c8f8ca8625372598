"""Who may call what: asked once when a call comes in, and once more when its request has been read.

Without a configured identity everybody on the listener may do everything: that is for loopback.
"""

from collections.abc import Callable
from typing import Protocol

from keybroker.domain.errors import BrokerError, Reason
from keybroker.domain.policy import Access, Policy, Rule
from keybroker.ports import Authenticator, CallerCredentials

SERVICE_PREFIX = "/keymaterial.v1.KeyBrokerService/"
_OPEN = ("/grpc.health.v1.Health/",)
_OPERATORS = {"/grpc.reflection.": "Reflection", "/grpc.channelz.": "Channelz"}


class RateLimit(Protocol):
    """Counts the calls that a rule allows a caller."""

    def wait_seconds(self, rule: Rule, caller: str) -> float:
        """Counts one call and returns 0.0, or returns how long to wait if the minute's calls are used up."""


class AccessControl:
    """Identity and policy of one listener."""

    def __init__(self, *, authenticator: Authenticator, policy: Callable[[], Policy], rate_limit: RateLimit) -> None:
        self._authenticator = authenticator
        self._policy = policy
        self._rate_limit = rate_limit

    def authenticate(self, credentials: CallerCredentials) -> str:
        """The caller's principal. Reasons: CALLER_UNAUTHENTICATED."""
        return self._authenticator.authenticate(credentials)

    def check_method(self, method: str, caller: str) -> None:
        """Raises unless some rule is about this caller and this method. Reasons: CALLER_NOT_ALLOWED."""
        rpc = rpc_name(method)
        if not self._policy().names(caller, rpc):
            raise not_allowed(f"No rule lets {caller} call {rpc}.")

    def check(self, access: Access) -> Rule:
        """The rule that allows all of the call. Reasons: CALLER_NOT_ALLOWED, CALLER_RATE_LIMITED."""
        decision = self._policy().decide(access)
        if decision.rule is None:
            raise not_allowed(f"The policy does not let {access.caller} do this: {decision.why}.")
        wait_seconds = self._rate_limit.wait_seconds(decision.rule, access.caller)
        if wait_seconds > 0:
            raise BrokerError(
                Reason.CALLER_RATE_LIMITED,
                f"{access.caller} has used up the {decision.rule.requests_per_minute} calls a minute of its rule.",
                retry_after_seconds=wait_seconds,
            )
        return decision.rule


def is_open(method: str) -> bool:
    """Whether everybody may call the method: health only."""
    return method.startswith(_OPEN)


def rpc_name(method: str) -> str:
    """The name of a method in a policy. One that no policy can name keeps its path."""
    if method.startswith(SERVICE_PREFIX):
        return method.removeprefix(SERVICE_PREFIX)
    return next((name for prefix, name in _OPERATORS.items() if method.startswith(prefix)), method)


def not_allowed(message: str) -> BrokerError:
    """The policy's no."""
    return BrokerError(Reason.CALLER_NOT_ALLOWED, message)

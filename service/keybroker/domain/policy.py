"""What callers may do. Default deny: a call is allowed only if one rule allows all of it.

Rules are not combined: the caller, the RPC, the instance, the key and what is to be created must fit the same rule.
Only what can't be changed by others upstream decides: canonical key ids, and what this very request asks to create.
Aliases and tags of existing CMKs decide nothing.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from keybroker.domain.external_key import NewKey
from keybroker.domain.key_spec import KeySpec
from keybroker.domain.wrapping import WrappingAlgorithm


class Pattern:
    """A text in which `*` stands for any characters but "/", and `**` for any characters."""

    def __init__(self, text: str) -> None:
        self.text = text
        parts = re.split(r"(\*\*|\*)", text)
        wild = {"*": "[^/]*", "**": ".*"}
        self._regex = re.compile("".join(wild.get(part) or re.escape(part) for part in parts), re.DOTALL)

    def matches(self, value: str) -> bool:
        """Whether the whole value fits."""
        return self._regex.fullmatch(value) is not None


def any_matches(patterns: Sequence[Pattern], value: str) -> bool:
    """Whether one of the patterns fits the value."""
    return any(pattern.matches(value) for pattern in patterns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What a call wants. What is None is not part of the call.

    `key_id` is canonical, or an alias that a read names. `wrapping_algorithms` are those that may be in play: more than
    one for an import token of unknown algorithm.
    """

    caller: str
    rpc: str
    instance: str | None = None
    key_id: str | None = None
    new_key: NewKey | None = None
    wrapping_algorithms: frozenset[WrappingAlgorithm] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What some callers may do. `rpcs` are names as in the .proto, and "Reflection" and "Channelz"."""

    name: str
    callers: Sequence[Pattern]
    rpcs: frozenset[str]
    instances: Sequence[Pattern]
    keys: Sequence[Pattern] = ()
    may_create: bool = False
    may_delete: bool = False
    new_key_specs: frozenset[KeySpec] = frozenset()
    new_key_aliases: Sequence[Pattern] = ()
    new_key_tags: Mapping[str, Sequence[Pattern]] = field(default_factory=dict)
    wrapping_algorithms: frozenset[WrappingAlgorithm] = frozenset()
    requests_per_minute: int | None = None

    def names(self, caller: str, rpc: str) -> bool:
        """Whether the rule is about this caller and this RPC at all."""
        deletes = rpc in {"ScheduleKeyDeletion", "CancelKeyDeletion", "DeleteOrphanedKey"}
        return any_matches(self.callers, caller) and rpc in self.rpcs and (self.may_delete or not deletes)

    def objection(self, access: Access) -> str | None:
        """Why the rule does not allow this call of a caller and an RPC that it names; None if it does."""
        if access.instance is not None and not any_matches(self.instances, access.instance):
            return "the instance"
        if access.key_id is not None and not self._allows_key(access.key_id):
            return "the key"
        if not access.wrapping_algorithms <= self.wrapping_algorithms:
            return "the wrapping algorithm"
        return self._objection_to_new(access.new_key) if access.new_key is not None else None

    def _allows_key(self, key_id: str) -> bool:
        if key_id.startswith("alias/"):  # an alias names whatever CMK others let it name
            return self._all_keys
        return any_matches(self.keys, key_id)

    @cached_property
    def _all_keys(self) -> bool:
        return any(pattern.text in {"*", "**"} for pattern in self.keys)

    def _objection_to_new(self, new_key: NewKey) -> str | None:
        if not self.may_create:
            return "creating a CMK"
        if new_key.spec not in self.new_key_specs:
            return "the new CMK's spec"
        if new_key.alias and not any_matches(self.new_key_aliases, new_key.alias):
            return "the new CMK's alias"
        for key, value in new_key.tags.items():
            if not any_matches(self.new_key_tags.get(key, ()), value):
                return "the new CMK's tags"
        return None


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policy says of a call. `rule` allows it; without one, `why` says what no rule allowed."""

    rule: Rule | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules; the first that allows a call decides."""

    rules: Sequence[Rule]

    def names(self, caller: str, rpc: str) -> bool:
        """Whether any rule is about this caller and this RPC: known before the request is read."""
        return any(rule.names(caller, rpc) for rule in self.rules)

    def decide(self, access: Access) -> Decision:
        """Which rule allows the call, or why none does."""
        about = [rule for rule in self.rules if rule.names(access.caller, access.rpc)]
        objections = []
        for rule in about:
            objection = rule.objection(access)
            if objection is None:
                return Decision(rule)
            objections.append(f"rule {rule.name} does not allow {objection}")
        return Decision(None, "; ".join(objections) or f"no rule lets this caller call {access.rpc}")

"""The policy file: YAML, checked to the last key, made into domain/policy.py's rules."""

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from keybroker import strict_yaml
from keybroker.domain.key_spec import AES_128, AES_192, AES_256
from keybroker.domain.policy import Pattern, Policy, Rule
from keybroker.domain.wrapping import WRAPPING_ALGORITHMS
from keybroker.settings import ConfigurationError, wording

Rpc = Literal[
    "ImportExternalKey",
    "CreateExternalKey",
    "GetImportParameters",
    "ImportWrappedKeyMaterial",
    "GetImport",
    "DescribeKey",
    "ScheduleKeyDeletion",
    "CancelKeyDeletion",
]
OperatorRpc = Literal["ListOrphanedKeys", "DeleteOrphanedKey", "Reflection", "Channelz"]  # "*" leaves them out
Spec = Literal["AES_128", "AES_192", "AES_256"]
Algorithm = Literal["RSAES_OAEP_SHA_256", "RSAES_PKCS1_V1_5"]

SPECS = {"AES_128": AES_128, "AES_192": AES_192, "AES_256": AES_256}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class _NewKeys(_Section):
    """What a CMK that the caller creates may be. Aliases and tags not named here are not allowed."""

    specs: list[Spec] = Field(default=list(get_args(Spec)), min_length=1)
    aliases: list[str] = []
    tags: dict[str, list[str]] = {}


class _Rule(_Section):
    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    callers: list[str] = Field(min_length=1)
    rpcs: Literal["*"] | list[Rpc | OperatorRpc]
    instances: list[str] = Field(default=["*"], min_length=1)
    keys: list[str] = []
    may_create: bool = False
    may_delete: bool = False
    new_keys: _NewKeys = Field(default_factory=_NewKeys)
    wrapping_algorithms: list[Algorithm] = ["RSAES_OAEP_SHA_256"]
    requests_per_minute: int | None = Field(default=None, ge=1, le=1_000_000)

    @field_validator("callers")
    @classmethod
    def _are_principals(cls, callers: list[str]) -> list[str]:
        for caller in callers:
            if not caller.startswith(("x509:spiffe://", "x509:dns:", "jwt:")):
                raise ValueError("must start with x509:spiffe://, x509:dns: or jwt:")
        return callers

    def to_domain(self) -> Rule:
        return Rule(
            name=self.name,
            callers=_patterns(self.callers),
            rpcs=frozenset(get_args(Rpc) if self.rpcs == "*" else self.rpcs),
            instances=_patterns(self.instances),
            keys=_patterns(self.keys),
            may_create=self.may_create,
            may_delete=self.may_delete,
            new_key_specs=frozenset(SPECS[spec] for spec in self.new_keys.specs),
            new_key_aliases=_patterns(self.new_keys.aliases),
            new_key_tags={key: _patterns(values) for key, values in self.new_keys.tags.items()},
            wrapping_algorithms=frozenset(WRAPPING_ALGORITHMS[name] for name in self.wrapping_algorithms),
            requests_per_minute=self.requests_per_minute,
        )


class _File(_Section):
    rules: list[_Rule]

    @field_validator("rules")
    @classmethod
    def _names_differ(cls, rules: list[_Rule]) -> list[_Rule]:
        names = [rule.name for rule in rules]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"must have different names: {', '.join(repeated)}")
        return rules


def parse_policy(content: bytes) -> Policy:
    """The policy in a file's content. Raises ConfigurationError that names what is wrong, and where."""
    try:
        tree = strict_yaml.load(content)
    except strict_yaml.NOT_YAML as error:
        raise ConfigurationError(f"policy: {strict_yaml.wording(error, with_line=True)}") from None
    try:
        return Policy([rule.to_domain() for rule in _File.model_validate(tree).rules])
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        lines = [
            f"{'.'.join(map(str, ('policy', *problem['loc'])))}: {wording(problem['type'], problem['msg'])}"
            for problem in problems
        ]
        raise ConfigurationError("\n".join(lines)) from None


def _patterns(texts: list[str]) -> list[Pattern]:
    return [Pattern(text) for text in texts]

"""`keybroker policy explain`: which rule decides a call that one describes."""

import argparse
from pathlib import Path

from keybroker.domain.external_key import NewKey
from keybroker.domain.policy import Access, Decision
from keybroker.domain.wrapping import RSAES_OAEP_SHA_256, WRAPPING_ALGORITHMS
from keybroker.policy_file import SPECS, parse_policy
from keybroker.settings import ConfigurationError, load_settings, read_file

EXIT_ALLOWED = 0
EXIT_DENIED = 1

_WITH_ALGORITHM = {"ImportExternalKey", "GetImportParameters", "ImportWrappedKeyMaterial"}


def add_policy_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `policy explain` to the command line."""
    policy = commands.add_parser("policy", help="ask the policy").add_subparsers(required=True, metavar="COMMAND")
    explain = policy.add_parser(
        "explain", help="say which rule decides a call", description="Ends in 0 if the call is allowed, in 1 if not."
    )
    source = explain.add_mutually_exclusive_group(required=True)
    source.add_argument("--config", type=Path, metavar="FILE", help="configuration whose policy is asked")
    source.add_argument("--policy", type=Path, metavar="FILE", help="policy file to ask")
    explain.add_argument(
        "--caller", required=True, help="principal: x509:spiffe://…, x509:dns:NAME, jwt:ISSUER#SUBJECT"
    )
    explain.add_argument("--rpc", required=True, help="name as in the .proto, or Reflection, Channelz")
    explain.add_argument("--instance", help="configured KMS instance")
    explain.add_argument("--key", metavar="KEY_ID", help="canonical key id")
    explain.add_argument("--spec", choices=sorted(SPECS), help="of a CMK to create")
    explain.add_argument("--alias", default="", help="of a CMK to create")
    explain.add_argument("--tag", action="append", default=[], metavar="KEY=VALUE", help="of a CMK to create")
    explain.add_argument("--algorithm", choices=sorted(WRAPPING_ALGORITHMS), help="wrapping algorithm; default OAEP")
    explain.set_defaults(run=_explain)


def _explain(options: argparse.Namespace) -> int:
    policy = parse_policy(read_file(_policy_path(options), key="policy"))
    decision = policy.decide(_access(options))
    print(_wording(options, decision))  # noqa: T201  # a command's answer
    return EXIT_ALLOWED if decision.rule else EXIT_DENIED


def _policy_path(options: argparse.Namespace) -> Path:
    if options.policy is not None:
        return Path(options.policy)
    settings = load_settings(options.config)
    if settings.policy is None:
        raise ConfigurationError("policy: the configuration has none")
    return settings.policy.file


def _access(options: argparse.Namespace) -> Access:
    algorithm = WRAPPING_ALGORITHMS[options.algorithm] if options.algorithm else RSAES_OAEP_SHA_256
    return Access(
        caller=options.caller,
        rpc=options.rpc,
        instance=options.instance,
        key_id=options.key,
        new_key=_new_key(options),
        wrapping_algorithms=frozenset({algorithm} if options.rpc in _WITH_ALGORITHM else ()),
    )


def _new_key(options: argparse.Namespace) -> NewKey | None:
    if options.spec is None:
        if options.alias or options.tag:
            raise ConfigurationError("--alias and --tag are of a CMK to create: give its --spec too")
        return None
    if options.key is not None:
        raise ConfigurationError("--key names an existing CMK and --spec one to create: give one of them")
    tags = dict(tag.partition("=")[::2] for tag in options.tag)
    return NewKey(SPECS[options.spec], alias=options.alias, tags=tags)


def _wording(options: argparse.Namespace, decision: Decision) -> str:
    if decision.rule is None:
        return f"denied: {decision.why}"
    rate = decision.rule.requests_per_minute
    limit = f", at most {rate} calls a minute" if rate else ""
    return f"allowed by rule {decision.rule.name}: {options.caller} may call {options.rpc}{limit}"

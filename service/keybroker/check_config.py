"""`keybroker check-config`: checks a configuration without serving, says what it gives and warns of what it lacks."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from keybroker.app import App
from keybroker.receipt_keys import receipt_key
from keybroker.settings import (
    AuditSettings,
    EntropySettings,
    LedgerSettings,
    ReceiptSettings,
    Settings,
    load_settings,
)


def add_check_config_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `check-config` to the command line."""
    parser = commands.add_parser("check-config", help="check a configuration and say what it gives")
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration, YAML")
    parser.set_defaults(run=check_config)


def check_config(options: argparse.Namespace) -> int:
    """Prints what the configuration gives, and warnings to standard error. Raises ConfigurationError."""
    settings = load_settings(options.config)
    App(settings)
    print("The configuration is good.")
    for line in _gives(settings):
        print(line)
    for warning in _warnings(settings):
        print(f"keybroker: warning: {warning}", file=sys.stderr)
    return 0


def _gives(settings: Settings) -> Iterator[str]:
    server = settings.server
    yield f"gRPC {server.grpc_address} ({'TLS' if server.tls else 'no TLS'}), HTTP {server.http_address}"
    yield f"Callers: {_callers(settings)}"
    for name, instance in settings.kms.instances.items():
        default = " (default)" if name == settings.kms.default_instance else ""
        yield f"KMS instance {name}{default}: {instance.dkms_instance_id} at {instance.endpoint}"
    yield f"Ledger: {_ledger(settings.ledger)}"
    yield f"Randomness: {_entropy(settings.entropy)}"
    yield f"Audit: {_audit(settings.audit)}"
    yield f"Receipts: {_receipts(settings.receipts)}"


def _callers(settings: Settings) -> str:
    identity = settings.server.identity
    if identity is None or settings.policy is None:
        return "anybody who reaches the gRPC address, for everything"
    method = "client certificates" if identity.mtls else "bearer tokens"
    return f"known by {method}, as {settings.policy.file} allows"


def _ledger(settings: LedgerSettings) -> str:
    if settings.file is None:
        return "in memory"
    return f"{settings.file}, mark {settings.mark_file or 'none'}, key {settings.key_file}"


def _entropy(settings: EntropySettings) -> str:
    if settings.pkcs11 is None:
        return "the operating system's"
    return f"token {settings.pkcs11.token_label} of {settings.pkcs11.module_file} (not asked now)"


def _audit(settings: AuditSettings) -> str:
    places = [str(settings.file)] if settings.file else []
    places += ["standard output"] if settings.stdout else []
    return " and ".join(places) or "off"


def _receipts(settings: ReceiptSettings) -> str:
    key = receipt_key(settings)
    return "none" if key is None else f"signed with key {key.kid}"


def _warnings(settings: Settings) -> Iterator[str]:
    if settings.ledger.file is None:
        yield (
            "ledger.file is not set: a restart forgets every request, so what was under way stays unresolved and a "
            "repeat is taken for a new request"
        )
    elif settings.ledger.mark_file is None:
        yield "ledger.mark_file is not set: a ledger that was restored from a backup is not recognised"
    if settings.audit.is_on and settings.ledger.file is None:
        yield "there is an audit log and no ledger.file: outcomes that it does not have yet are lost with the process"
    if settings.policy is not None and not settings.audit.is_on:
        yield "there is a policy and no audit log (audit.file, audit.stdout): nobody can see later who changed what"

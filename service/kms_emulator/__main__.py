"""Command `kms-emulator`: one emulator in the foreground until SIGTERM or SIGINT, then exit status 0."""

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import get_args

from kms_emulator.emulator import Emulator
from kms_emulator.faults import Fault
from kms_emulator.quotas import QuotaMode
from kms_emulator.readings import Readings
from kms_emulator.settings import AccessKey, EmulatorSettings
from kms_emulator.version import VERSION

DEFAULT_PORT = 8088

_EXIT_USAGE = 2
_SWITCH_INTERVAL_SECONDS = 0.05
"""Every thread that waits for the interpreter wakes this often: at the usual 5 ms, 2,000 busy connections leave it no
time to serve any. It holds for the whole process, so only the command sets it, not the class Emulator."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 after a signal, 2 for arguments that do not fit or a port that is taken."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(
        level=logging.WARNING if arguments.quiet else logging.INFO, format="%(message)s", stream=sys.stderr
    )
    try:
        _serve_until_signal(Emulator(_settings(arguments)))
    except (ValueError, TypeError, OSError) as error:
        print(f"kms-emulator: {error}", file=sys.stderr)
        return _EXIT_USAGE
    return 0


def _serve_until_signal(emulator: Emulator) -> None:
    sys.setswitchinterval(_SWITCH_INTERVAL_SECONDS)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with emulator:
        _announce(emulator)
        stop.wait()


def _announce(emulator: Emulator) -> None:
    settings = emulator.settings
    print(f"KMS emulator {VERSION} at {emulator.endpoint} (region {settings.region}, account {settings.account_id})")
    print(f"  Dedicated KMS instances: {', '.join(settings.dkms_instance_ids) or 'none'}")
    for key in settings.access_keys:
        print(f"  access key: {key.access_key_id}  secret: {key.access_key_secret}")
    if settings.admin_port is not None:
        print(f"  admin API at {emulator.admin_endpoint}  bearer token: {emulator.admin_token}")
    sys.stdout.flush()


def _settings(arguments: argparse.Namespace) -> EmulatorSettings:
    defaults = EmulatorSettings()
    access_key = AccessKey(arguments.access_key_id, arguments.access_key_secret, arguments.security_token)
    return EmulatorSettings(
        host=arguments.host,
        port=arguments.port,
        allow_non_loopback=arguments.allow_non_loopback,
        tls_certificate_path=arguments.tls_cert,
        tls_key_path=arguments.tls_key,
        region=arguments.region,
        account_id=arguments.account_id,
        dkms_instance_ids=tuple(arguments.dkms_instance or defaults.dkms_instance_ids),
        access_keys=(access_key,),
        rsa_key_pool=arguments.rsa_key_pool,
        readings=reduce(Readings.changed_by_text, arguments.reading, Readings()),
        faults=tuple(Fault.from_text(text) for text in arguments.fault),
        quota_mode=arguments.quotas,
        clock_offset_seconds=arguments.clock_offset,
        admin_port=arguments.admin_port,
        admin_token=arguments.admin_token,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kms-emulator",
        description="Emulates Alibaba Cloud KMS with a Dedicated KMS instance, for tests and demonstrations.",
    )
    parser.add_argument("--version", action="version", version=f"kms-emulator {VERSION}")
    _add_server_arguments(parser.add_argument_group("server"))
    _add_account_arguments(parser.add_argument_group("account"))
    _add_behaviour_arguments(parser.add_argument_group("behaviour"))
    return parser


def _add_server_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--host", default="127.0.0.1", help="address to bind (default: %(default)s)")
    group.add_argument("--port", type=int, default=DEFAULT_PORT, help="0 takes any (default: %(default)s)")
    group.add_argument("--allow-non-loopback", action="store_true", help="let others reach this emulator")
    group.add_argument("--tls-cert", type=Path, metavar="PEM", help="serve TLS with this certificate chain")
    group.add_argument("--tls-key", type=Path, metavar="PEM", help="private key of the certificate")
    group.add_argument("--admin-port", type=int, help="serve the admin API on this loopback port")
    group.add_argument("--admin-token", default="", help="its bearer token (default: made up and printed)")
    group.add_argument("--quiet", action="store_true", help="no log line per request")


def _add_account_arguments(group: argparse._ArgumentGroup) -> None:
    defaults = EmulatorSettings()
    access_key = defaults.access_keys[0]
    group.add_argument("--region", default=defaults.region, help="(default: %(default)s)")
    group.add_argument("--account-id", default=defaults.account_id, help="(default: %(default)s)")
    group.add_argument("--dkms-instance", action="append", metavar="ID", help="may be repeated (default: kst-example)")
    group.add_argument("--access-key-id", default=access_key.access_key_id, help="(default: %(default)s)")
    group.add_argument("--access-key-secret", default=access_key.access_key_secret, help="(default: %(default)s)")
    group.add_argument("--security-token", default="", help="makes the access key an STS one")


def _add_behaviour_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--reading", action="append", default=[], metavar="NAME=VALUE", help="may be repeated")
    group.add_argument(
        "--fault", action="append", default=[], metavar="NAME=VALUE,…", help="arm a fault; may be repeated"
    )
    group.add_argument("--quotas", choices=get_args(QuotaMode), default="off", help="(default: %(default)s)")
    group.add_argument("--clock-offset", type=float, default=0.0, metavar="SECONDS", help="move the clock")
    group.add_argument(
        "--rsa-key-pool", type=int, default=0, metavar="N", help="share N key pairs among tokens: benchmarks only"
    )


if __name__ == "__main__":
    sys.exit(main())

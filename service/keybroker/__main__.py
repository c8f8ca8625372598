"""The command `keybroker`: serve, check-config, policy, audit, receipt, demo, probe-kms, version."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

from keybroker import __version__
from keybroker.app import App, serve
from keybroker.audit_command import add_audit_parser
from keybroker.check_config import add_check_config_command
from keybroker.domain.errors import BrokerError
from keybroker.domain.secret_memory import MEMORY
from keybroker.policy_explain import add_policy_command
from keybroker.probe.command import add_probe_parser
from keybroker.process_hardening import protect_from_dumps
from keybroker.receipt_command import add_receipt_command
from keybroker.self_tests import SelfTestFailed
from keybroker.settings import ConfigurationError, Settings, load_settings
from keybroker.telemetry.logs import configure_logs, exception_chain

EXIT_FAILED = 1
EXIT_CONFIGURATION = 2
_EMULATOR_PORT = 8088


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. Exit status: 0 done, 1 failed, 2 the configuration or the arguments are wrong."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except ConfigurationError as error:
        print(f"keybroker: the configuration can't be used:\n{error}", file=sys.stderr)
        return EXIT_CONFIGURATION
    except SelfTestFailed as error:
        print(f"keybroker: nothing is served: {error}", file=sys.stderr)
        return EXIT_FAILED
    except BrokerError as error:
        print(f"keybroker: {error}", file=sys.stderr)
        return EXIT_FAILED
    except Exception as error:  # noqa: BLE001  # Python would print its text, which may quote anything
        print(f"keybroker: failed: {', from '.join(exception_chain(error))}", file=sys.stderr)
        return EXIT_FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="keybroker", description="Imports external key material into a Dedicated KMS instance, as a gRPC service."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serving = commands.add_parser("serve", help="serve until SIGTERM")
    serving.add_argument("--config", type=Path, metavar="FILE", help="configuration, YAML")
    serving.add_argument(
        "--emulator",
        action="store_true",
        help=f"serve beside an embedded KMS on 127.0.0.1:{_EMULATOR_PORT}, without a configuration",
    )
    serving.set_defaults(run=_serve)
    add_check_config_command(commands)
    add_policy_command(commands)
    add_audit_parser(commands)
    add_receipt_command(commands)
    demo = commands.add_parser("demo", help="import a key of each size into an embedded KMS and show each step")
    demo.set_defaults(run=_demo)
    add_probe_parser(commands)
    version = commands.add_parser("version", help="print the version")
    version.set_defaults(run=_version)
    return parser


def _serve(options: argparse.Namespace) -> int:
    if options.emulator and options.config:
        raise ConfigurationError("--emulator brings its own configuration: leave --config out")
    if options.emulator:
        return _serve_with_emulator()
    settings = load_settings(options.config)
    configure_logs(settings.logs.level)
    _harden(settings)
    asyncio.run(serve(App(settings)))
    return 0


def _harden(settings: Settings) -> None:
    """Before the first secret is read."""
    MEMORY.exclude_from_dumps = settings.hardening.dump_protection
    MEMORY.prepare(settings.server.max_concurrent_calls)
    if settings.hardening.dump_protection:
        protect_from_dumps()


def _serve_with_emulator() -> int:
    _require_emulator()
    from keybroker.embedded import embedded_credentials, embedded_emulator, embedded_settings  # noqa: PLC0415

    with ExitStack() as stack:
        try:
            emulator = stack.enter_context(embedded_emulator(port=_EMULATOR_PORT))
        except OSError as error:
            reason = f"127.0.0.1:{_EMULATOR_PORT} can't be had for the embedded KMS: {error.strerror}"
            raise ConfigurationError(reason) from None
        settings = embedded_settings(
            emulator, grpc_address="127.0.0.1:50051", http_address="127.0.0.1:9464", log_level="INFO"
        )
        configure_logs(settings.logs.level)
        _harden(settings)
        app = App(settings, credentials=embedded_credentials)
        asyncio.run(serve(app, on_started=lambda _: print(_where(settings), flush=True)))
    return 0


def _require_emulator() -> None:
    if find_spec("kms_emulator") is None:
        raise ConfigurationError("the KMS emulator is not part of this installation, as in the production image")


def _where(settings: Settings) -> str:
    return (
        f"keybroker {__version__} serves gRPC on {settings.server.grpc_address} and HTTP on "
        f"{settings.server.http_address}, beside an embedded KMS. Try:\n"
        "  grpcurl -plaintext 127.0.0.1:50051 list\n"
        "  kbctl import --new-key --spec aes-256\n"
        "Ctrl-C ends it."
    )


def _demo(_options: argparse.Namespace) -> int:
    _require_emulator()
    from keybroker.demo import demo  # noqa: PLC0415  # brings the emulator

    return demo()


def _version(_options: argparse.Namespace) -> int:
    print(f"keybroker {__version__}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

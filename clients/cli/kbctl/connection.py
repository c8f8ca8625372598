"""Makes the client that the options describe, and finds out early whether the broker is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

import keybroker_client as kc
from kbctl.failures import UsageError
from kbctl.files import read_input
from keybroker_client.channel import is_local

if TYPE_CHECKING:
    import argparse


def connect(args: argparse.Namespace) -> kc.KeyBrokerClient:
    """The client for the address, with the TLS files given."""
    credentials = _credentials(args)
    if credentials is None and not args.allow_insecure and not is_local(args.address):
        raise UsageError(
            f"{args.address} is not on this host: give --tls or --tls-ca FILE "
            "(or --allow-insecure if the network is protected by other means)"
        )
    return kc.KeyBrokerClient(
        args.address,
        credentials=credentials,
        allow_insecure=args.allow_insecure,
        timeout_seconds=args.timeout,
        retries=args.retries,
    )


def require_broker(client: kc.KeyBrokerClient) -> None:
    """Raises UnavailableError if there is no connection: before a change, while nothing is unresolved yet."""
    try:
        client.check_health()
    except kc.UnavailableError:
        raise
    except kc.KeyBrokerError:
        return  # somebody answered; the call itself will tell more


def _credentials(args: argparse.Namespace) -> grpc.ChannelCredentials | None:
    if bool(args.tls_cert) != bool(args.tls_key):
        raise UsageError("--tls-cert and --tls-key go together")
    if not (args.tls or args.tls_ca or args.tls_cert):
        if args.token_file:
            raise UsageError("--token-file needs --tls or --tls-ca: a bearer token is never sent in the clear")
        return None
    ca, key, certificate = (path and read_input(path) for path in (args.tls_ca, args.tls_key, args.tls_cert))
    tls = grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=certificate)
    if not args.token_file:
        return tls
    token = grpc.access_token_call_credentials(_token(args.token_file))
    return grpc.composite_channel_credentials(tls, token)


def _token(path: str) -> str:
    token = read_input(path).decode("ascii", "replace").strip()
    if not token or not all("!" <= character <= "~" for character in token):
        raise UsageError(f"{path} does not hold a bearer token")
    return token

"""How the clients connect: channel options, and where plaintext may go.

gRPC itself repeats nothing here, and a service config from elsewhere, which could make it, is not accepted: what is
repeated is decided in keybroker_client.retries, where the outcome of earlier tries is kept. (gRPC's transparent
retries stay: they cover only calls that never left this process, or that the server says it never looked at.)
Source: gRFC A6 (client retries); gRPC's naming.md for targets; RFC 1122, 4291 for loopback.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    Option = tuple[str, str | int]

# The longest message is a NewKey with a description of 8192 characters, or an import token of 16384.
MAX_MESSAGE_BYTES = 256 * 1024

OPTIONS: tuple[Option, ...] = (
    ("grpc.service_config_disable_resolution", 1),  # none from DNS
    # How long after a failed connection gRPC tries the next; calls fail at once meanwhile. Its own limit is 2 minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # Ends a dead connection 10 seconds after an unanswered ping or packet. No pings between calls:
    # a server that was not told to expect them closes the connection.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.enable_http_proxy", 0),  # https_proxy is meant for the Internet, the broker is inside
)


def channel_options(extra: Sequence[Option]) -> list[Option]:
    """The clients' options with the caller's over them. The service config is not the caller's to set."""
    for name, _ in extra:
        if name.startswith("grpc.service_config"):
            raise ValueError(f"{name} can't be set: it decides what is retried, and the client does that")
    return list({**dict(OPTIONS), **dict(extra)}.items())


def require_private(target: str, *, allow_insecure: bool) -> None:
    """Refuses to connect without TLS to anything but this host, unless the caller insists."""
    if not allow_insecure and not is_local(target):
        raise ValueError(
            f"{target} is not on this host and would be reached without TLS: "
            "give credentials, or allow_insecure=True if the network is protected by other means"
        )


def is_local(target: str) -> bool:
    """Whether a gRPC target names this host only: a Unix socket, localhost or loopback addresses."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    endpoint = target.removeprefix("dns:").removeprefix("///")
    for scheme in ("ipv4:", "ipv6:"):
        endpoint = endpoint.removeprefix(scheme)
    return all(_is_loopback(_host(address)) for address in endpoint.split(","))


def _host(address: str) -> str:
    """The host of HOST, HOST:PORT, [IPV6]:PORT or IPV6."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address if address.count(":") > 1 else address.partition(":")[0]


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

"""How the clients connect: channel options, what is retried, and where plaintext may go.

Only reads are retried. The broker does not know a repeated request again, so a repeated change is a
second change: state-changing RPCs have no retry policy, and a service config from elsewhere is not
accepted. (gRPC's transparent retries stay: they cover only calls that never left this process, or
that the server says it never looked at.)
Source: gRFC A6 (client retries); gRPC's naming.md for targets; RFC 1122, 4291 for loopback.
"""

from __future__ import annotations

import ipaddress
import json
from typing import TYPE_CHECKING

from keymaterial.v1 import key_broker_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Sequence

    Option = tuple[str, str | int]

SERVICE = pb.DESCRIPTOR.services_by_name["KeyBrokerService"].full_name
RETRIED_METHODS = ("GetImportParameters", "DescribeKey")
RETRY_POLICY = {
    "maxAttempts": 3,
    "initialBackoff": "0.1s",
    "maxBackoff": "1s",
    "backoffMultiplier": 3,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {"name": [{"service": SERVICE, "method": name} for name in RETRIED_METHODS], "retryPolicy": RETRY_POLICY}
        ],
        # Stops retrying when more than about half of the calls fail.
        "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
    }
)

# The longest message is a NewKey with a description of 8192 characters, or an import token of 16384.
MAX_MESSAGE_BYTES = 256 * 1024

OPTIONS: tuple[Option, ...] = (
    ("grpc.service_config", SERVICE_CONFIG),
    ("grpc.service_config_disable_resolution", 1),  # none from DNS
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
            raise ValueError(f"{name} can't be set: it decides what is retried, and changes must not be")
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

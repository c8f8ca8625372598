"""Python client of keybroker: KeyBrokerClient, its asyncio twin, and the errors that they raise.

Knows the broker's API (keymaterial.v1) and gRPC, and nothing of the broker's own code. The messages
that callers build or compare are re-exported here; the others are in keymaterial.v1.
"""

from keybroker_client.aio import AsyncKeyBrokerClient
from keybroker_client.client import KeyBrokerClient
from keybroker_client.errors import (
    AlreadyBoundError,
    ImportInProgressError,
    InvalidArgumentError,
    KeyBrokerError,
    NotAllowedError,
    NotFoundError,
    PreconditionFailedError,
    QuotaExceededError,
    ThrottledError,
    UnavailableError,
    UnresolvedError,
)
from keymaterial.v1.types_pb2 import (
    ExternalKey,
    ImportEvidence,
    KeyCheckValue,
    KeyCheckValueMethod,
    KeyOrigin,
    KeySpec,
    KeyState,
    NewKey,
    ParametersSource,
    WrappingAlgorithm,
)

__all__ = [
    "AlreadyBoundError",
    "AsyncKeyBrokerClient",
    "ExternalKey",
    "ImportEvidence",
    "ImportInProgressError",
    "InvalidArgumentError",
    "KeyBrokerClient",
    "KeyBrokerError",
    "KeyCheckValue",
    "KeyCheckValueMethod",
    "KeyOrigin",
    "KeySpec",
    "KeyState",
    "NewKey",
    "NotAllowedError",
    "NotFoundError",
    "ParametersSource",
    "PreconditionFailedError",
    "QuotaExceededError",
    "ThrottledError",
    "UnavailableError",
    "UnresolvedError",
    "WrappingAlgorithm",
]

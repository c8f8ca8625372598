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
    NotImportedError,
    PreconditionFailedError,
    QuarantinedError,
    QuotaExceededError,
    RequestIdReusedError,
    RequestNotFoundError,
    ThrottledError,
    UnattributedError,
    UnavailableError,
    UnresolvedError,
)
from keymaterial.v1.types_pb2 import (
    EntropySource,
    ExternalKey,
    ImportEvidence,
    KeyCheckValue,
    KeyCheckValueMethod,
    KeyOrigin,
    KeySpec,
    KeyState,
    NewKey,
    ParametersSource,
    RequestState,
    WrappingAlgorithm,
)

__all__ = [
    "AlreadyBoundError",
    "AsyncKeyBrokerClient",
    "EntropySource",
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
    "NotImportedError",
    "ParametersSource",
    "PreconditionFailedError",
    "QuarantinedError",
    "QuotaExceededError",
    "RequestIdReusedError",
    "RequestNotFoundError",
    "RequestState",
    "ThrottledError",
    "UnattributedError",
    "UnavailableError",
    "UnresolvedError",
    "WrappingAlgorithm",
]

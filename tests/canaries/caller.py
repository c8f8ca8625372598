"""A caller that keeps all that it is told: messages, errors with their details, metadata."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from keymaterial.v1 import key_broker_service_pb2 as pb
from keymaterial.v1.key_broker_service_pb2_grpc import KeyBrokerServiceStub
from tests.canaries.brokers import CALLER, SERVICE, Estate

Metadata = Sequence[tuple[str, str]]

MEANT_FOR_THE_CALLER: Mapping[str, str] = {"GetImportParameters": "import_token"}
"""The fields of answers that have a secret on purpose, by RPC. No other has one."""


@dataclass(frozen=True)
class Told:
    """What came of one call."""

    method: str
    code: str
    response: Any
    details: str
    metadata: tuple[tuple[str, str | bytes], ...]

    def message(self, *, whole: bool = False) -> bytes:
        """The answer as bytes and as text; unless `whole`, without the field that is meant to have a secret."""
        if self.response is None:
            return b""
        shown = type(self.response)()
        shown.CopyFrom(self.response)
        if not whole and self.method in MEANT_FOR_THE_CALLER:
            shown.ClearField(MEANT_FOR_THE_CALLER[self.method])
        return shown.SerializeToString() + f"{shown!s}{shown!r}".encode()


class Caller:
    """Calls one broker over TLS with a bearer token. `told` has everything since it was made."""

    def __init__(self, estate: Estate, address: str, told: list[Told]) -> None:
        self._estate = estate
        self._channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(estate.authority.pem))
        self._stub = KeyBrokerServiceStub(self._channel)
        self.told = told

    def close(self) -> None:
        """Lets go of the connection."""
        self._channel.close()

    def bearer(self, **claims: Any) -> str:
        """A token that is good unless claims or headers say otherwise; planted."""
        return self._estate.planted.bearer(self._estate.issuer.token(CALLER, **claims))

    def call(self, method: str, *, seconds: float = 20.0, metadata: Metadata | None = None, **fields: Any) -> Told:
        """One RPC with these fields of its request."""
        return self.send(method, getattr(pb, f"{method}Request")(**fields), seconds=seconds, metadata=metadata)

    def send(self, method: str, request: Any, *, seconds: float = 20.0, metadata: Metadata | None = None) -> Told:
        """One RPC, with a good token unless there is other metadata; `request` can be bytes of any kind."""
        if metadata is None:
            metadata = [("authorization", f"Bearer {self.bearer()}")]
        rpc: Any = getattr(self._stub, method, None)
        if rpc is None or isinstance(request, bytes):
            rpc = self._channel.unary_unary(f"/{SERVICE.full_name}/{method}")
        try:
            response, call = rpc.with_call(request, timeout=seconds, metadata=metadata)
        except grpc.RpcError as error:
            response, call = None, error
        told = Told(method, call.code().name, response, call.details() or "", tuple(_metadata(call)))
        self.told.append(told)
        return told


def _metadata(call: Any) -> Iterator[tuple[str, str | bytes]]:
    yield from call.initial_metadata() or ()
    yield from call.trailing_metadata() or ()

"""What a call may bring before code of ours sees it. The largest message: test_server.py; fields: test_requests.py."""

import asyncio
from typing import Any

import grpc
import pytest
from grpc import aio

from keybroker.rpc.server import MAX_METADATA_BYTES, MAX_REQUEST_BYTES
from keymaterial.v1 import key_broker_service_pb2 as pb
from tests.unit.rpc.harness import DESCRIBE, Scripted, grpc_server, serving

REPEATS = 20  # what is refused at random is met
REFUSALS = 3  # grpc takes its time over each
OTHER_METADATA_BYTES = 1024  # at most: what grpc's own client sends along


def codes_of(request: bytes, *, repeats: int = 1, **options: Any) -> tuple[set[grpc.StatusCode], int]:
    """How `repeats` calls end, and how many of them reached the servicer."""
    reached = 0

    async def handle(request: Any, context: Any) -> Any:
        nonlocal reached
        reached += 1
        return pb.DescribeKeyResponse()

    async def code_of(channel: aio.Channel) -> grpc.StatusCode:
        try:
            await channel.unary_unary(DESCRIBE)(request, timeout=10.0, **options)
        except aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    async def scenario() -> set[grpc.StatusCode]:
        async with serving(grpc_server(Scripted(handle))) as channel:
            return {await code_of(channel) for _ in range(repeats)}

    return asyncio.run(scenario()), reached


@pytest.mark.parametrize("name", ["authorization", "x-anything"])
def test_metadata_up_to_the_limit_is_always_taken(name: str) -> None:
    metadata = ((name, "x" * (MAX_METADATA_BYTES - OTHER_METADATA_BYTES)),)
    assert codes_of(b"", repeats=REPEATS, metadata=metadata) == ({grpc.StatusCode.OK}, REPEATS)


@pytest.mark.parametrize(
    "metadata",
    [
        (("authorization", "x" * MAX_METADATA_BYTES),),
        tuple((f"x-{number}", "x") for number in range(MAX_METADATA_BYTES // 32)),
    ],
    ids=["one long entry", "many entries"],
)
def test_metadata_beyond_the_limit_never_reaches_the_broker(metadata: tuple[tuple[str, str], ...]) -> None:
    refused = ({grpc.StatusCode.RESOURCE_EXHAUSTED}, 0)
    assert codes_of(b"", repeats=REFUSALS, metadata=metadata) == refused


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_request_is_measured_unpacked(compression: grpc.Compression) -> None:
    small, large = (pb.DescribeKeyRequest(key_id="k" * size) for size in (100, 50 * MAX_REQUEST_BYTES))
    assert codes_of(small.SerializeToString(), compression=compression) == ({grpc.StatusCode.OK}, 1)
    refused = ({grpc.StatusCode.RESOURCE_EXHAUSTED}, 0)
    assert codes_of(large.SerializeToString(), compression=compression) == refused

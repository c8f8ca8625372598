"""Candidates for the server's threading model, each serving the same two RPCs and health in its own process.

`python -m tests.benchmarks.shell_servers CANDIDATE WORKERS` prints its port, answers each line on standard input
("count", or "release" for all that wait) with what it counted, and ends with its input. /shell.Shell/Block waits as for
the KMS; /shell.Shell/Echo answers at once.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc import aio
from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from keybroker.domain.errors import BrokerError
from keybroker.rpc.workers import Workers

SPARE_THREADS = 16
SPIN_SECONDS = 0.001
IMPORT_SECONDS = 0.003  # what an import costs of CPU
SHORT_SWITCH_SECONDS = 0.0005  # Python's own is 0.005


class Work:
    """What a handler does: blocks, as while the KMS works; counted."""

    def __init__(self, workers: int) -> None:
        self._lock = threading.Lock()
        self._period_seconds = 2 * workers * SPIN_SECONDS  # spinning in turn, all workers keep half of a core busy
        self._released = threading.Event()
        self.started = 0
        self.finished = 0

    def block(self, request: bytes) -> bytes:
        """`{"seconds", "mode"}`: waits that long or until `release`.

        Mode "spin" computes for 1 ms of each period meanwhile; "rush" for as long as an import does, afterwards.
        """
        order, released = json.loads(request), self._released
        with self._lock:
            self.started += 1
        end = time.monotonic() + order["seconds"]
        if order["mode"] == "spin":
            while time.monotonic() < end and not released.wait(self._period_seconds - SPIN_SECONDS):
                _spin(SPIN_SECONDS)
        else:
            released.wait(order["seconds"])
        if order["mode"] == "rush":
            _spin(IMPORT_SECONDS)
        with self._lock:
            self.finished += 1
        return b"done"

    def release(self) -> None:
        """Ends the waiting of all that wait now."""
        released, self._released = self._released, threading.Event()
        released.set()


def _spin(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def _handlers(block: Callable[..., Any], echo: Callable[..., Any]) -> grpc.GenericRpcHandler:
    methods = {"Block": block, "Echo": echo}
    return grpc.method_handlers_generic_handler(
        "shell.Shell", {name: grpc.unary_unary_rpc_method_handler(method) for name, method in methods.items()}
    )


class _HealthWithThreads(health.HealthServicer):
    """Check in threads of its own. HealthServicer's own argument for a pool serves Watch alone."""

    def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        return super().Check(request, context)

    Check.experimental_thread_pool = ThreadPoolExecutor(2)  # type: ignore[attr-defined]


def _sync(
    work: Work,
    *,
    threads: int,
    maximum: int | None = None,
    counted: int | None = None,
    health_threads: bool = False,
) -> tuple[int, Callable[[], None]]:
    """A grpc.server. `maximum` is grpc's own limit on calls; `counted` a limit that the handler keeps."""
    free = threading.BoundedSemaphore(counted) if counted else None

    def bounded(context: grpc.ServicerContext, run: Callable[[], bytes]) -> bytes:
        if free is None:
            return run()
        if not free.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy")
        try:
            return run()
        finally:
            free.release()

    server = grpc.server(ThreadPoolExecutor(threads), maximum_concurrent_rpcs=maximum)
    handlers = _handlers(
        lambda request, context: bounded(context, lambda: work.block(request)),
        lambda request, context: bounded(context, lambda: request),
    )
    server.add_generic_rpc_handlers((handlers,))
    servicer = _HealthWithThreads() if health_threads else health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return port, lambda: server.stop(0).wait()


def _asyncio(work: Work, limit: int) -> tuple[int, Callable[[], None]]:
    """A grpc.aio server around the broker's own Workers, on a loop in a thread of its own."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    workers = Workers(limit=limit)

    async def run(context: Any, call: Callable[[], bytes]) -> bytes:  # not generic at run time
        try:
            return await workers.run(call)
        except BrokerError:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy")
        raise AssertionError("abort raises")

    async def block(request: bytes, context: Any) -> bytes:
        return await run(context, lambda: work.block(request))

    async def echo(request: bytes, context: Any) -> bytes:
        return await run(context, lambda: request)

    async def start() -> tuple[aio.Server, int]:
        server = aio.server()
        server.add_generic_rpc_handlers((_handlers(block, echo),))
        health_pb2_grpc.add_HealthServicer_to_server(health_aio.HealthServicer(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    server, port = asyncio.run_coroutine_threadsafe(start(), loop).result()

    def stop() -> None:
        asyncio.run_coroutine_threadsafe(server.stop(0), loop).result()

    return port, stop


def _asyncio_switching(work: Work, limit: int) -> tuple[int, Callable[[], None]]:
    """The same, with threads taking turns at the interpreter ten times as often."""
    sys.setswitchinterval(SHORT_SWITCH_SECONDS)
    return _asyncio(work, limit)


CANDIDATES: dict[str, Callable[[Work, int], tuple[int, Callable[[], None]]]] = {
    "sync, one pool": lambda work, n: _sync(work, threads=n),
    "sync, one pool, grpc's limit": lambda work, n: _sync(work, threads=n, maximum=n),
    "sync, health pool, grpc's limit": lambda work, n: _sync(work, threads=n, maximum=n, health_threads=True),
    "sync, health pool, own count": lambda work, n: _sync(
        work, threads=n + SPARE_THREADS, counted=n, health_threads=True
    ),
    "asyncio shell": _asyncio,
    "asyncio shell, short switch": _asyncio_switching,
}


def main() -> None:
    """Serves until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("candidate", choices=CANDIDATES)
    parser.add_argument("workers", type=int)
    options = parser.parse_args()
    work = Work(options.workers)
    port, stop = CANDIDATES[options.candidate](work, options.workers)
    with contextlib.suppress(BrokenPipeError):
        _say({"port": port})
        for line in sys.stdin:
            if line.strip() == "release":
                work.release()
            _say({"started": work.started, "finished": work.finished})
    stop()


def _say(message: dict[str, int]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

"""Asks a server for its health at a steady pace, from a process of its own: `… shell_probe PORT SECONDS`.

Prints "ready", then the latency of each probe and its code. A probe waits for no other: a server that does not answer
is asked on.
"""

import argparse
import json
import sys
import threading
import time

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

PACE_SECONDS = 0.02
TIMEOUT_SECONDS = 1.0


def main() -> None:
    """Probes, then prints one JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("seconds", type=float)
    options = parser.parse_args()
    with grpc.insecure_channel(f"127.0.0.1:{options.port}") as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        grpc.channel_ready_future(channel).result(10)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        count = int(options.seconds / PACE_SECONDS)
        answers: list[tuple[float, str]] = []
        done = threading.Semaphore(0)
        for _ in range(count):
            _probe(check, answers, done)
            time.sleep(PACE_SECONDS)
        for _ in range(count):
            done.acquire()
    sys.stdout.write(json.dumps(answers) + "\n")


def _probe(check: "grpc.UnaryUnaryMultiCallable", answers: list[tuple[float, str]], done: threading.Semaphore) -> None:
    started = time.perf_counter()
    call = check.future(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_SECONDS)

    def answered(_: object) -> None:
        answers.append((1000 * (time.perf_counter() - started), call.code().name))
        done.release()

    call.add_done_callback(answered)


if __name__ == "__main__":
    main()

"""One contender in its own process: imports the CMKs that it is told of on standard input, and says how long it took.

`python -m tests.benchmarks.contender broker|sdk|floor ADDRESS`. A line in is {"key_ids": […], "concurrency": N}; a line
out is {"seconds", "cpu_seconds", "latencies_seconds": in the order of the key ids}. Clients and connections stay from
one line to the next. An import that ends wrongly ends the process.
"""

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.benchmarks.floor import (
    ACCESS_KEY_ID,
    ACCESS_KEY_SECRET,
    REGION,
    WRAPPING_ALGORITHM,
    FloorKms,
    WrongResultError,
    require,
    wrapped_material_b64,
)

Importer = Callable[[str], None]
CHECK_VALUE_LENGTH_BYTES = 3


def broker_importer(address: str) -> Importer:
    """By the broker, through the project's client."""
    from keybroker_client import KeyBrokerClient, KeyCheckValueMethod, KeyState  # noqa: PLC0415  # one contender each

    client = KeyBrokerClient(address, retries=0)

    def run(key_id: str) -> None:
        response = client.import_external_key(key_id=key_id)
        check_value = response.key_check_value
        if response.key.key_id != key_id or response.key.state != KeyState.KEY_STATE_ENABLED:
            raise WrongResultError(f"the broker answers {KeyState.Name(response.key.state)}")
        if (
            check_value.method != KeyCheckValueMethod.KEY_CHECK_VALUE_METHOD_CMAC_AES
            or len(check_value.value) != CHECK_VALUE_LENGTH_BYTES
        ):
            raise WrongResultError("the broker gives no check value")

    return run


def sdk_importer(endpoint: str) -> Importer:
    """By a script on the vendor's SDK, one client for all threads."""
    from alibabacloud_kms20160120 import models  # noqa: PLC0415
    from alibabacloud_kms20160120.client import Client  # noqa: PLC0415
    from alibabacloud_tea_openapi.models import Config  # noqa: PLC0415

    client = Client(
        Config(
            access_key_id=ACCESS_KEY_ID,
            access_key_secret=ACCESS_KEY_SECRET,
            region_id=REGION,
            endpoint=endpoint.removeprefix("http://"),
            protocol="http",
        )
    )

    def state(key_id: str) -> str | None:
        return client.describe_key(models.DescribeKeyRequest(key_id=key_id)).body.key_metadata.key_state

    def run(key_id: str) -> None:
        require(state(key_id), "PendingImport")
        pair = client.get_parameters_for_import(
            models.GetParametersForImportRequest(
                key_id=key_id, wrapping_key_spec="RSA_2048", wrapping_algorithm=WRAPPING_ALGORITHM
            )
        ).body
        client.import_key_material(
            models.ImportKeyMaterialRequest(
                key_id=key_id,
                encrypted_key_material=wrapped_material_b64(pair.public_key),
                import_token=pair.import_token,
                key_material_expire_unix=0,
            )
        )
        require(state(key_id), "Enabled")

    return run


def floor_importer(endpoint: str) -> Importer:
    """By the floor, one connection for each thread."""
    connections = threading.local()

    def run(key_id: str) -> None:
        if not hasattr(connections, "kms"):
            connections.kms = FloorKms(endpoint)
        connections.kms.import_key(key_id)

    return run


IMPORTERS: dict[str, Callable[[str], Importer]] = {
    "broker": broker_importer,
    "sdk": sdk_importer,
    "floor": floor_importer,
}


class Runner:
    """Runs one importer in as many threads as asked for; the threads stay."""

    def __init__(self, importer: Importer) -> None:
        self._importer = importer
        self._executors: dict[int, ThreadPoolExecutor] = {}

    def run(self, key_ids: list[str], concurrency: int) -> dict[str, object]:
        """Imports each CMK once."""
        if concurrency not in self._executors:
            self._executors[concurrency] = ThreadPoolExecutor(concurrency)
        started, cpu_before = time.perf_counter(), time.process_time()
        latencies = list(self._executors[concurrency].map(self._timed, key_ids))
        return {
            "seconds": time.perf_counter() - started,
            "cpu_seconds": time.process_time() - cpu_before,
            "latencies_seconds": latencies,
        }

    def _timed(self, key_id: str) -> float:
        started = time.perf_counter()
        self._importer(key_id)
        return time.perf_counter() - started


def main() -> None:
    """Serves standard input until it ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("contender", choices=IMPORTERS)
    parser.add_argument("address")
    options = parser.parse_args()
    runner = Runner(IMPORTERS[options.contender](options.address))
    for line in sys.stdin:
        order = json.loads(line)
        sys.stdout.write(json.dumps(runner.run(order["key_ids"], order["concurrency"])) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

"""Imports by the broker, in memory and on disk, by the vendor's SDK and by the floor, in turn, against one emulator.

Every import is a cold one of an existing CMK: the emulator must have seen 3 reads and 1 write for it, all answered 200,
and the CMK must be Enabled in the end, or the run fails.

Added latency of an import: what its caller waited, less the sum of the times that the emulator's request log gives for
the four requests about its CMK (from the request's body read to the reply flushed, in steps of 0.1 ms). So it holds
all that is not the KMS: RPC, signing, HTTP client, loopback, waiting for a core.
"""

import re
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks import processes
from tests.benchmarks.floor import FloorKms, WrongResultError, require

BROKERS = ("broker", "on disk")
CONTENDERS = (*BROKERS, "sdk", "floor")
COLD_IMPORT = Counter(DescribeKey=2, GetParametersForImport=1, ImportKeyMaterial=1)
_LOGGED = re.compile(r"^(\w+) '(key-[^']+)' (\d+) ([0-9.]+) ms$", re.MULTILINE)
_LOG_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Plan:
    """`imports` are of each contender in each round."""

    imports: int
    rounds: int
    concurrencies: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """One contender in one round. `cpu_ms` is of the process under test; `client_cpu_ms` of the broker's caller."""

    contender: str
    concurrency: int
    imports_per_second: float
    cpu_ms: float
    client_cpu_ms: float
    emulator_cpu_ms: float
    latencies_ms: list[float]
    added_ms: list[float]


class UpstreamLog:
    """The emulator's request log, read from where it was last read."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._offset = 0

    def skip(self) -> None:
        """Leaves out what was logged until now."""
        self._offset = self._file.stat().st_size

    def milliseconds(self, key_ids: list[str]) -> list[float]:
        """The upstream time of each import, if each CMK saw the calls of one cold import and nothing failed."""
        deadline = time.monotonic() + _LOG_SECONDS
        while True:
            calls, sums = self._read(set(key_ids))
            if sum(map(Counter.total, calls.values())) >= COLD_IMPORT.total() * len(key_ids):
                break
            if time.monotonic() > deadline:
                raise WrongResultError("the emulator logged too few requests, or its log has another form now")
            time.sleep(0.01)
        for key_id in key_ids:
            if calls[key_id] != COLD_IMPORT:
                raise WrongResultError(f"an import made other calls than a cold one: {dict(calls[key_id])}")
        return [sums[key_id] for key_id in key_ids]

    def _read(self, key_ids: set[str]) -> tuple[Mapping[str, Counter[str]], Mapping[str, float]]:
        calls: dict[str, Counter[str]] = defaultdict(Counter)
        sums: dict[str, float] = defaultdict(float)
        with self._file.open() as file:
            file.seek(self._offset)
            text = file.read()
        for operation, key_id, status, elapsed_ms in _LOGGED.findall(text):
            if key_id in key_ids and operation != "CreateKey":
                if status != "200":
                    raise WrongResultError(f"the emulator answered {operation} with {status}")
                calls[key_id][operation] += 1
                sums[key_id] += float(elapsed_ms)
        return calls, sums


class Bench:
    """The running processes."""

    def __init__(self, stack: ExitStack) -> None:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="keybroker-bench-")))
        log = folder / "emulator.log"
        endpoint, self._emulator_pid = stack.enter_context(processes.emulator(log))
        brokers = {
            name: stack.enter_context(processes.broker(endpoint, folder / name, on_disk=name == "on disk"))
            for name in BROKERS
        }
        self._broker_pids = {name: pid for name, (_, pid) in brokers.items()}
        self._kms = stack.enter_context(FloorKms(endpoint))
        self._log = UpstreamLog(log)
        self._contenders = {
            name: stack.enter_context(processes.contender("broker", brokers[name][0]))
            if name in brokers
            else stack.enter_context(processes.contender(name, endpoint))
            for name in CONTENDERS
        }

    def sample(self, contender: str, imports: int, concurrency: int) -> Sample:
        """Creates CMKs, has the contender import them, checks the outcome."""
        key_ids = [self._kms.create_key() for _ in range(imports)]
        self._log.skip()
        before = self._cpu(contender)
        told = self._contenders[contender].run(key_ids, concurrency)
        broker_cpu, emulator_cpu = (after - start for after, start in zip(self._cpu(contender), before, strict=True))
        upstream_ms = self._log.milliseconds(key_ids)
        for key_id in key_ids:
            require(self._kms.key_state(key_id), "Enabled")
        latencies_ms = [1000 * seconds for seconds in told["latencies_seconds"]]
        under_test = broker_cpu if contender in BROKERS else told["cpu_seconds"]
        return Sample(
            contender,
            concurrency,
            imports_per_second=imports / told["seconds"],
            cpu_ms=1000 * under_test / imports,
            client_cpu_ms=1000 * told["cpu_seconds"] / imports if contender in BROKERS else 0.0,
            emulator_cpu_ms=1000 * emulator_cpu / imports,
            latencies_ms=latencies_ms,
            added_ms=[waited - kms for waited, kms in zip(latencies_ms, upstream_ms, strict=True)],
        )

    def _cpu(self, contender: str) -> tuple[float, float]:
        pid = self._broker_pids.get(contender)
        return processes.cpu_seconds(pid) if pid else 0.0, processes.cpu_seconds(self._emulator_pid)


def measure(plan: Plan) -> list[list[Sample]]:
    """The samples of each round; the contenders take turns, and who is first changes with the round."""
    rounds: list[list[Sample]] = []
    with ExitStack() as stack:
        bench = Bench(stack)
        for concurrency in plan.concurrencies:
            for name in CONTENDERS:
                bench.sample(name, max(concurrency, 4), concurrency)  # opens connections; not counted
        for number in range(plan.rounds):
            first = number % len(CONTENDERS)
            order = CONTENDERS[first:] + CONTENDERS[:first]
            rounds.append(
                [bench.sample(name, plan.imports, concurrency) for concurrency in plan.concurrencies for name in order]
            )
    return rounds

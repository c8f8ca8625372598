"""400 imports of three callers at once against an emulator that keeps quotas: what is used, refused, and who gets it.

`python -m tests.benchmarks.quotas` takes the KMS's own figures (contract 5), both kinds of windows, alone and beside
another tenant, and after each the same load by a loop on the vendor's SDK with the retries that its documentation
advises. tests/integration/test_quotas.py runs `broker_crowd` with higher limits, in less time.
"""

import argparse
import itertools
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import grpc
import yaml

from keybroker.adapters.clock import SystemClock
from keybroker.adapters.kms.client import KmsClient
from keybroker.adapters.kms.credentials import Credentials
from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import BrokerError, Reason
from keymaterial.v1 import key_broker_service_pb2 as pb
from keymaterial.v1.key_broker_service_pb2_grpc import KeyBrokerServiceStub
from kms_emulator import AccessKey, Emulator, EmulatorSettings
from tests.benchmarks import floor
from tests.benchmarks.contender import sdk_importer
from tests.benchmarks.floor import WrongResultError
from tests.certificates import Issuer
from tests.integration.conftest import ACCESS_KEY_ID, ACCESS_KEY_SECRET, DKMS_INSTANCE_ID
from tests.integration.processes import BrokerProcess

Window = Literal["fixed", "sliding"]
GREED = {"greedy": 290, "middle": 65, "small": 45}
READS_AN_IMPORT = 3  # DescribeKey, GetParametersForImport, DescribeKey: reads bind, not writes
OTHER_SHARE = 0.3
PATIENCE_SECONDS = 120.0
SETTLED_SECONDS = 1.0  # how long the first burst is in a window
SDK_THREADS = 64
READS = frozenset({"DescribeKey", "GetParametersForImport"})


@dataclass(frozen=True)
class Case:
    """What the emulator keeps, and whether another tenant takes its part."""

    window: Window
    read_limit: int = 50
    write_limit: int = 30
    other_share: float = 0.0


@dataclass(frozen=True)
class Figures:
    """What a crowd got. Use is of the time in which requests waited, shares of that in which all callers' did."""

    seconds: float
    imported: int
    failed: Mapping[str, int]
    use_of_what_is_left: float
    throttled_share: float
    other_reads_per_second: float
    shares: Mapping[str, float]


@dataclass(frozen=True)
class Sample:
    """Reads that the emulator has answered so far: of the crowd by caller, and of others."""

    at: float
    served: Counter[str]
    others: int


class Crowd:
    """The emulator of a case, the CMKs of each caller, and what the emulator saw of them."""

    def __init__(self, case: Case, emulator: Emulator, greed: Mapping[str, int]) -> None:
        self.case = case
        self.emulator = emulator
        self.owner = {emulator.create_key(): caller for caller, count in greed.items() for _ in range(count)}
        self._samples: list[Sample] = []
        self._others_throttled = 0
        self._done = threading.Event()

    def key_ids(self) -> list[str]:
        """Interleaved by chance of their ids, so that no caller is first."""
        return sorted(self.owner)

    def measure(self, work: Callable[[], Counter[str]]) -> Figures:
        """Runs the work; figures from what the emulator served meanwhile."""
        self.emulator.reset_calls()
        sampler = threading.Thread(target=self._sample)
        sampler.start()
        started = time.monotonic()
        try:
            with self._other_tenant():
                outcomes = work()
        finally:
            self._done.set()
            sampler.join()
        return self._figures(time.monotonic() - started, outcomes)

    def _sample(self) -> None:
        while not self._done.wait(0.1):
            self._samples.append(self._reads_served())

    def _reads_served(self) -> Sample:
        at = time.monotonic()
        served: Counter[str] = Counter()
        others = 0
        for operation, key_id, status in self.emulator.call_log:
            if status == 200 and operation in READS:
                if key_id in self.owner:
                    served[self.owner[key_id]] += 1
                else:
                    others += 1
        return Sample(at, served, others)

    def _figures(self, seconds: float, outcomes: Counter[str]) -> Figures:
        reads = READS_AN_IMPORT * len(self.owner)
        wanted = Counter(self.owner.values())
        start, end = self._between(lambda served: served.total() <= 0.85 * reads)
        _, last = self._between(
            lambda served: all(served[who] <= READS_AN_IMPORT * (wanted[who] - 5) for who in wanted)
        )
        elapsed, others = end.at - start.at, end.others - start.others
        shared = {caller: last.served[caller] - start.served[caller] for caller in wanted}
        if not any(shared.values()):
            raise WrongResultError("the crowd was too small: nothing was served while all were backlogged")
        return Figures(
            seconds=seconds,
            imported=outcomes.pop("imported", 0),
            failed=dict(outcomes),
            use_of_what_is_left=(end.served.total() - start.served.total()) / (self.case.read_limit * elapsed - others),
            throttled_share=self._throttled / self.emulator.calls.total(),
            other_reads_per_second=others / elapsed,
            shares={caller: count / sum(shared.values()) for caller, count in shared.items()},
        )

    @property
    def _throttled(self) -> int:
        """Requests of the crowd that were refused for the quota."""
        return sum(status == 429 for _, _, status in self.emulator.call_log) - self._others_throttled

    def _between(self, is_backlogged: Callable[[Counter[str]], bool]) -> tuple[Sample, Sample]:
        """The first sample after the burst of the beginning, and the last for which this holds."""
        settled = [sample for sample in self._samples if sample.at >= self._samples[0].at + SETTLED_SECONDS]
        found = [sample for sample in settled if is_backlogged(sample.served)]
        if len(found) < 2:
            raise WrongResultError("the crowd was too small: it was served before anything could be measured")
        return found[0], found[-1]

    @contextmanager
    def _other_tenant(self) -> Iterator[None]:
        """Another client of the same account: DescribeKey at an even pace."""
        if not self.case.other_share:
            yield
            return
        key_id, ended = self.emulator.create_key(), threading.Event()
        pause = 1 / (self.case.other_share * self.case.read_limit)
        pool = ThreadPoolExecutor(4)
        with _client(self.emulator) as kms:

            def pace() -> None:
                due = time.monotonic()
                while not ended.wait(max(0.0, due - time.monotonic())):
                    pool.submit(self._describe, kms, key_id)
                    due += pause

            thread = threading.Thread(target=pace)
            thread.start()
            try:
                yield
            finally:
                ended.set()
                thread.join()
                pool.shutdown()

    def _describe(self, kms: KmsClient, key_id: str) -> None:
        try:
            kms.describe_key(key_id, deadline=Deadline.after(5.0, monotonic=time.monotonic))
        except BrokerError as error:
            self._others_throttled += error.reason is Reason.KMS_THROTTLED


@contextmanager
def _client(emulator: Emulator) -> Iterator[KmsClient]:
    kms = KmsClient(
        name="other",
        region=floor.REGION,
        endpoint=emulator.endpoint,
        dkms_instance_id=DKMS_INSTANCE_ID,
        credentials=lambda: Credentials(ACCESS_KEY_ID, ACCESS_KEY_SECRET),
        clock=SystemClock(),
        allow_emulator=True,
    )
    try:
        yield kms
    finally:
        kms.close()


@contextmanager
def crowd(case: Case, greed: Mapping[str, int]) -> Iterator[Crowd]:
    """A crowd before an emulator that keeps the quotas of the case."""
    settings = EmulatorSettings(
        region=floor.REGION,
        access_keys=(
            AccessKey(ACCESS_KEY_ID, ACCESS_KEY_SECRET),
            AccessKey(floor.ACCESS_KEY_ID, floor.ACCESS_KEY_SECRET),
        ),
        dkms_instance_ids=(DKMS_INSTANCE_ID,),
        rsa_key_pool=8,
        quota_mode=case.window,
        quota_limits={"read": case.read_limit, "write": case.write_limit},
    )
    with Emulator(settings) as emulator:
        yield Crowd(case, emulator, greed)


def broker_crowd(case: Case, folder: Path, greed: Mapping[str, int]) -> Figures:
    """Every import is one RPC, all at once, to a broker that knows the three callers by their tokens."""
    issuer = Issuer()
    principals = {caller: f"jwt:{issuer.url}#{caller}" for caller in greed}
    (folder / "jwks.json").write_bytes(issuer.jwks())
    rules = [{"name": caller, "callers": [who], "rpcs": "*", "keys": ["*"]} for caller, who in principals.items()]
    (folder / "policy.yaml").write_text(yaml.safe_dump({"rules": rules}))
    jwt = {"issuer": issuer.url, "audience": issuer.audience, "jwks_file": str(folder / "jwks.json")}
    sections: dict[str, dict[str, Any]] = {
        "server": {
            "identity": {"jwt": jwt},
            "max_concurrent_calls": 512,
            "max_deadline_seconds": PATIENCE_SECONDS,
            "shutdown_grace_seconds": PATIENCE_SECONDS + 5,
        },
        "policy": {"file": str(folder / "policy.yaml")},
        "pacing": {"read_per_second": case.read_limit, "write_per_second": case.write_limit},
    }
    with (
        crowd(case, greed) as waiting,
        BrokerProcess(folder, waiting.emulator, **sections) as broker,
        grpc.insecure_channel(broker.address) as channel,
    ):
        grpc.channel_ready_future(channel).result(10)
        tokens = {caller: issuer.token(caller) for caller in greed}
        return waiting.measure(lambda: _import_all(channel, waiting, tokens))


def _import_all(channel: grpc.Channel, waiting: Crowd, tokens: Mapping[str, str]) -> Counter[str]:
    stub = KeyBrokerServiceStub(channel)
    calls = [
        stub.ImportExternalKey.future(
            pb.ImportExternalKeyRequest(request_id=str(uuid4()), key_id=key_id),
            timeout=PATIENCE_SECONDS,
            metadata=(("authorization", f"Bearer {tokens[waiting.owner[key_id]]}"),),
        )
        for key_id in waiting.key_ids()
    ]
    return Counter("imported" if call.code() is grpc.StatusCode.OK else str(call.details()) for call in calls)


def sdk_crowd(case: Case, greed: Mapping[str, int], *, first_wait_seconds: float = 1.0) -> Figures:
    """The same load by threads on one client of the vendor's SDK, each import repeated as its documentation advises.

    At most 5 tries, the waits doubling from 1 s to 10 s (contract 3.4); an import that is not through then has failed.
    """
    with crowd(case, greed) as waiting:
        importer = sdk_importer(waiting.emulator.endpoint)

        def run(key_id: str) -> str:
            for attempt in range(5):
                try:
                    importer(key_id)
                except WrongResultError:
                    return "imported"  # by a try before, whose last DescribeKey was refused
                except Exception as error:  # the SDK's own exceptions
                    if "hrottling" not in str(error):
                        raise
                    time.sleep(min(10.0, first_wait_seconds * 2.0**attempt))
                else:
                    return "imported"
            return "throttled"

        def work() -> Counter[str]:
            with ThreadPoolExecutor(SDK_THREADS) as pool:
                return Counter(pool.map(run, waiting.key_ids()))

        return waiting.measure(work)


def line(name: str, case: Case, figures: Figures) -> str:
    """One row for people."""
    shares = " ".join(f"{caller} {100 * share:.0f}%" for caller, share in sorted(figures.shares.items()))
    other = f", {figures.other_reads_per_second:.1f}/s to the other tenant" if case.other_share else ""
    return (
        f"{name:<13} {case.window:<8} {'30 % taken' if case.other_share else 'alone':<11} "
        f"{figures.imported:4} imported, {sum(figures.failed.values()):3} failed in {figures.seconds:5.1f} s | "
        f"{100 * figures.use_of_what_is_left:5.1f} % of what is left used | "
        f"{100 * figures.throttled_share:4.1f} % throttled | {shares}{other}"
    )


def main() -> int:
    """Measures with the KMS's figures and prints."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.quotas", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="four times the quotas")
    factor = 4 if parser.parse_args().quick else 1
    windows: tuple[Window, ...] = ("fixed", "sliding")
    for window, share in itertools.product(windows, (0.0, OTHER_SHARE)):
        case = Case(window, 50 * factor, 30 * factor, share)
        with tempfile.TemporaryDirectory(prefix="keybroker-bench-") as folder:
            sys.stdout.write(line("broker", case, broker_crowd(case, Path(folder), GREED)) + "\n")
        sys.stdout.write(line("vendor's SDK", case, sdk_crowd(case, GREED)) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())

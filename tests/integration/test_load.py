"""2,000 imports at once on one process, the KMS 100 ms away: health answers, deadlines hold, memory stays, all ends.

Health and /livez are asked from processes of their own: grpc's C core, and curl.
"""

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from keymaterial.v1 import key_broker_service_pb2 as pb
from keymaterial.v1.key_broker_service_pb2_grpc import KeyBrokerServiceStub
from kms_emulator import Emulator, Fault
from tests.integration.processes import BrokerProcess

CALLS = 2000
CALL_SECONDS = 12.0
OVERRUN_SECONDS = "0.25"
HEALTH_SECONDS = 0.1
MEMORY_MIB = 400
PROBES_A_SECOND = 20
CURL_OPTIONS = f"-s --fail -o /dev/null -w %{{time_total}}\\n --max-time 5 --rate {PROBES_A_SECOND}/s".split()


@dataclass
class Probes:
    """Latencies of both probes, in seconds."""

    grpc: list[float] = field(default_factory=list)
    http: list[float] = field(default_factory=list)


def metrics(broker: BrokerProcess) -> dict[str, float]:
    """Samples without labels, and those of histograms by their bound."""
    with urllib.request.urlopen(f"{broker.http_url}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    return {
        sample.name + sample.labels.get("le", ""): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not set(sample.labels) - {"le"}
    }


def peak_memory_mib(broker: BrokerProcess) -> float:
    status = Path(f"/proc/{broker.process.pid}/status").read_text()
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert match
    return int(match[1]) / 1024


@contextmanager
def probing(broker: BrokerProcess, seconds: float) -> Iterator[Probes]:
    """Probes both for so long, at a steady pace; the answers are there afterwards."""
    port = broker.address.rpartition(":")[2]
    over_grpc = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.shell_probe", port, str(seconds)], stdout=subprocess.PIPE, text=True
    )
    count = int(seconds * PROBES_A_SECOND)
    over_http = subprocess.Popen(
        ["curl", *CURL_OPTIONS, f"{broker.http_url}/livez?[1-{count}]"],
        stdout=subprocess.PIPE,
        text=True,
    )
    probes = Probes()
    try:
        assert over_grpc.stdout
        assert over_grpc.stdout.readline() == "ready\n"
        yield probes
        answers = json.loads(over_grpc.communicate(timeout=seconds + 30)[0])
        assert {code for _, code in answers} == {"OK"}
        probes.grpc = [latency / 1000 for latency, _ in answers]
        probes.http = [float(line) for line in over_http.communicate(timeout=seconds + 30)[0].splitlines()]
        assert over_http.returncode == 0
    finally:
        for process in (over_grpc, over_http):
            process.kill()
            process.wait()
            assert process.stdout
            process.stdout.close()


def burst(broker: BrokerProcess, key_ids: list[str]) -> Counter[str]:
    """All calls are sent before the first is waited for. How they ended."""
    with grpc.insecure_channel(broker.address) as channel:
        grpc.channel_ready_future(channel).result(10)
        stub = KeyBrokerServiceStub(channel)
        calls = [
            stub.ImportExternalKey.future(
                pb.ImportExternalKeyRequest(request_id=str(uuid4()), key_id=key_id), timeout=CALL_SECONDS
            )
            for key_id in key_ids
        ]
        return Counter(call.code().name for call in calls)


def p99(seconds: list[float]) -> float:
    return sorted(seconds)[int(len(seconds) * 0.99)]


@pytest.mark.alone
def test_burst_of_2000_imports_leaves_health_deadlines_and_memory_alone(
    make_emulator: Callable[..., Emulator], tmp_path: Path
) -> None:
    emulator = make_emulator(rsa_key_pool=8)
    emulator.faults.add(Fault(action="delay", delay_seconds=0.1, count=0))
    key_ids = [emulator.create_key() for _ in range(CALLS)]
    sections: dict[str, Any] = {"server": {"max_concurrent_calls": CALLS}, "pacing": {"enabled": True}}
    with BrokerProcess(tmp_path, emulator, **sections) as broker:
        with probing(broker, CALL_SECONDS + 1) as probes:
            outcomes = burst(broker, key_ids)
        wait_until_idle(broker, emulator)
        after = metrics(broker)
        memory = peak_memory_mib(broker)
    assert set(outcomes) <= {"OK", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "ABORTED"}, outcomes
    assert outcomes["OK"] >= 0.9 * imports_in(CALL_SECONDS)
    assert outcomes["OK"] + outcomes["RESOURCE_EXHAUSTED"] >= 0.9 * CALLS  # told in time, most of them at once
    assert min(len(probes.grpc), len(probes.http)) > PROBES_A_SECOND * CALL_SECONDS
    assert p99(probes.grpc) < HEALTH_SECONDS
    assert p99(probes.http) < HEALTH_SECONDS
    assert after["keybroker_deadline_overrun_seconds_count"] == CALLS
    assert after[f"keybroker_deadline_overrun_seconds_bucket{OVERRUN_SECONDS}"] == CALLS
    assert memory < MEMORY_MIB


def imports_in(seconds: float) -> float:
    """What the quota for reads lets through: three of the 50 a second for each import."""
    return 50 / 3 * seconds


def wait_until_idle(broker: BrokerProcess, emulator: Emulator) -> None:
    """Nothing is left in flight, in the broker or on its way to the KMS."""
    ends_at = time.monotonic() + 30
    while metrics(broker)["keybroker_imports_in_flight"] or emulator.in_flight:
        assert time.monotonic() < ends_at
        time.sleep(0.05)

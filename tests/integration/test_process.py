"""The broker as a process: drain on SIGTERM, health while all workers are busy, overload."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from keybroker import __main__ as entry
from keybroker_client import KeyBrokerClient, KeyBrokerError
from keymaterial.v1 import types_pb2
from kms_emulator import Emulator, Fault
from tests.integration.conftest import ACCESS_KEY_ID, ACCESS_KEY_SECRET, broker_settings
from tests.integration.processes import BrokerProcess

WORKERS = 64
NEW_KEY = types_pb2.NewKey(key_spec=types_pb2.KEY_SPEC_AES_256)


@pytest.fixture
def emulator(make_emulator: Callable[..., Emulator]) -> Emulator:
    """Key pairs are there: to generate them for all at once takes as long as the calls may."""
    return make_emulator(rsa_key_pool=8)


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    ends_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.02)


def outcome_of(client: KeyBrokerClient, key_id: str) -> str:
    try:
        answer = client.import_external_key(key_id=key_id, timeout_seconds=20)
    except KeyBrokerError as error:
        return error.reason
    assert answer.evidence == types_pb2.IMPORT_EVIDENCE_ACCEPTED
    return "ENABLED"


def test_sigterm_during_50_imports_cuts_none_and_exits_0(emulator: Emulator, tmp_path: Path) -> None:
    key_ids = [emulator.create_key() for _ in range(50)]
    emulator.faults.add(Fault(operation="ImportKeyMaterial", when="before", action="hold", count=50))
    with (
        BrokerProcess(tmp_path, emulator, instance={"read_timeout_seconds": 19}) as broker,
        KeyBrokerClient(broker.address, retries=0) as client,
        ThreadPoolExecutor(50) as pool,
    ):
        outcomes = [pool.submit(outcome_of, client, key_id) for key_id in key_ids]
        emulator.wait_until_held(50, timeout_seconds=20)
        broker.process.send_signal(signal.SIGTERM)
        wait_until(lambda: any(entry["event"] == "draining" for entry in broker.log()))
        emulator.release_held()
        assert broker.process.wait(timeout=25) == 0
        assert {future.result() for future in outcomes} == {"ENABLED"}
    assert {emulator.key_state(key_id) for key_id in key_ids} == {"Enabled"}


def test_sigterm_while_the_kms_hangs_reports_every_import_within_the_grace(emulator: Emulator, tmp_path: Path) -> None:
    key_ids = [emulator.create_key() for _ in range(10)]
    emulator.faults.add(Fault(operation="ImportKeyMaterial", when="after", action="delay", delay_seconds=30, count=0))
    limits = {"default_deadline_seconds": 5, "max_deadline_seconds": 5, "shutdown_grace_seconds": 15}
    with (
        BrokerProcess(tmp_path, emulator, server=limits) as broker,
        KeyBrokerClient(broker.address, retries=0) as client,
        ThreadPoolExecutor(10) as pool,
    ):
        outcomes = [pool.submit(outcome_of, client, key_id) for key_id in key_ids]
        wait_until(lambda: emulator.calls["ImportKeyMaterial"] >= 10)
        broker.process.send_signal(signal.SIGTERM)
        assert broker.process.wait(timeout=15) == 0
        assert {future.result() for future in outcomes} == {"IMPORT_UNRESOLVED"}


def test_sigterm_takes_no_new_calls_and_says_so_in_readiness(emulator: Emulator, tmp_path: Path) -> None:
    key_id = emulator.create_key()
    emulator.faults.add(Fault(operation="DescribeKey", when="before", action="hold"))
    with (
        BrokerProcess(tmp_path, emulator, instance={"read_timeout_seconds": 19}) as broker,
        KeyBrokerClient(broker.address, retries=0) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        assert b'"ready": true' in urllib.request.urlopen(f"{broker.http_url}/readyz", timeout=5).read()
        running = pool.submit(outcome_of, client, key_id)
        emulator.wait_until_held()
        broker.process.send_signal(signal.SIGTERM)
        wait_until(lambda: any(entry["event"] == "draining" for entry in broker.log()))
        with pytest.raises(urllib.error.HTTPError) as not_ready:
            urllib.request.urlopen(f"{broker.http_url}/readyz", timeout=5)
        assert not_ready.value.code == 503
        not_ready.value.close()
        assert urllib.request.urlopen(f"{broker.http_url}/livez", timeout=5).read() == b"ok\n"
        wait_until(lambda: _is_refused(broker.address, key_id), seconds=10)
        assert not running.done()
        emulator.release_held()
        assert running.result() == "ENABLED"
        assert broker.process.wait(timeout=10) == 0


def _is_refused(address: str, key_id: str) -> bool:
    with KeyBrokerClient(address, retries=0) as late:
        try:
            late.describe_key(key_id=key_id, timeout_seconds=5)
        except KeyBrokerError:
            return True
    return False


@pytest.mark.alone
def test_health_answers_within_100_ms_while_every_worker_is_busy(emulator: Emulator, tmp_path: Path) -> None:
    """p99 over 10 seconds, over gRPC and HTTP; meanwhile a call too many is refused at once."""
    key_id = emulator.create_key()
    emulator.faults.add(Fault(operation="DescribeKey", when="before", action="hold", count=0))
    sections = {"server": {"max_concurrent_calls": WORKERS}, "instance": {"read_timeout_seconds": 19}}
    with (
        BrokerProcess(tmp_path, emulator, **sections) as broker,
        KeyBrokerClient(broker.address, retries=0) as client,
        ThreadPoolExecutor(WORKERS) as pool,
        grpc.insecure_channel(broker.address) as channel,
    ):
        calls = [pool.submit(client.describe_key, key_id=key_id, timeout_seconds=19) for _ in range(WORKERS)]
        emulator.wait_until_held(WORKERS)
        health = health_pb2_grpc.HealthStub(channel)
        health.Check(health_pb2.HealthCheckRequest())  # connects
        over_grpc, over_http = [], []
        ends_at = time.monotonic() + 9
        while time.monotonic() < ends_at:
            over_grpc.append(_seconds(lambda: health.Check(health_pb2.HealthCheckRequest(), timeout=5)))
            over_http.append(_seconds(lambda: urllib.request.urlopen(f"{broker.http_url}/livez", timeout=5).close()))
            time.sleep(0.02)
        assert not any(call.done() for call in calls)
        refused = _seconds(lambda: _expect_overload(client, key_id))
        emulator.release_held()
        assert len(over_grpc) > 200
        assert _p99(over_grpc) < 0.1
        assert _p99(over_http) < 0.1
        assert refused < 0.5
        assert all(call.result() for call in calls)


def _seconds(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def _p99(seconds: list[float]) -> float:
    return sorted(seconds)[int(len(seconds) * 0.99)]


def _expect_overload(client: KeyBrokerClient, key_id: str) -> None:
    with pytest.raises(KeyBrokerError) as caught:
        client.import_external_key(key_id=key_id)
    assert caught.value.reason == "BROKER_OVERLOADED"
    assert caught.value.retry_after_seconds == 1.0


def test_caller_that_goes_away_does_not_stop_its_import(emulator: Emulator, tmp_path: Path) -> None:
    key_id = emulator.create_key()
    emulator.faults.add(Fault(operation="ImportKeyMaterial", when="before", action="delay", delay_seconds=1))
    with BrokerProcess(tmp_path, emulator) as broker, KeyBrokerClient(broker.address, retries=0) as client:
        impatient = threading.Thread(target=lambda: outcome_of(client, key_id), daemon=True)
        impatient.start()
        wait_until(lambda: emulator.calls["ImportKeyMaterial"] == 1)
        client.close()
        impatient.join()
        wait_until(lambda: emulator.key_state(key_id) == "Enabled")
        wait_until(
            lambda: b'outcome="imported"' in urllib.request.urlopen(f"{broker.http_url}/metrics", timeout=5).read()
        )


def test_end_of_a_call_whose_caller_went_away_is_logged(emulator: Emulator, tmp_path: Path) -> None:
    """Nobody else says that a CMK was created, or that key material may be bound."""
    emulator.faults.add(Fault(operation="ImportKeyMaterial", when="before", action="delay", delay_seconds=1))
    emulator.faults.add(Fault(operation="ImportKeyMaterial", when="after", action="drop", count=0))
    with BrokerProcess(tmp_path, emulator) as broker:
        client = KeyBrokerClient(broker.address, retries=0)
        impatient = threading.Thread(target=lambda: _abandon(client), daemon=True)
        impatient.start()
        wait_until(lambda: emulator.calls["ImportKeyMaterial"] == 1)
        client.close()
        impatient.join()
        wait_until(lambda: any(entry["event"] == "ended without its caller" for entry in broker.log()))
        (entry,) = [entry for entry in broker.log() if entry["event"] == "ended without its caller"]
    assert entry["reason"] == "IMPORT_UNRESOLVED"
    assert emulator.key_state(entry["created_key_id"]) == "Enabled"


def _abandon(client: KeyBrokerClient) -> None:
    with pytest.raises(KeyBrokerError):
        client.import_external_key(new_key=NEW_KEY)


def test_idle_watch_of_health_does_not_hold_up_the_drain(emulator: Emulator, tmp_path: Path) -> None:
    with BrokerProcess(tmp_path, emulator) as broker, grpc.insecure_channel(broker.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        next(watch)
        broker.process.send_signal(signal.SIGTERM)
        assert broker.process.wait(timeout=15) == 0  # of a grace of 25


def test_config_error_names_the_key_and_exits_2(emulator: Emulator, tmp_path: Path) -> None:
    import subprocess  # noqa: PLC0415
    import sys  # noqa: PLC0415

    config = tmp_path / "keybroker.yaml"
    config.write_text("server: {grpc_adress: '127.0.0.1:0'}\n")
    for command in ("serve", "check-config"):
        ended = subprocess.run(
            [sys.executable, "-m", "keybroker", command, "--config", str(config)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 2
        assert "server.grpc_adress: unknown key" in ended.stderr


def test_serving_process_looks_seldom_at_all_objects_and_never_at_those_of_its_start(emulator: Emulator) -> None:
    program = """
import asyncio, gc, json, os, signal, sys
from keybroker.app import App, serve
from keybroker.settings import parse_settings

def told(_):
    print(json.dumps({"after": gc.get_threshold(), "frozen": gc.get_freeze_count()}))
    os.kill(os.getpid(), signal.SIGTERM)

asyncio.run(serve(App(parse_settings(json.loads(sys.argv[1]))), on_started=told))
"""
    settings = broker_settings(emulator).model_dump_json()
    environment = os.environ | {
        "ALIBABA_CLOUD_ACCESS_KEY_ID": ACCESS_KEY_ID,
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": ACCESS_KEY_SECRET,
    }
    ended = subprocess.run(
        [sys.executable, "-c", program, settings],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    told = next(json.loads(line) for line in ended.stdout.splitlines() if line.startswith('{"after"'))
    young, middle, old = told["after"]
    assert young * middle * old >= 1_000_000
    assert told["frozen"] > 10_000


def test_embedded_kms_whose_port_is_taken_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(entry, "_EMULATOR_PORT", port)
        assert entry.main(["serve", "--emulator"]) == 2
    assert f"127.0.0.1:{port} can't be had for the embedded KMS: Address already in use" in capsys.readouterr().err

"""The audit trail of a running broker: on a disk that gets full, on standard output, around the calls of every kind."""

import base64
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
import requests
from grpc_health.v1 import health_pb2, health_pb2_grpc

from keybroker_client import KeyBrokerClient, KeyBrokerError
from keymaterial.v1 import types_pb2
from kms_emulator import Emulator, Fault
from tests.integration.audit_checks import events
from tests.integration.conftest import RunningBroker
from tests.integration.crashing import wait_until
from tests.integration.processes import BrokerProcess
from tests.small_disk import SmallDisk
from tests.unit.audit.support import event, make_log

NEW_KEY = types_pb2.NewKey(key_spec=types_pb2.KEY_SPEC_AES_256)
PAGE = 4096
ANSWERED_SECONDS = 10.0  # a disk that is full stays so: who waits for it does not answer at all
CHANGES = {"CreateKey", "CreateAlias", "GetParametersForImport", "ImportKeyMaterial", "ScheduleKeyDeletion"}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "audit"
    folder.mkdir()
    with SmallDisk(folder) as disk:
        yield disk


def refused(call: Callable[..., object], *arguments: object, **options: object) -> KeyBrokerError:
    with pytest.raises(KeyBrokerError) as caught:
        call(*arguments, **options)
    return caught.value


def fill_up(disk: SmallDisk, client: KeyBrokerClient, file: Path, *, least: int = 0, most: int = 250) -> None:
    """Leaves room for no line, nor in the last page of the file: of that between `least` and `most` bytes.

    The last page is used up by events whose length the alias of a new CMK decides, which stands in three of them.
    """
    size, padding, step = file.stat().st_size, 1, 0
    while not least <= -size % PAGE <= most:
        if step:
            padding = min(80, max(1, (-size % PAGE - (least + most) // 2 - step) // 3))
        alias = f"alias/{uuid4().hex[:8]}{'x' * padding}"
        client.create_external_key(new_key=types_pb2.NewKey(key_spec=types_pb2.KEY_SPEC_AES_256, alias=alias))
        step = file.stat().st_size - size - 3 * padding
        size = file.stat().st_size
    disk.fill()


def check_healthy(broker: RunningBroker) -> dict[str, Any]:
    """What readiness says, after everything that tells of health said yes."""
    with grpc.insecure_channel(broker.address) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=ANSWERED_SECONDS)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert requests.get(f"{broker.http_url}/livez", timeout=ANSWERED_SECONDS).status_code == 200
    ready = requests.get(f"{broker.http_url}/readyz", timeout=ANSWERED_SECONDS)
    assert ready.status_code == 200
    told: dict[str, Any] = ready.json()
    return told


def verify(*files: Path | str, stdin: bytes = b"", head: str = "") -> subprocess.CompletedProcess[bytes]:
    """The command, as an auditor runs it."""
    expected = ["--expect-head", head] if head else []
    command = [sys.executable, "-m", "keybroker", "audit", "verify", *map(str, files), *expected]
    return subprocess.run(command, input=stdin, capture_output=True, check=False)


def test_full_disk_lets_no_change_begin_and_says_why_until_there_is_space(
    make_broker: Callable[..., RunningBroker], emulator: Emulator, disk: SmallDisk
) -> None:
    file = disk.folder / "audit.jsonl"
    broker = make_broker(audit={"file": str(file)})
    key_id = emulator.create_key()
    broker.client.import_external_key(key_id=emulator.create_key())
    assert check_healthy(broker)["audit"] == "on"
    fill_up(disk, broker.client, file)
    told = len(events([file]))
    emulator.reset_calls()
    request_id = str(uuid4())
    for error in (
        refused(broker.client.import_external_key, key_id=key_id, request_id=request_id),
        refused(broker.client.import_external_key, new_key=NEW_KEY),
        refused(broker.client.create_external_key, new_key=NEW_KEY),
        refused(broker.client.schedule_key_deletion, key_id=key_id, pending_window_days=7),
    ):
        assert (error.reason, error.code) == ("AUDIT_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE)
        assert "audit log" in error.message
    assert not {call.operation for call in emulator.call_log} & CHANGES
    assert check_healthy(broker)["audit"] == "failing"
    metrics = requests.get(f"{broker.http_url}/metrics", timeout=ANSWERED_SECONDS).text
    assert 'keybroker_import_failures_total{reason="AUDIT_UNAVAILABLE"} 2.0' in metrics
    disk.clear()
    broker.client.import_external_key(key_id=key_id, request_id=request_id)
    assert check_healthy(broker)["audit"] == "on"
    assert verify(file).returncode == 0, verify(file).stdout
    assert [line["event"] for line in events([file])[told:]] == ["before", "after"]


def test_disk_that_gets_full_after_the_send_keeps_no_outcome_from_its_caller_and_loses_no_event(
    make_broker: Callable[..., RunningBroker], emulator: Emulator, disk: SmallDisk
) -> None:
    file = disk.folder / "audit.jsonl"
    broker = make_broker(audit={"file": str(file)})
    broker.client.import_external_key(key_id=emulator.create_key())
    lengths = [len(line) for line in file.read_bytes().splitlines(keepends=True)]
    key_id = emulator.create_key()
    emulator.faults.add(Fault(operation="ImportKeyMaterial", when="after", action="hold"))
    with KeyBrokerClient(broker.address, retries=0) as client:
        fill_up(
            disk, broker.client, file, least=lengths[1], most=lengths[1] + 300
        )  # the event before fits, the one after does not
        told = len(events([file]))
        call = client_call(client, key_id)
        emulator.wait_until_held()
        emulator.release_held()
        assert call().key.key_id == key_id
    assert [line["event"] for line in events([file])[told:]] == ["before"]
    assert refused(broker.client.import_external_key, new_key=NEW_KEY).reason == "AUDIT_UNAVAILABLE"
    disk.clear()
    wait_until(lambda: len(events([file])) == told + 2)  # no call comes: the broker catches up by itself
    assert events([file])[-1]["outcome"] == "IMPORTED"
    assert verify(file).returncode == 0, verify(file).stdout


def test_replays_and_reads_are_answered_while_the_disk_is_full(
    make_broker: Callable[..., RunningBroker], emulator: Emulator, disk: SmallDisk
) -> None:
    file = disk.folder / "audit.jsonl"
    broker = make_broker(audit={"file": str(file)})
    request_id, key_id = str(uuid4()), emulator.create_key()
    broker.client.import_external_key(key_id=key_id, request_id=request_id)
    fill_up(disk, broker.client, file)
    assert refused(broker.client.import_external_key, new_key=NEW_KEY).reason == "AUDIT_UNAVAILABLE"
    assert broker.client.import_external_key(key_id=key_id, request_id=request_id).replayed
    assert broker.client.get_import(request_id=request_id).state == types_pb2.REQUEST_STATE_IMPORTED
    assert broker.client.describe_key(key_id=key_id).key.key_id == key_id


def test_broker_starts_on_a_full_disk_and_begins_its_chain_once_there_is_space(
    make_broker: Callable[..., RunningBroker], emulator: Emulator, disk: SmallDisk
) -> None:
    file = disk.folder / "audit.jsonl"
    disk.fill()
    broker = make_broker(audit={"file": str(file)})
    assert refused(broker.client.import_external_key, new_key=NEW_KEY).reason == "AUDIT_UNAVAILABLE"
    check_healthy(broker)
    disk.clear()
    broker.client.import_external_key(key_id=emulator.create_key())
    assert [line["event"] for line in events([file])] == ["started", "before", "after"]


def test_standard_output_has_the_same_chain_as_the_file_and_each_can_be_verified(
    tmp_path: Path, emulator: Emulator
) -> None:
    file, output = tmp_path / "audit.jsonl", tmp_path / "stdout"
    with (
        output.open("wb") as stdout,
        BrokerProcess(tmp_path, emulator, stdout=stdout, audit={"file": str(file), "stdout": True}) as process,
    ):
        with KeyBrokerClient(process.address, retries=0) as client:
            client.import_external_key(key_id=emulator.create_key())
        process.process.terminate()
        assert process.process.wait(20) == 0
    assert output.read_bytes() == file.read_bytes()
    heads = [entry["head"] for entry in process.log() if entry["event"] == "audit_head"]
    assert verify("-", stdin=output.read_bytes(), head=heads[-1]).returncode == 0
    cut = b"".join(file.read_bytes().splitlines(keepends=True)[:-1])
    assert verify("-", stdin=cut).returncode == 0
    assert verify("-", stdin=cut, head=heads[-1]).returncode == 1


def test_chain_on_standard_output_alone_is_linked_to_that_of_the_last_start(tmp_path: Path, emulator: Emulator) -> None:
    ledger = {"file": str(tmp_path / "ledger.db"), "key_file": str(ledger_key(tmp_path))}
    output = tmp_path / "stdout"
    for _ in range(2):
        with (
            output.open("ab") as stdout,
            BrokerProcess(tmp_path, emulator, stdout=stdout, ledger=ledger, audit={"stdout": True}) as process,
        ):
            with KeyBrokerClient(process.address, retries=0) as client:
                client.import_external_key(key_id=emulator.create_key())
            process.process.terminate()
            assert process.process.wait(20) == 0
    assert [line["event"] for line in events([output])] == ["started", "before", "after"] * 2
    found = verify(output)
    assert found.returncode == 0, found.stdout


def test_chain_on_standard_output_alone_is_linked_to_that_of_a_start_without_a_call(
    tmp_path: Path, emulator: Emulator
) -> None:
    ledger = {"file": str(tmp_path / "ledger.db"), "key_file": str(ledger_key(tmp_path))}
    output = tmp_path / "stdout"
    for _ in range(2):
        with (
            output.open("ab") as stdout,
            BrokerProcess(tmp_path, emulator, stdout=stdout, ledger=ledger, audit={"stdout": True}) as process,
        ):
            process.process.terminate()
            assert process.process.wait(20) == 0
    assert [line["event"] for line in events([output])] == ["started"] * 2
    found = verify(output)
    assert found.returncode == 0, found.stdout


def test_metrics_tell_of_a_log_that_fails_and_of_events_that_wait_for_it(
    make_broker: Callable[..., RunningBroker], emulator: Emulator, disk: SmallDisk
) -> None:
    disk.fill()
    broker = make_broker(audit={"file": str(disk.folder / "audit.jsonl")})
    assert gauges(broker) == (1.0, 0.0)  # no call has come
    disk.clear()
    wait_until(lambda: gauges(broker) == (0.0, 0.0))
    assert check_healthy(broker)["audit"] == "on"


def test_start_on_a_full_disk_with_an_earlier_log_is_told_and_tried_again_without_a_call(
    make_broker: Callable[..., RunningBroker], disk: SmallDisk
) -> None:
    file = disk.folder / "audit.jsonl"
    with closing(make_log(file)) as log:
        log.open()
        while (room := -file.stat().st_size % PAGE) > 250:  # a line is longer
            log.write([event(text="a" * max(1, min(500, room - 500)))])
    earlier = len(events([file]))
    disk.fill()
    broker = make_broker(audit={"file": str(file)})
    assert gauges(broker) == (1.0, 0.0)
    assert check_healthy(broker)["audit"] == "failing"
    disk.clear()
    wait_until(lambda: gauges(broker) == (0.0, 0.0))
    assert [line["event"] for line in events([file])[earlier:]] == ["started"]
    assert verify(file).returncode == 0, verify(file).stdout


def gauges(broker: RunningBroker) -> tuple[float, float]:
    """keybroker_audit_failing and keybroker_audit_events_waiting."""
    told = dict(
        line.rsplit(" ", 1)
        for line in requests.get(f"{broker.http_url}/metrics", timeout=ANSWERED_SECONDS).text.splitlines()
    )
    return float(told["keybroker_audit_failing"]), float(told["keybroker_audit_events_waiting"])


def test_event_holds_what_the_caller_was_told(
    make_broker: Callable[..., RunningBroker], emulator: Emulator, tmp_path: Path
) -> None:
    file = tmp_path / "audit.jsonl"
    broker = make_broker(audit={"file": str(file)})
    answer = broker.client.import_external_key(key_id=emulator.create_key())
    before, after = events([file])[1:]
    assert before["record_id"] == after["record_id"]
    assert after["kms_request_id"] == answer.kms_request_id
    assert after["check_value"] == f"cmac-aes:{answer.key_check_value.value.hex()}"


def client_call(client: KeyBrokerClient, key_id: str) -> Callable[[], Any]:
    """Begins an import; what is returned waits for its answer."""
    pool = ThreadPoolExecutor(1)
    running = pool.submit(client.import_external_key, key_id=key_id)
    pool.shutdown(wait=False)
    return lambda: running.result(20)


def ledger_key(folder: Path) -> Path:
    file = folder / "ledger.key"
    file.write_bytes(base64.b64encode(secrets.token_bytes(32)))
    file.chmod(0o600)
    return file

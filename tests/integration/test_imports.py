"""Imports end to end: client, broker and emulator, each real, on loopback."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Barrier

import pytest
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.cmac import CMAC

from keybroker_client import KeyBrokerError
from keymaterial.v1 import types_pb2
from keymaterial.v1.key_broker_service_pb2 import ImportExternalKeyResponse
from kms_emulator import Emulator, Fault
from tests.integration.conftest import EmulatorClock, RunningBroker

SPECS = {
    types_pb2.KEY_SPEC_AES_128: 16,
    types_pb2.KEY_SPEC_AES_192: 24,
    types_pb2.KEY_SPEC_AES_256: 32,
}
PKCS1 = types_pb2.WRAPPING_ALGORITHM_RSAES_PKCS1_V1_5


def check_value(material: bytes) -> bytes:
    cmac = CMAC(algorithms.AES(material))
    cmac.update(bytes(16))
    return cmac.finalize()[:3]


class EmulatorClockBehind(EmulatorClock):
    """A broker's clock that is some seconds behind the KMS's."""

    seconds = 0.0

    def now(self) -> datetime:
        return super().now() - timedelta(seconds=self.seconds)


def test_300_imports_of_mixed_sizes_bind_distinct_material_with_the_answered_check_value(
    emulator: Emulator, broker: RunningBroker
) -> None:
    specs = [list(SPECS)[number % 3] for number in range(300)]

    def import_one(number: int) -> ImportExternalKeyResponse:
        return broker.client.import_external_key(
            new_key=types_pb2.NewKey(key_spec=specs[number]),
            wrapping_algorithm=PKCS1 if number % 2 else types_pb2.WRAPPING_ALGORITHM_UNSPECIFIED,
        )

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(import_one, range(300)))
    materials = [emulator.bound_material(answer.key.key_id) for answer in answers]
    for spec, answer, material in zip(specs, answers, materials, strict=True):
        assert material is not None
        assert len(material) == SPECS[spec]
        assert answer.key_check_value.value == check_value(material)
        assert answer.key.state == types_pb2.KEY_STATE_ENABLED
        assert answer.key.key_spec == spec
        assert answer.evidence == types_pb2.IMPORT_EVIDENCE_ACCEPTED
    assert len(set(materials)) == 300
    assert broker.metric("keybroker_import_duration_seconds_count", outcome="imported") == 300


def test_200_concurrent_parameter_requests_of_a_new_cmk_make_one_upstream_call(
    emulator: Emulator, broker: RunningBroker
) -> None:
    key_id = broker.client.create_external_key(new_key=types_pb2.NewKey(key_spec=types_pb2.KEY_SPEC_AES_256)).key.key_id
    emulator.reset_calls()
    assert len(_tokens_of_200_at_once(broker, key_id)) == 1
    assert emulator.calls == Counter({"GetParametersForImport": 1})
    assert broker.metric("keybroker_import_parameters_requests_total", result="fetched") == 1


def test_200_concurrent_parameter_requests_of_an_unseen_cmk_share_its_description_too(
    emulator: Emulator, broker: RunningBroker
) -> None:
    key_id = emulator.create_key()
    assert len(_tokens_of_200_at_once(broker, key_id)) == 1
    assert emulator.calls == Counter({"DescribeKey": 1, "GetParametersForImport": 1})


def _tokens_of_200_at_once(broker: RunningBroker, key_id: str) -> set[str]:
    all_there = Barrier(200)

    def ask(_: int) -> str:
        all_there.wait()
        return broker.client.get_import_parameters(key_id=key_id).import_token

    with ThreadPoolExecutor(200) as pool:
        return set(pool.map(ask, range(200)))


def test_upstream_calls_cold_three_reads_and_one_write(emulator: Emulator, broker: RunningBroker) -> None:
    key_id = emulator.create_key()
    answer = broker.client.import_external_key(key_id=key_id)
    assert answer.parameters_source == types_pb2.PARAMETERS_SOURCE_FETCHED
    assert emulator.calls == Counter({"DescribeKey": 2, "GetParametersForImport": 1, "ImportKeyMaterial": 1})


def test_upstream_calls_warm_two_reads_and_one_write(emulator: Emulator, broker: RunningBroker) -> None:
    key_id = emulator.create_key()
    broker.client.get_import_parameters(key_id=key_id)
    emulator.reset_calls()
    answer = broker.client.import_external_key(key_id=key_id)
    assert answer.parameters_source == types_pb2.PARAMETERS_SOURCE_CACHED
    assert emulator.calls == Counter({"DescribeKey": 2, "ImportKeyMaterial": 1})


def test_upstream_calls_new_key_two_reads_and_two_writes(emulator: Emulator, broker: RunningBroker) -> None:
    broker.client.import_external_key(new_key=types_pb2.NewKey(key_spec=types_pb2.KEY_SPEC_AES_128))
    assert emulator.calls == Counter(
        {"CreateKey": 1, "GetParametersForImport": 1, "ImportKeyMaterial": 1, "DescribeKey": 1}
    )


def test_parameters_are_refreshed_inside_the_safety_margin(
    emulator: Emulator, make_broker: Callable[..., RunningBroker]
) -> None:
    broker = make_broker(clock=EmulatorClock(emulator))
    key_id = emulator.create_key()
    first = broker.client.get_import_parameters(key_id=key_id)
    emulator.clock.advance(24 * 3600 - 330)
    assert broker.client.get_import_parameters(key_id=key_id).import_token == first.import_token
    emulator.clock.advance(60)
    fresh = broker.client.get_import_parameters(key_id=key_id)
    assert fresh.import_token != first.import_token
    assert emulator.calls["GetParametersForImport"] == 2


def test_expired_token_in_the_cache_leads_to_one_refresh_and_success(
    emulator: Emulator, make_broker: Callable[..., RunningBroker]
) -> None:
    behind = EmulatorClockBehind(emulator)
    broker = make_broker(clock=behind, imports={"parameters_expiry_margin_seconds": 0})
    key_id = emulator.create_key()
    broker.client.get_import_parameters(key_id=key_id)
    emulator.clock.advance(24 * 3600 + 300)
    behind.seconds = 600
    emulator.reset_calls()
    answer = broker.client.import_external_key(key_id=key_id)
    assert answer.key.state == types_pb2.KEY_STATE_ENABLED
    assert emulator.calls == Counter({"DescribeKey": 2, "GetParametersForImport": 1, "ImportKeyMaterial": 2})
    assert answer.key_check_value.value == check_value(emulator.bound_material(key_id) or b"")


def test_token_revoked_by_a_newer_one_leads_to_one_refresh_and_success(
    emulator: Emulator, broker: RunningBroker
) -> None:
    emulator.set_readings(newest_token_only=True)
    key_id = emulator.create_key()
    broker.client.get_import_parameters(key_id=key_id)
    emulator.issue_parameters(key_id, "RSAES_OAEP_SHA_256")  # somebody else's: the broker's is foreign now
    emulator.reset_calls()
    answer = broker.client.import_external_key(key_id=key_id)
    assert answer.key.state == types_pb2.KEY_STATE_ENABLED
    assert emulator.calls == Counter({"DescribeKey": 2, "GetParametersForImport": 1, "ImportKeyMaterial": 2})


def test_token_always_refused_ends_after_one_refresh(emulator: Emulator, broker: RunningBroker) -> None:
    key_id = emulator.create_key()
    emulator.faults.add(
        Fault(operation="ImportKeyMaterial", when="before", action="error", code="ExpiredImportToken", count=0)
    )
    with pytest.raises(KeyBrokerError) as caught:
        broker.client.import_external_key(key_id=key_id)
    assert caught.value.reason == "IMPORT_TOKEN_EXPIRED"
    assert emulator.calls["ImportKeyMaterial"] == 2
    assert emulator.calls["GetParametersForImport"] == 2


def test_alias_names_the_new_cmk(emulator: Emulator, broker: RunningBroker) -> None:
    answer = broker.client.import_external_key(
        new_key=types_pb2.NewKey(
            key_spec=types_pb2.KEY_SPEC_AES_256,
            alias="alias/payments",
            description="für Zahlungen",
            tags={"team": "blue", "stage": "test"},
        )
    )
    described = broker.client.describe_key(key_id="alias/payments")
    assert described.key.key_id == answer.key.key_id
    assert described.key.dkms_instance_id == "kst-example"


def test_arn_names_a_cmk(emulator: Emulator, broker: RunningBroker) -> None:
    key_id = emulator.create_key()
    arn = broker.client.describe_key(key_id=key_id).key.arn
    assert broker.client.import_external_key(key_id=arn).key.key_id == key_id


def test_deletion_is_scheduled_and_cancelled(emulator: Emulator, broker: RunningBroker) -> None:
    key_id = emulator.create_key()
    scheduled = broker.client.schedule_key_deletion(key_id=key_id, pending_window_days=7)
    assert scheduled.key.state == types_pb2.KEY_STATE_PENDING_DELETION
    assert scheduled.key.HasField("delete_time")
    cancelled = broker.client.cancel_key_deletion(key_id=key_id)
    assert cancelled.key.state == types_pb2.KEY_STATE_PENDING_IMPORT
    assert not cancelled.key.HasField("delete_time")

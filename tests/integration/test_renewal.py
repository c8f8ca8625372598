"""Certificates, token keys and policy replaced while 8 clients call: no failed call, the new in force, the old refused.

The broker looks at its files at most once a second; 10 seconds is what operators are promised.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from keymaterial.v1 import key_broker_service_pb2 as pb
from keymaterial.v1.key_broker_service_pb2_grpc import KeyBrokerServiceStub
from kms_emulator import Emulator
from tests.certificates import Authority, Issuer
from tests.integration.conftest import RunningBroker
from tests.integration.test_identity import ALLOWED, SUBJECT, World, code_of, policy

PROMISED_SECONDS = 10.0
CLIENTS = 8


@pytest.fixture
def world(tmp_path: Path, emulator: Emulator) -> World:
    return World(tmp_path, emulator)


class Load:
    """8 clients that call DescribeKey over and over, each on its own channel, some opening new ones all the time."""

    def __init__(self, open_channel: Callable[[], Any], key_id: str, token: Callable[[], str]) -> None:
        self._open_channel = open_channel
        self._key_id = key_id
        self._token = token
        self._stopping = threading.Event()
        self.failures: list[str] = []
        self.calls = 0

    @contextmanager
    def running(self) -> Iterator["Load"]:
        threads = [threading.Thread(target=self._client, args=(number % 2 == 0,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stopping.set()
            for thread in threads:
                thread.join()

    def _client(self, keeps_its_channel: bool) -> None:  # noqa: FBT001
        while not self._stopping.is_set():
            with self._open_channel() as channel:
                for _ in range(10_000 if keeps_its_channel else 5):
                    if self._stopping.is_set():
                        return
                    self._call(KeyBrokerServiceStub(channel))

    def _call(self, stub: KeyBrokerServiceStub) -> None:
        token = self._token()
        metadata = [("authorization", f"Bearer {token}")] if token else []
        try:
            stub.DescribeKey(pb.DescribeKeyRequest(key_id=self._key_id), timeout=20, metadata=metadata)
        except grpc.RpcError as error:
            self.failures.append(str(error))
        self.calls += 1
        time.sleep(0.01)


def let_it_run(load: Load) -> None:
    """Returns when each client, on average, has called five times more."""
    enough = load.calls + 5 * CLIENTS
    wait_for(lambda: load.calls >= enough)


def wait_for(condition: Callable[[], bool]) -> float:
    """Seconds until the condition held; fails after PROMISED_SECONDS."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < PROMISED_SECONDS
        time.sleep(0.1)
    return time.monotonic() - started


def test_server_certificate_is_renewed_under_load(world: World, make_broker: Callable[..., RunningBroker]) -> None:
    broker = make_broker(**world.mtls_sections())
    mine = world.authority.issue(uris=(ALLOWED,))
    target = broker.address.replace("127.0.0.1", "localhost")
    next_authority = Authority("next")
    only_next = grpc.ssl_channel_credentials(next_authority.pem, mine.private_key, mine.chain)

    def next_is_served() -> bool:
        with grpc.secure_channel(target, only_next) as channel:
            return code_of(channel, "DescribeKey", world.key_id) == "OK"

    both = grpc.ssl_channel_credentials(world.authority.pem + next_authority.pem, mine.private_key, mine.chain)
    with Load(lambda: grpc.secure_channel(target, both), world.key_id, lambda: "").running() as load:
        let_it_run(load)
        assert not next_is_served()
        renewed = next_authority.issue(dns_names=("localhost",))
        world.write("tls.crt", renewed.chain)  # for a moment the key is the old one's
        time.sleep(1.2)
        world.write("tls.key", renewed.private_key)
        wait_for(next_is_served)
        let_it_run(load)
    assert load.failures == []
    assert broker.metric("keybroker_reloads_total", what="certificates", result="good") == 1


def test_client_ca_is_replaced_under_load_and_the_old_is_refused_even_on_open_connections(
    world: World, make_broker: Callable[..., RunningBroker]
) -> None:
    broker = make_broker(**world.mtls_sections())
    next_authority = Authority("next")
    old, new = world.authority.issue(uris=(ALLOWED,)), next_authority.issue(uris=(ALLOWED,))
    with world.channel(broker, old) as old_channel:
        assert code_of(old_channel, "DescribeKey", world.key_id) == "OK"
        world.write("ca.crt", world.authority.pem + next_authority.pem)

        def new_is_accepted() -> bool:
            with world.channel(broker, new) as channel:
                return code_of(channel, "DescribeKey", world.key_id) == "OK"

        wait_for(new_is_accepted)
        with Load(lambda: world.channel(broker, new), world.key_id, lambda: "").running() as load:
            let_it_run(load)
            world.write("ca.crt", next_authority.pem)
            wait_for(lambda: code_of(old_channel, "DescribeKey", world.key_id) == "UNAUTHENTICATED")
            let_it_run(load)
        assert load.failures == []
        with world.channel(broker, old) as channel:
            assert code_of(channel, "DescribeKey", world.key_id) == "UNAVAILABLE"


def test_token_keys_are_replaced_under_load(world: World, make_broker: Callable[..., RunningBroker]) -> None:
    broker = make_broker(**world.jwt_sections())
    next_issuer = Issuer(key_id="key-2")
    current = [world.issuer.token(SUBJECT)]
    with (
        Load(lambda: world.channel(broker), world.key_id, lambda: current[0]).running() as load,
        world.channel(broker) as channel,
    ):
        let_it_run(load)
        world.write("jwks.json", _both(world.issuer, next_issuer))
        new_token = next_issuer.token(SUBJECT)
        wait_for(lambda: code_of(channel, "DescribeKey", world.key_id, new_token) == "OK")
        old_token, current[0] = current[0], new_token
        let_it_run(load)
        world.write("jwks.json", next_issuer.jwks())
        wait_for(lambda: code_of(channel, "DescribeKey", world.key_id, old_token) == "UNAUTHENTICATED")
        let_it_run(load)
    assert load.failures == []


def _both(one: Issuer, other: Issuer) -> bytes:
    import json  # noqa: PLC0415

    keys = json.loads(one.jwks())["keys"] + json.loads(other.jwks())["keys"]
    return json.dumps({"keys": keys}).encode()


def test_policy_is_replaced_under_load_and_a_broken_one_keeps_the_old(
    world: World, make_broker: Callable[..., RunningBroker], logged: list[dict[str, Any]]
) -> None:
    other_key = world.emulator.create_key()
    broker = make_broker(**world.mtls_sections())
    mine = world.authority.issue(uris=(ALLOWED,))
    with (
        Load(lambda: world.channel(broker, mine), world.key_id, lambda: "").running() as load,
        world.channel(broker, mine) as channel,
    ):
        assert code_of(channel, "DescribeKey", other_key) == "PERMISSION_DENIED"
        world.write("policy.yaml", b"rules: [{name: broken}]")
        wait_for(lambda: broker.metric("keybroker_reloads_total", what="policy", result="refused") >= 1)
        assert code_of(channel, "DescribeKey", world.key_id) == "OK"
        both = policy(world.key_id)
        both["rules"][0]["keys"].append(other_key)
        world.write("policy.yaml", yaml.safe_dump(both).encode())
        wait_for(lambda: code_of(channel, "DescribeKey", other_key) == "OK")
        world.write("policy.yaml", yaml.safe_dump(policy(world.key_id)).encode())
        wait_for(lambda: code_of(channel, "DescribeKey", other_key) == "PERMISSION_DENIED")
    assert load.failures == []
    assert broker.metric("keybroker_reloads_total", what="policy", result="good") == 2
    refused = [entry for entry in logged if entry["event"] == "reload refused"]
    assert "policy.rules.0" in refused[0]["why"]
    assert len(refused) == 1

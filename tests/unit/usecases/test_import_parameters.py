"""Import parameters: cached, shared, renewed, let go."""

import threading
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from uuid import uuid4

import pytest

from keybroker.domain.deadline import Deadline
from keybroker.domain.errors import BrokerError, Reason
from keybroker.domain.external_key import CmkName, KeyReference, KeyState
from keybroker.domain.import_parameters import ImportParameters
from keybroker.domain.wrapping import RSAES_OAEP_SHA_256, RSAES_PKCS1_V1_5
from keybroker.usecases.asked import Asked
from keybroker.usecases.obtain_import_parameters import ImportParametersCache
from keybroker.usecases.single_flight import SingleFlight
from tests.builders import FakeClock, World, lost_reply
from tests.unit.usecases.support import given, lose_replies, run, wrapped_reason

DAY = 24 * 3600


def hand_out(world: World, key_id: str) -> ImportParameters:
    return world.hand_out.run(world.kms, KeyReference(key_id), RSAES_OAEP_SHA_256, deadline=world.deadline())


def test_hand_out_twice_fetches_once() -> None:
    world = World()
    key_id = world.kms.add_key()
    assert hand_out(world, key_id) == hand_out(world, key_id)
    assert world.kms.calls == {"DescribeKey": 1, "GetParametersForImport": 1}
    assert world.parameters_requests == ["fetched", "cached"]


def test_hand_out_each_algorithm_has_its_own_pair() -> None:
    world = World()
    key_id = world.kms.add_key()
    oaep = hand_out(world, key_id)
    pkcs1 = world.hand_out.run(world.kms, KeyReference(key_id), RSAES_PKCS1_V1_5, deadline=world.deadline())
    assert oaep.import_token != pkcs1.import_token
    assert pkcs1.algorithm is RSAES_PKCS1_V1_5


def test_obtain_looks_into_the_cache_again_when_it_leads() -> None:
    """The flight before may have landed between the first look and the lead."""
    world = World()
    key_id = world.kms.add_key()
    pair = hand_out(world, key_id)
    look, looks = world.cache.get, iter([None])
    world.cache.get = lambda *key: next(looks, look(*key))  # type: ignore[method-assign]
    assert hand_out(world, key_id) == pair
    assert world.kms.calls["GetParametersForImport"] == 1
    assert world.parameters_requests == ["fetched", "shared"]


def test_hand_out_200_at_once_make_one_fetch() -> None:
    world = World()
    key_id = world.kms.add_key()
    for operation in ("describe_key", "get_parameters_for_import"):
        setattr(world.kms, operation, _slow(getattr(world.kms, operation)))
    all_there = threading.Barrier(200)

    def ask(_: int) -> str:
        all_there.wait()
        return hand_out(world, key_id).import_token

    with ThreadPoolExecutor(200) as pool:
        tokens = set(pool.map(ask, range(200)))
    assert len(tokens) == 1
    assert world.kms.calls == {"DescribeKey": 1, "GetParametersForImport": 1}
    assert world.parameters_requests.count("fetched") == 1


def test_hand_out_leader_fails_followers_get_its_error_and_nobody_repeats() -> None:
    world = World()
    key_id = world.kms.add_key()
    hand_out(world, key_id)
    world.cache.drop_all(world.cmk(key_id))
    entered, release = threading.Event(), threading.Event()

    def slow(*_args: object, **_options: object) -> None:
        entered.set()
        release.wait(5)
        raise lost_reply()

    world.kms.get_parameters_for_import = slow  # type: ignore[method-assign,assignment]
    with ThreadPoolExecutor(5) as pool:
        leader = pool.submit(hand_out, world, key_id)
        assert entered.wait(5)
        followers = [pool.submit(hand_out, world, key_id) for _ in range(4)]
        release.set()
        errors = [future.exception() for future in (leader, *followers)]
    assert {error.reason for error in errors if isinstance(error, BrokerError)} == {Reason.KMS_UNAVAILABLE}
    assert len({id(error) for error in errors}) == 5  # nobody's metadata reaches another's error


@pytest.mark.parametrize(
    ("seconds", "fetches"),
    [(DAY - 301, 1), (DAY - 299, 2), (DAY + 1, 2)],
    ids=["before the margin", "inside the margin", "expired"],
)
def test_hand_out_refreshes_inside_the_safety_margin(seconds: float, fetches: int) -> None:
    world = World()
    key_id = world.kms.add_key()
    hand_out(world, key_id)
    world.clock.advance(seconds)
    assert hand_out(world, key_id).expires_at > world.clock.now()
    assert world.kms.calls["GetParametersForImport"] == fetches


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (KeyState.ENABLED, Reason.KEY_MATERIAL_ALREADY_BOUND),
        (KeyState.DISABLED, Reason.KEY_DISABLED),
        (KeyState.PENDING_DELETION, Reason.KEY_PENDING_DELETION),
    ],
)
def test_hand_out_unfit_cmk_is_refused(state: KeyState, reason: Reason) -> None:
    world = World()
    with pytest.raises(BrokerError) as caught:
        hand_out(world, world.kms.add_key(state=state))
    assert caught.value.reason is reason
    assert world.kms.calls["GetParametersForImport"] == 0


def test_hand_out_state_is_read_again_after_a_minute() -> None:
    world = World()
    key_id = world.kms.add_key()
    hand_out(world, key_id)
    world.kms.set_state(key_id, KeyState.ENABLED)
    world.clock.advance(61)
    with pytest.raises(BrokerError) as caught:
        hand_out(world, key_id)
    assert caught.value.reason is Reason.KEY_MATERIAL_ALREADY_BOUND


def test_hand_out_while_an_import_is_unresolved_fetches_nothing() -> None:
    world = World()
    key_id = world.kms.add_key()
    parameters = hand_out(world, key_id)
    lose_replies(world)
    assert wrapped_reason(world, key_id, given(parameters)) is Reason.IMPORT_UNRESOLVED
    world.kms.calls.clear()
    with pytest.raises(BrokerError) as caught:
        hand_out(world, key_id)
    assert caught.value.reason is Reason.IMPORT_IN_PROGRESS
    assert world.kms.calls["GetParametersForImport"] == 0


def test_cache_drop_of_a_refused_pair_spares_a_newer_one() -> None:
    clock = FakeClock()
    cache = ImportParametersCache(size=10, expiry_margin_seconds=0, clock=clock)
    older, newer = _pair(clock, 1, token="older"), _pair(clock, 1, token="newer")
    cache.put(older)
    cache.put(newer)
    cache.drop(older)
    assert cache.get(newer.cmk, newer.algorithm) == newer
    cache.drop(newer)
    assert cache.get(newer.cmk, newer.algorithm) is None


def test_cache_bound_holds_the_most_recently_used() -> None:
    clock = FakeClock()
    cache = ImportParametersCache(size=3, expiry_margin_seconds=0, clock=clock)
    pairs = [_pair(clock, number) for number in range(4)]
    for pair in pairs[:3]:
        cache.put(pair)
    cache.get(pairs[0].cmk, RSAES_OAEP_SHA_256)
    cache.put(pairs[3])
    held = [cache.get(pair.cmk, RSAES_OAEP_SHA_256) is not None for pair in pairs]
    assert held == [True, False, True, True]


def test_cache_100_000_pairs_stay_within_count_and_memory() -> None:
    """A full cache of the default bound is below 30 MiB with tokens of 1,024 characters (docs/operations.md)."""
    clock = FakeClock()
    cache = ImportParametersCache(size=10_000, expiry_margin_seconds=300, clock=clock)
    tracemalloc.start()
    try:
        for number in range(100_000):
            cache.put(_pair(clock, number, token=f"{number:01024d}", der=bytes([number % 256]) * 294))
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(cache) == 10_000
    assert used < 30 * 2**20


def _slow(call: Callable[..., object]) -> Callable[..., object]:
    def slowly(*args: object, **options: object) -> object:
        time.sleep(0.1)
        return call(*args, **options)

    return slowly


def _pair(clock: FakeClock, number: int, *, token: str = "token", der: bytes = b"der") -> ImportParameters:
    cmk = CmkName("1540355698840000", "cn-hangzhou", f"key-{number}")
    return ImportParameters(cmk, RSAES_OAEP_SHA_256, der, token, clock.now() + timedelta(hours=24))


def test_import_parameters_repr_hides_the_token() -> None:
    assert "canary" not in repr(_pair(FakeClock(), 1, token="canary"))


def test_hand_out_sighting_counts_for_every_configured_instance() -> None:
    world = World()
    key_id = world.kms.add_key()
    hand_out(world, key_id)
    world.kms.name = "the same by another name"
    hand_out(world, key_id)
    assert world.kms.calls == {"DescribeKey": 1, "GetParametersForImport": 1}
    world.kms.name = "main"
    run(world, key_id)
    world.kms.name = "the same by another name"
    with pytest.raises(BrokerError) as caught:
        hand_out(world, key_id)
    assert caught.value.reason is Reason.KEY_MATERIAL_ALREADY_BOUND


@pytest.mark.parametrize("change", ["schedule_deletion", "cancel_deletion"])
@pytest.mark.parametrize("outcome", ["told", "lost"])
def test_hand_out_after_a_change_reads_the_state_anew_and_holds_no_pair(change: str, outcome: str) -> None:
    world = World()
    key_id = world.kms.add_key()
    hand_out(world, key_id)
    operation = {"schedule_deletion": "ScheduleKeyDeletion", "cancel_deletion": "CancelKeyDeletion"}[change]
    if change == "cancel_deletion":
        world.kms.set_state(key_id, KeyState.PENDING_DELETION)
    if outcome == "lost":
        world.kms.fail_next(operation, lost_reply(), when="after")
    options = {"pending_window": timedelta(days=7)} if change == "schedule_deletion" else {}
    with suppress(BrokerError):
        asked = Asked("a caller", str(uuid4()))
        getattr(world.manage, change)(world.kms, asked, KeyReference(key_id), deadline=world.deadline(), **options)
    assert len(world.cache) == 0
    world.kms.set_state(key_id, KeyState.DISABLED)
    if outcome == "lost":
        with pytest.raises(BrokerError) as caught:
            hand_out(world, key_id)
        assert caught.value.reason is Reason.KEY_DISABLED


def test_hand_out_of_an_unfit_cmk_lets_go_of_its_pairs() -> None:
    world = World()
    key_id = world.kms.add_key()
    hand_out(world, key_id)
    world.kms.set_state(key_id, KeyState.ENABLED)
    world.clock.advance(61)
    with pytest.raises(BrokerError):
        hand_out(world, key_id)
    assert len(world.cache) == 0


def test_impatient_leader_fails_alone() -> None:
    flights: SingleFlight[str] = SingleFlight()
    leading = threading.Event()

    def time_out() -> str:
        leading.set()
        time.sleep(0.3)
        raise lost_reply()

    def deadline(seconds: float) -> Deadline:
        return Deadline.after(seconds, monotonic=time.monotonic)

    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(flights.run, "key", time_out, deadline=deadline(0.3))
        assert leading.wait(5)
        follower = pool.submit(flights.run, "key", lambda: "answer", deadline=deadline(10))
        assert isinstance(leader.exception(), BrokerError)
        assert follower.result() == "answer"

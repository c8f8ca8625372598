import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from keybroker.domain.errors import BrokerError, Reason
from keybroker.rpc.workers import Workers

PATIENCE_SECONDS = 10.0


class Block:
    """Work that stands until it is let go. `started` counts how much of it runs or ran."""

    def __init__(self) -> None:
        self.started = threading.Semaphore(0)
        self._let_go = threading.Event()
        self.done = threading.Event()

    def __call__(self) -> str:
        self.started.release()
        assert self._let_go.wait(PATIENCE_SECONDS)
        self.done.set()
        return "done"

    def let_go(self) -> None:
        self._let_go.set()

    async def until_started(self, times: int) -> None:
        for _ in range(times):
            assert await asyncio.to_thread(self.started.acquire, timeout=PATIENCE_SECONDS)


def running(scenario: Callable[[Workers], Coroutine[Any, Any, None]], *, limit: int = 1) -> None:
    workers = Workers(limit=limit)
    try:
        asyncio.run(scenario(workers))
    finally:
        workers.close()


async def refusal_of(workers: Workers) -> BrokerError:
    with pytest.raises(BrokerError) as caught:
        await asyncio.wait_for(workers.run(lambda: "ran"), PATIENCE_SECONDS / 2)
    return caught.value


def test_run_returns_what_the_work_returns_from_another_thread() -> None:
    async def scenario(workers: Workers) -> None:
        assert await workers.run(threading.get_ident) != threading.get_ident()

    running(scenario)


@pytest.mark.parametrize("error", [BrokerError(Reason.KEY_NOT_FOUND, "No."), ValueError("x"), KeyError("x")])
def test_run_raises_what_the_work_raises(error: Exception) -> None:
    def work() -> None:
        raise error

    async def scenario(workers: Workers) -> None:
        with pytest.raises(type(error)) as caught:
            await workers.run(work)
        assert caught.value is error

    running(scenario)


def test_run_of_work_that_raises_stop_iteration_raises_instead_of_hanging() -> None:
    async def scenario(workers: Workers) -> None:
        with pytest.raises(RuntimeError, match="StopIteration"):
            await asyncio.wait_for(workers.run(lambda: next(iter([]))), 5.0)
        assert await workers.run(lambda: "free again") == "free again"

    running(scenario)


@pytest.mark.parametrize("limit", [1, 3])
def test_run_beyond_the_limit_is_refused_at_once_with_a_time_to_come_back(limit: int) -> None:
    async def scenario(workers: Workers) -> None:
        block = Block()
        calls = [asyncio.ensure_future(workers.run(block)) for _ in range(limit)]
        await block.until_started(limit)
        refusal = await refusal_of(workers)
        assert refusal.reason is Reason.BROKER_OVERLOADED
        assert refusal.retry_after_seconds == 1.0
        block.let_go()
        assert await asyncio.gather(*calls) == ["done"] * limit

    running(scenario, limit=limit)


def test_run_up_to_the_limit_is_at_the_same_time() -> None:
    async def scenario(workers: Workers) -> None:
        together = threading.Barrier(4, timeout=PATIENCE_SECONDS)
        await asyncio.gather(*(workers.run(together.wait) for _ in range(4)))

    running(scenario, limit=4)


@pytest.mark.parametrize("fails", [False, True])
def test_slot_is_free_after_the_work(fails: bool) -> None:  # noqa: FBT001
    def work() -> str:
        if fails:
            raise ValueError
        return "ran"

    async def scenario(workers: Workers) -> None:
        for _ in range(5):
            [result] = await asyncio.gather(workers.run(work), return_exceptions=True)
            assert isinstance(result, ValueError) if fails else result == "ran"

    running(scenario)


def test_slot_of_a_refused_call_is_not_taken() -> None:
    async def scenario(workers: Workers) -> None:
        block = Block()
        call = asyncio.ensure_future(workers.run(block))
        await block.until_started(1)
        for _ in range(3):
            await refusal_of(workers)
        block.let_go()
        await call
        assert await workers.run(lambda: "ran") == "ran"

    running(scenario)


def test_cancelled_caller_does_not_cancel_the_work_nor_free_its_slot() -> None:
    async def scenario(workers: Workers) -> None:
        block = Block()
        call = asyncio.ensure_future(workers.run(block))
        await block.until_started(1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (await refusal_of(workers)).reason is Reason.BROKER_OVERLOADED
        assert not block.done.is_set()
        block.let_go()
        assert await asyncio.to_thread(block.done.wait, PATIENCE_SECONDS)

    running(scenario)


def test_cancelled_caller_does_not_cancel_work_that_has_not_begun() -> None:
    async def scenario(workers: Workers) -> None:
        block, ran = Block(), threading.Event()
        workers._executor.submit(block)  # the thread is not idle yet, as just after the work before
        await block.until_started(1)
        call = asyncio.ensure_future(workers.run(ran.set))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        block.let_go()
        assert await asyncio.to_thread(ran.wait, PATIENCE_SECONDS)

    running(scenario)


def test_error_of_work_whose_caller_was_cancelled_is_no_noise(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(workers: Workers) -> None:
        block = Block()

        def work() -> None:
            block()
            raise ValueError("nobody waits for this")

        call = asyncio.ensure_future(workers.run(work))
        await block.until_started(1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        block.let_go()
        await asyncio.to_thread(workers.close)
        await asyncio.sleep(0)

    running(scenario)
    assert "nobody waits" not in caplog.text
    assert "never retrieved" not in caplog.text


def test_close_waits_for_the_work() -> None:
    async def scenario(workers: Workers) -> None:
        block = Block()
        call = asyncio.ensure_future(workers.run(block))
        await block.until_started(1)
        with ThreadPoolExecutor() as executor:
            closing = executor.submit(workers.close)
            await asyncio.sleep(0.05)
            assert not closing.done()
            block.let_go()
            await asyncio.wrap_future(closing)
        assert block.done.is_set()
        assert await call == "done"

    running(scenario)

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from rsearch_cli.services.limits import BURST_SECONDS, Slots, TokenBucket


def test_slots_bound_what_is_under_way_over_threads_and_loops() -> None:
    slots, recovery = Slots(3), threading.Lock()
    under_way, most, done = 0, 0, 0

    async def work() -> None:
        nonlocal under_way, most, done
        async with slots:
            with recovery:
                under_way += 1
                most = max(most, under_way)
            await asyncio.sleep(0.001)
            with recovery:
                under_way -= 1
                done += 1

    async def batch() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(work())

    threads = [threading.Thread(target=lambda: asyncio.run(batch())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert (most, done) == (3, 80)


@pytest.mark.parametrize("granted", [False, True])
def test_who_is_cancelled_in_line_gives_the_place_up(granted: bool) -> None:
    async def main() -> None:
        slots = Slots(1)
        entered = asyncio.Event()

        async def enter() -> None:
            async with slots:
                entered.set()

        await slots.__aenter__()
        cancelled = asyncio.create_task(enter())
        await asyncio.sleep(0)
        if granted:
            await slots.__aexit__(None, None, None)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert not entered.is_set()
        if not granted:
            await slots.__aexit__(None, None, None)
        await asyncio.wait_for(enter(), 5)

    asyncio.run(main())


def test_those_in_line_are_served_in_order() -> None:
    async def main() -> list[int]:
        slots, order = Slots(1), []

        async def work(number: int) -> None:
            async with slots:
                order.append(number)
                await asyncio.sleep(0)

        await asyncio.gather(*map(work, range(10)))
        return order

    assert asyncio.run(main()) == list(range(10))


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def waits(bucket: TokenBucket, count: int) -> list[float]:
    return [round(bucket.take(), 6) for _ in range(count)]


def test_tokens_come_evenly() -> None:
    assert waits(TokenBucket(10.0, Clock()), 4) == [0.0, 0.1, 0.2, 0.3]
    assert waits(TokenBucket(0.5, Clock()), 3) == [0.0, 2.0, 4.0]


def test_a_fast_bucket_gives_a_few_at_once() -> None:
    got = waits(TokenBucket(1000.0, Clock()), 102)
    assert got.count(0.0) == 1000.0 * BURST_SECONDS
    assert got[-2:] == [0.001, 0.002]


def test_no_more_is_saved_up_than_the_burst() -> None:
    clock = Clock()
    bucket = TokenBucket(10.0, clock)
    waits(bucket, 1)
    clock.now += 3600.0
    assert waits(bucket, 3) == [0.0, 0.1, 0.2]


def test_the_rate_holds_over_any_second() -> None:
    clock = Clock()
    bucket = TokenBucket(100.0, clock)
    sent = []
    for step in range(500):
        clock.now = 50.0 + step / 1000
        sent.append(clock.now + bucket.take())
        clock.now = sent[-1]
    busiest = max(sum(t <= u < t + 1.0 for u in sent) for t in sent)
    assert busiest <= 100.0 * (1 + BURST_SECONDS) + 1


def test_the_default_clock_is_a_real_one() -> None:
    take: Callable[[], float] = TokenBucket(1e-3).take
    assert take() == 0.0
    assert 990.0 < take() <= 1000.0

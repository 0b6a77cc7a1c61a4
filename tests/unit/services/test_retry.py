from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from rsearch_cli.errors import AccessDenied
from rsearch_cli.recipe.services import ServiceConfig
from rsearch_cli.services.circuit_breaker import GIVE_UP_AFTER, CircuitBreaker, ServiceDown
from rsearch_cli.services.outcomes import PermanentFailure, TransientFailure
from rsearch_cli.services.retry import (
    BURST_SECONDS,
    FIRST_BACKOFF_SECONDS,
    CallLimits,
    RetryPolicy,
    TokenBucket,
)

pytestmark = pytest.mark.usefixtures("messages_on_stderr")

Run = Callable[[Coroutine[Any, Any, Any]], Any]
Clock = Callable[[], float]


class Server:
    """Answers, or raises what `fails` gives for the number of the call and the time."""

    def __init__(self, clock: Clock, fails: Callable[[int, float], Exception | None]) -> None:
        self.clock = clock
        self.fails = fails
        self.times: list[float] = []
        self.under_way = 0
        self.most_under_way = 0
        self.seconds = 0.0

    async def call(self) -> str:
        self.times.append(self.clock())
        number = len(self.times)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.under_way -= 1
        if (failure := self.fails(number, self.clock())) is not None:
            raise failure
        return f"answer {number}"

    @property
    def gaps(self) -> list[float]:
        return [b - a for a, b in zip(self.times, self.times[1:], strict=False)]


def settings(**changes: Any) -> ServiceConfig:
    return ServiceConfig(**{"requests_per_second": 10000.0, "breaker_failures": 1000, **changes})


def busy(retry_after: float | None = None) -> TransientFailure:
    return TransientFailure("answered 429", retry_after)


def test_the_stricter_of_recipe_and_service_applies() -> None:
    recipe = ServiceConfig(requests_per_second=5.0, concurrency=8, retries=3)
    limited = CallLimits(requests_per_second=1.0, concurrency=16).apply(recipe)
    assert (limited.requests_per_second, limited.concurrency) == (1.0, 8)
    assert limited.retries == 3
    assert CallLimits().apply(recipe) == recipe


def test_a_passing_failure_is_tried_again(virtual: Run, clock: Clock) -> None:
    server = Server(clock, lambda number, _: busy() if number < 4 else None)
    policy = RetryPolicy("exa", settings(), clock)
    assert virtual(policy.run(server.call)) == "answer 4"
    # Full jitter: anything up to a bound that doubles.
    bounds = [FIRST_BACKOFF_SECONDS * 2**n for n in range(3)]
    assert all(0 < gap <= bound for gap, bound in zip(server.gaps, bounds, strict=True))


def test_waits_are_random_and_bounded(virtual: Run, clock: Clock) -> None:
    server = Server(clock, lambda *_: busy())
    policy = RetryPolicy("exa", settings(retries=20, max_backoff_seconds=2.0), clock)
    with pytest.raises(TransientFailure, match="answered 429"):
        virtual(policy.run(server.call))
    assert len(server.times) == 21
    assert len(set(server.gaps)) == 20
    assert max(server.gaps) <= 2.0
    assert max(server.gaps[4:]) > 1.0


def test_the_wait_that_the_service_asks_for_is_kept(virtual: Run, clock: Clock) -> None:
    server = Server(clock, lambda number, _: busy(7.0) if number < 3 else None)
    policy = RetryPolicy("exa", settings(max_backoff_seconds=1.0), clock)
    virtual(policy.run(server.call))
    assert server.gaps == pytest.approx([7.0, 7.0])


def test_a_service_that_asks_for_an_hour_is_not_waited_for(virtual: Run, clock: Clock) -> None:
    server = Server(clock, lambda *_: busy(3600.0))
    with pytest.raises(PermanentFailure, match=r"^answered 429, and asks to wait 3600 s$"):
        virtual(RetryPolicy("exa", settings(), clock).run(server.call))
    assert len(server.times) == 1


def test_a_call_that_hangs_is_cut_off(virtual: Run, clock: Clock) -> None:
    server = Server(clock, lambda *_: None)
    server.seconds = 1e6
    policy = RetryPolicy(
        "exa", settings(timeout_seconds=2.5, retries=1, max_backoff_seconds=0.0), clock
    )
    with pytest.raises(TransientFailure, match=r"^no answer within 2\.5 s$"):
        virtual(policy.run(server.call))
    assert server.gaps == pytest.approx([2.5])
    assert server.under_way == 0


@pytest.mark.parametrize(
    "failure", [PermanentFailure("answered 400"), AccessDenied("no key"), ZeroDivisionError("bug")]
)
def test_other_failures_are_not_tried_again(virtual: Run, clock: Clock, failure: Exception) -> None:
    server = Server(clock, lambda *_: failure)
    with pytest.raises(type(failure), match=str(failure)):
        virtual(RetryPolicy("exa", settings(), clock).run(server.call))
    assert len(server.times) == 1


def test_the_global_generator_is_left_alone(virtual: Run, clock: Clock) -> None:
    before = random.getstate()
    server = Server(clock, lambda number, _: busy() if number < 4 else None)
    virtual(RetryPolicy("exa", settings(), clock).run(server.call))
    assert random.getstate() == before


async def run_all(policy: RetryPolicy, server: Server, count: int) -> list[Any]:
    calls = (policy.run(server.call) for _ in range(count))
    return await asyncio.gather(*calls, return_exceptions=True)


def test_calls_under_way_are_bounded(virtual: Run, clock: Clock) -> None:
    server = Server(clock, lambda *_: None)
    server.seconds = 1.0
    results = virtual(run_all(RetryPolicy("exa", settings(concurrency=4), clock), server, 40))
    assert len(set(results)) == 40
    assert server.most_under_way == 4
    assert server.times[-1] - server.times[0] == pytest.approx(9.0)


def test_who_waits_to_try_again_takes_no_place(virtual: Run, clock: Clock) -> None:
    server = Server(clock, lambda number, _: busy(60.0) if number == 1 else None)
    virtual(run_all(RetryPolicy("exa", settings(concurrency=1), clock), server, 3))
    assert server.times[2] - server.times[0] < 1.0


def test_the_rate_is_kept(virtual: Run, clock: Clock) -> None:
    server = Server(clock, lambda *_: None)
    virtual(run_all(RetryPolicy("exa", settings(requests_per_second=5.0), clock), server, 21))
    assert server.gaps == pytest.approx([0.2] * 20)


DOWN = "warning: exa: 10 failed calls in a row, the last one: answered 503; all calls to it pause "
DOWN += "for 30 s, then one is tried\n"


def test_a_service_that_is_down_pauses_all_calls_until_it_is_back(
    virtual: Run, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server(clock, lambda _, at: TransientFailure("answered 503") if at < 1100 else None)
    server.seconds = 0.05
    policy = RetryPolicy("exa", settings(breaker_failures=10, concurrency=8), clock)
    results = virtual(run_all(policy, server, 100))
    assert not [r for r in results if isinstance(r, Exception)]
    # Ten and those that were under way; then three trials, at 30, 60 and 90 seconds.
    failed = [t for t in server.times if t < 1099]
    assert 10 + 3 <= len(failed) <= 10 + 3 + 8
    trials = [t for t in failed if t > 1025]
    assert [t - trials[0] for t in trials] == pytest.approx([0.0, 30.05, 60.1], abs=2.0)
    assert capsys.readouterr().err == DOWN + "exa answers again; calls to it continue\n"


def test_a_service_that_stays_down_is_given_up(
    virtual: Run, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server(clock, lambda *_: TransientFailure("answered 503"))
    policy = RetryPolicy("exa", settings(breaker_failures=10, retries=20), clock)
    results = virtual(run_all(policy, server, 200))
    assert {type(r) for r in results} == {ServiceDown}
    assert "exa is down: " in str(results[0])
    assert str(results[0]).endswith(" failed calls in a row, the last one: answered 503")
    assert len(server.times) <= 10 + 32 + GIVE_UP_AFTER
    assert server.times[-1] - server.times[0] < 30 * (GIVE_UP_AFTER + 1)
    assert capsys.readouterr().err == DOWN


def test_one_success_starts_the_count_again(
    virtual: Run, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server(clock, lambda number, _: busy(0.0) if number % 3 else None)
    policy = RetryPolicy("exa", settings(breaker_failures=3, concurrency=1, retries=20), clock)
    virtual(run_all(policy, server, 20))
    assert capsys.readouterr().err == ""


def test_a_refusal_is_an_answer(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    async def main() -> None:
        server = Server(
            clock, lambda number, _: busy(0.0) if number % 2 else PermanentFailure("no")
        )
        policy = RetryPolicy("exa", settings(breaker_failures=2, max_backoff_seconds=0.0), clock)
        await run_all(policy, server, 10)

    asyncio.run(main())
    assert capsys.readouterr().err == ""


def test_a_trial_that_is_cut_off_leaves_the_way_to_another(virtual: Run, clock: Clock) -> None:
    async def main() -> None:
        breaker = CircuitBreaker("exa", 1, 30.0, clock)
        started = clock()
        breaker.failed("answered 503", trial=False)
        assert await breaker.admit() is True
        assert clock() - started == pytest.approx(30.0)
        second = asyncio.create_task(breaker.admit())
        await asyncio.sleep(100.0)
        assert not second.done(), "a second trial beside the first"
        # What was sent before the pause and ends now says nothing of the trial.
        breaker.unknown(trial=False)
        breaker.failed("answered 503", trial=False)
        await asyncio.sleep(1.0)
        assert not second.done()
        breaker.unknown(trial=True)
        assert await second is True
        third = asyncio.create_task(breaker.admit())
        await asyncio.sleep(1.0)
        breaker.succeeded()
        assert await third is False
        assert await breaker.admit() is False

    virtual(main())


class StoppedClock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def waits(bucket: TokenBucket, count: int) -> list[float]:
    return [round(bucket.take(), 6) for _ in range(count)]


def test_tokens_come_evenly() -> None:
    assert waits(TokenBucket(10.0, StoppedClock()), 4) == [0.0, 0.1, 0.2, 0.3]
    assert waits(TokenBucket(0.5, StoppedClock()), 3) == [0.0, 2.0, 4.0]


def test_a_fast_bucket_gives_a_few_at_once() -> None:
    got = waits(TokenBucket(1000.0, StoppedClock()), 102)
    assert got.count(0.0) == 1000.0 * BURST_SECONDS
    assert got[-2:] == [0.001, 0.002]


def test_no_more_is_saved_up_than_the_burst() -> None:
    clock = StoppedClock()
    bucket = TokenBucket(10.0, clock)
    waits(bucket, 1)
    clock.now += 3600.0
    assert waits(bucket, 3) == [0.0, 0.1, 0.2]


def test_the_rate_holds_over_any_second() -> None:
    clock = StoppedClock()
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

"""How one service is called: concurrency, rate limit, time-out, retries and circuit breaker."""

from __future__ import annotations

import asyncio
import math
import random
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from rsearch_cli.errors import AccessDenied
from rsearch_cli.recipe.services import ServiceConfig
from rsearch_cli.services.circuit_breaker import CircuitBreaker
from rsearch_cli.services.outcomes import PermanentFailure, TransientFailure

FIRST_BACKOFF_SECONDS = 0.5
"""Upper bound of the wait before the second attempt; it doubles with every further attempt."""

LONGEST_RETRY_AFTER_SECONDS = 600.0
"""Longest wait that a service may ask for; a call that is to wait longer has failed."""

BURST_SECONDS = 0.1
"""Tokens that a bucket saves up, as the time in which they flow in: enough for a wave of a plan."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CallLimits:
    """Limits that the rules of a service set; by default there are none.

    Attributes:
        requests_per_second: Most calls started per second, on average.
        concurrency: Most calls in flight.
    """

    requests_per_second: float = math.inf
    concurrency: int = sys.maxsize

    def apply(self, settings: ServiceConfig) -> ServiceConfig:
        """Return the settings of a recipe, lowered to these limits."""
        return settings.model_copy(
            update={
                "requests_per_second": min(settings.requests_per_second, self.requests_per_second),
                "concurrency": min(settings.concurrency, self.concurrency),
            }
        )


NO_LIMITS = CallLimits()


class TokenBucket:
    """A rate limit: tokens flow in evenly, each call takes one, a few may be saved up."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = 1.0 / per_second
        self._burst = max(0.0, BURST_SECONDS - self._interval)
        self._clock = clock
        self._next = float("-inf")

    def take(self) -> float:
        """Take the next token and return the seconds until it flows in."""
        now = self._clock()
        self._next = max(self._next, now - self._burst)
        wait = max(0.0, self._next - now)
        self._next += self._interval
        return wait


class RetryPolicy:
    """The limits and retries of one service.

    Args:
        service: Name in messages.
        settings: The recipe's section.
        clock: Seconds.
    """

    def __init__(
        self,
        service: str,
        settings: ServiceConfig,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._bucket = TokenBucket(settings.requests_per_second, clock)
        self._breaker = CircuitBreaker(
            service, settings.breaker_failures, settings.breaker_pause_seconds, clock
        )
        # Its own generator: the global one belongs to training, which must be reproducible.
        self._random = random.Random()

    async def run(
        self,
        attempt: Callable[[], Awaitable[T]],
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> T:
        """Make a call, with as many attempts as the recipe allows.

        Args:
            attempt: Makes the call once; the time-out applies to it.
            before: Awaited before each attempt, outside the time-out.

        Raises:
            TransientFailure: The last attempt's, when all have failed.
            Exception: Whatever else an attempt raised.
        """
        number = 1
        while True:
            try:
                return await self._attempt(attempt, before)
            except TransientFailure as failure:
                if number > self._settings.retries:
                    raise
                wait = self._backoff(number, failure.retry_after or 0.0)
            number += 1
            await asyncio.sleep(wait)

    async def _attempt(
        self,
        attempt: Callable[[], Awaitable[T]],
        before: Callable[[], Awaitable[None]] | None,
    ) -> T:
        # The breaker is asked inside the slot, so that calls that waited for one heed a pause too.
        async with self._slots:
            trial = await self._wait_for_turn()
            try:
                if before is not None:
                    await before()
                result = await self._timed(attempt)
            except TransientFailure as failure:
                self._breaker.failed(str(failure), trial=trial)
                raise
            except (PermanentFailure, AccessDenied):
                self._breaker.succeeded()
                raise
            except BaseException:
                self._breaker.unknown(trial=trial)
                raise
            self._breaker.succeeded()
            return result

    async def _wait_for_turn(self) -> bool:
        """Wait for the rate limit and for pauses; return whether this call is a trial."""
        while True:
            if await self._breaker.admit():
                return True
            if wait := self._bucket.take():
                await asyncio.sleep(wait)
                if self._breaker.is_paused:
                    continue
            return False

    async def _timed(self, attempt: Callable[[], Awaitable[T]]) -> T:
        seconds = self._settings.timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                return await attempt()
        except TimeoutError:
            raise TransientFailure(f"no answer within {seconds:g} s") from None
        except TransientFailure as failure:
            asked = failure.retry_after or 0.0
            if asked > LONGEST_RETRY_AFTER_SECONDS:
                raise PermanentFailure(f"{failure}, and asks to wait {asked:g} s") from failure
            raise

    def _backoff(self, number: int, asked: float) -> float:
        """Exponential back-off with full jitter, or the wait that the service asks for."""
        doubled = FIRST_BACKOFF_SECONDS * 2 ** (number - 1)
        bound = min(self._settings.max_backoff_seconds, doubled)
        return max(asked, self._random.uniform(0.0, bound))

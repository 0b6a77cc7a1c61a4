"""The flow of calls to one service: bounded, paced, timed, tried again, paused.

Place in the path: in the client, around every call that goes outside. On failure: after a
`TransientFailure` (a time-out is one) the call is sent again, after a growing, random wait or after
the time that the service asks for; once the attempts are used up it goes to the caller. Anything
else goes to the caller at once.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import tenacity

from rsearch_cli.errors import AccessDenied
from rsearch_cli.recipe.services import ServiceConfig
from rsearch_cli.services.circuit_breaker import CircuitBreaker
from rsearch_cli.services.limits import Slots, TokenBucket
from rsearch_cli.services.outcomes import PermanentFailure, TransientFailure

FIRST_BACKOFF_SECONDS = 0.5
"""Bound of the wait before the second attempt; it doubles with every further one."""

LONGEST_RETRY_AFTER_SECONDS = 600.0
"""A service that asks for more is not waited for: the call has failed."""

T = TypeVar("T")


class RetryPolicy:
    """How one service is called, over all threads and event loops of the process."""

    def __init__(
        self,
        service: str,
        settings: ServiceConfig,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the service's name for messages, its section, and a clock in seconds."""
        self._settings = settings
        self._slots = Slots(settings.concurrency)
        self._bucket = TokenBucket(settings.requests_per_second, clock)
        self._breaker = CircuitBreaker(
            service, settings.breaker_failures, settings.breaker_pause_seconds, clock
        )
        # Of its own: the global generator belongs to the training, which must be repeatable.
        self._random = random.Random()

    async def run(
        self,
        attempt: Callable[[], Awaitable[T]],
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> T:
        """Make a call, as often as it takes.

        Args:
            attempt: Makes the call once; the time-out is on this.
            before: Awaited before each attempt, when its turn has come.

        Raises:
            TransientFailure: The last attempt's, when all have failed.
            Exception: Whatever else an attempt raised.
        """
        retrying = tenacity.AsyncRetrying(
            sleep=asyncio.sleep,
            wait=self._backoff,
            stop=tenacity.stop_after_attempt(self._settings.retries + 1),
            retry=tenacity.retry_if_exception_type(TransientFailure),
            reraise=True,
        )
        return await retrying(self._attempt, attempt, before)

    async def _attempt(
        self,
        attempt: Callable[[], Awaitable[T]],
        before: Callable[[], Awaitable[None]] | None,
    ) -> T:
        # Asked inside the slot, so that those who stand in line for one heed a pause as well.
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
        """Wait for the rate and for a pause to end; whether this call is the trial that ends it."""
        while True:
            permit = self._breaker.admit()
            if permit.trial:
                return True
            if permit.wait:
                await asyncio.sleep(permit.wait)
                continue
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

    def _backoff(self, state: tenacity.RetryCallState) -> float:
        """Exponential back-off with full jitter, or the time that the service asks for."""
        failure = state.outcome.exception() if state.outcome else None
        asked = getattr(failure, "retry_after", None) or 0.0
        doubled = FIRST_BACKOFF_SECONDS * 2 ** (state.attempt_number - 1)
        bound = min(self._settings.max_backoff_seconds, doubled)
        return max(asked, self._random.uniform(0.0, bound))

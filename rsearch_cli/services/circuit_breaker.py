"""Circuit breaker: pauses all calls to a service that fails again and again.

After a number of failures in a row nothing is sent for a while; then one trial call is sent, whose
success lets all calls continue. After several failed trials waiting calls fail at once, so that the
run can stop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from rsearch_cli.services.outcomes import PermanentFailure

logger = logging.getLogger(__name__)

GIVE_UP_AFTER = 5
"""Failed trials in a row after which calls no longer wait for the service."""


class ServiceDown(PermanentFailure):
    """The service has been down for so long that calls no longer wait for it."""


class CircuitBreaker:
    """Counts the failures of one service in a row.

    Every call that `admit` lets through is followed by exactly one of `succeeded`, `failed` and
    `unknown`.

    Args:
        service: Name in messages.
        failures: Failures in a row that start a pause.
        pause_seconds: Length of a pause.
        clock: Seconds.
    """

    def __init__(
        self,
        service: str,
        failures: int,
        pause_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service = service
        self._most = failures
        self._pause = pause_seconds
        self._clock = clock
        self._failures = 0
        self._paused_until: float | None = None
        self._trial = False
        self._failed_trials = 0
        self._last = ""
        self._changed = asyncio.Event()

    @property
    def is_paused(self) -> bool:
        """Whether calls wait."""
        return self._paused_until is not None

    async def admit(self) -> bool:
        """Wait until a call may be sent; return whether it is the trial that may end a pause.

        Raises:
            ServiceDown: The service has been given up, and it is not yet time for another trial.
        """
        while self._paused_until is not None:
            seconds = self._paused_until - self._clock()
            if seconds <= 0 and not self._trial:
                self._trial = True
                return True
            if self._failed_trials >= GIVE_UP_AFTER:
                raise ServiceDown(
                    f"{self._service} is down: {self._failures} failed calls in a row, the last "
                    f"one: {self._last}",
                    free=True,
                )
            with suppress(TimeoutError):
                # During a trial there is no time-out: its end sets the event.
                await asyncio.wait_for(self._changed.wait(), None if self._trial else seconds)
        return False

    def succeeded(self) -> None:
        """Count a call that the service answered."""
        if self._paused_until is not None:
            logger.info(f"{self._service} answers again; calls to it continue")
        self._failures = self._failed_trials = 0
        self._paused_until, self._trial = None, False
        self._wake()

    def failed(self, reason: str, *, trial: bool) -> None:
        """Count a failed call."""
        self._failures += 1
        self._last = reason
        if trial:
            self._trial = False
            self._failed_trials += 1
            self._paused_until = self._clock() + self._pause
            self._wake()
        elif self._paused_until is None and self._failures >= self._most:
            self._paused_until = self._clock() + self._pause
            logger.warning(
                f"{self._service}: {self._failures} failed calls in a row, the last one: {reason}; "
                f"all calls to it pause for {self._pause:g} s, then one is tried"
            )

    def unknown(self, *, trial: bool) -> None:
        """Count a call that ended without telling anything about the service: a cancelled one."""
        if trial:
            self._trial = False
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

"""The circuit breaker: a service that is down is left in peace, and the run waits.

Place in the path: in the flow of a service, before every attempt and after it. After a number of
failures in a row nothing is sent for a while; then one call is tried; when it succeeds all go on.
One line on stderr says so, one says the end. On failure: a service that stays down through several
such trials is given up: what waits for it fails at once, and the run can stop.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from rsearch_cli.services.outcomes import PermanentFailure

logger = logging.getLogger(__name__)

GIVE_UP_AFTER = 5
"""Trials in a row that may fail before calls no longer wait for the service."""

# Share of the pause after which those who wait for a trial's end look again.
_LOOK_AGAIN = 0.02


class ServiceDown(PermanentFailure):
    """The service has been down for so long that waiting for it makes no sense."""


class Permit(NamedTuple):
    """What one who wants to send a call is told.

    Attributes:
        wait: Seconds after which to ask again; 0 to send now.
        trial: All others wait for how this call ends.
    """

    wait: float
    trial: bool


class CircuitBreaker:
    """Counts the failures of one service in a row, over all threads.

    Every permit to send is followed by exactly one of `succeeded`, `failed` and `unknown`.
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
        self._guard = threading.Lock()
        self._failures = 0
        self._paused_until: float | None = None
        self._trial = False
        self._failed_trials = 0
        self._last = ""

    @property
    def is_paused(self) -> bool:
        """Whether calls wait."""
        return self._paused_until is not None

    def admit(self) -> Permit:
        """Ask to send a call.

        Raises:
            ServiceDown: It has been given up, and it is not yet time to try it again.
        """
        with self._guard:
            if self._paused_until is None:
                return Permit(0.0, trial=False)
            wait = self._paused_until - self._clock()
            if wait <= 0 and not self._trial:
                self._trial = True
                return Permit(0.0, trial=True)
            if self._failed_trials >= GIVE_UP_AFTER:
                raise ServiceDown(
                    f"{self._service} is down: {self._failures} failed calls in a row, the last "
                    f"one: {self._last}",
                    free=True,
                )
            return Permit(max(wait, self._pause * _LOOK_AGAIN), trial=False)

    def succeeded(self) -> None:
        """Note that the service answered."""
        with self._guard:
            if self._paused_until is not None:
                logger.info(f"{self._service} answers again; going on")
            self._failures = self._failed_trials = 0
            self._paused_until, self._trial = None, False

    def failed(self, why: str, *, trial: bool) -> None:
        """Note that a call failed in a way that says nothing good about the service."""
        with self._guard:
            self._failures += 1
            self._last = why
            if trial:
                self._trial = False
                self._failed_trials += 1
                self._paused_until = self._clock() + self._pause
            elif self._paused_until is None and self._failures >= self._most:
                self._paused_until = self._clock() + self._pause
                logger.warning(
                    f"{self._service}: {self._failures} failed calls in a row, the last one: "
                    f"{why}; all its calls pause for {self._pause:g} s, then one is tried"
                )

    def unknown(self, *, trial: bool) -> None:
        """Note that a call ended without a word about the service, as when it was cancelled."""
        with self._guard:
            if trial:
                self._trial = False

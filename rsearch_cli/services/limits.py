"""Bounds on calls: how many at once, and how many a second.

Place in the path: in the flow of a service, around every attempt. Both bounds hold over all threads
and event loops of the process, which is why they are not asyncio's or aiolimiter's: those belong to
one loop. On failure: they have none; who is cancelled while waiting gives its place up.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType

BURST_SECONDS = 0.1
"""A bucket holds what flows in during this time: enough for a wave, too little to be noticed."""


class Slots:
    """Places for calls under way; those who find none wait in line.

    Example:
        async with slots:
            await call()
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._line: deque[Future[None]] = deque()
        self._guard = threading.Lock()

    async def __aenter__(self) -> None:
        with self._guard:
            if self._free:
                self._free -= 1
                return
            turn: Future[None] = Future()
            self._line.append(turn)
        try:
            await asyncio.wrap_future(turn)
        except asyncio.CancelledError:
            with self._guard:
                # Nobody hands a place to a cancelled turn; one that came first goes to the next.
                if not turn.cancel():
                    self._hand_on()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._guard:
            self._hand_on()

    def _hand_on(self) -> None:
        while self._line:
            turn = self._line.popleft()
            if turn.set_running_or_notify_cancel():
                turn.set_result(None)
                return
        self._free += 1


class TokenBucket:
    """A rate: tokens flow in evenly, each call takes one, a few may be saved up."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = 1.0 / per_second
        self._burst = max(0.0, BURST_SECONDS - self._interval)
        self._clock = clock
        self._next = float("-inf")
        self._guard = threading.Lock()

    def take(self) -> float:
        """Take the next token, and give the seconds to wait until it flows in."""
        with self._guard:
            now = self._clock()
            self._next = max(self._next, now - self._burst)
            wait = max(0.0, self._next - now)
            self._next += self._interval
            return wait

"""The bounded queue of a serving engine, and its counters."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import InvalidStateError
from contextlib import suppress

from rsearch_cli.rollout.answer import AgentAnswer
from rsearch_cli.rollout.events import Finished, OnEvent
from rsearch_cli.serving.requests import (
    AskRequest,
    Counters,
    Outcome,
    QueueFull,
    ShuttingDown,
    Ticket,
)


class RequestQueue:
    """Requests that wait or are being answered.

    Args:
        max_waiting: Most requests that wait.

    Attributes:
        changed: Notified whenever there may be something to do; its lock guards the queue.
        counters: What was done so far.
        closed: Whether everything is to end at once.
    """

    def __init__(self, max_waiting: int) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.counters = Counters()
        self.closed = False
        self._max_waiting = max_waiting
        self._accepting = True
        self._waiting: deque[Ticket] = deque()
        self._running: set[Ticket] = set()

    @property
    def waiting(self) -> int:
        """Number of requests that wait for their turn."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Number of requests that are being answered."""
        return len(self._running)

    def submit(self, request: AskRequest, on_event: OnEvent | None) -> Ticket:
        """Append a request; see `ServingEngine.submit`."""
        with self.changed:
            if not self._accepting:
                self.counters.requests["refused"] += 1
                raise ShuttingDown("the server is shutting down")
            if self.waiting >= self._max_waiting:
                self.counters.requests["refused"] += 1
                raise QueueFull(
                    f"{self.waiting} requests are already waiting, which is the limit; try again "
                    "later"
                )
            ticket = Ticket(request, on_event, self._drop)
            self._waiting.append(ticket)
            self.changed.notify_all()
            return ticket

    def take(self, most: int) -> list[Ticket]:
        """Take the oldest requests that wait, at most so many; does not wait."""
        with self.changed:
            taken = [self._waiting.popleft() for _ in range(min(most, self.waiting))]
            self._running.update(taken)
            return taken

    def wake(self) -> None:
        """Let the worker look again."""
        with self.changed:
            self.changed.notify_all()

    def finish(self, ticket: Ticket, answer: AgentAnswer) -> None:
        """End a request with its answer."""
        ticket.tell(Finished(answer))
        if ticket.is_over:
            self.abandon(ticket)
            return
        counters = self.counters
        with self.changed:
            counters.tokens += answer.tokens
            counters.searches += answer.searches
            counters.failed_searches += answer.trajectory.failed_searches
            counters.failed_reads += answer.trajectory.failed_reads
            counters.seconds += time.perf_counter() - ticket.submitted
        self._end(ticket, "answered", lambda: ticket.future.set_result(answer))

    def fail(self, ticket: Ticket, error: Exception) -> None:
        """End a request with an error, which whoever waits for the answer reports."""
        if ticket.is_over:
            self.abandon(ticket)
            return
        self._end(ticket, "failed", lambda: ticket.future.set_exception(error))

    def abandon(self, ticket: Ticket) -> None:
        """End a request that nobody waits for, or whose callback failed."""
        if (error := ticket.failure) is None:
            self._end(ticket, "cancelled", ticket.future.cancel)
        else:
            self._end(ticket, "failed", lambda: ticket.future.set_exception(error))

    def drain(self, seconds: float) -> bool:
        """Refuse new requests, and wait for the others; returns whether all ended in time."""
        with self.changed:
            self._accepting = False
            return self.changed.wait_for(lambda: not self._waiting and not self._running, seconds)

    def close(self) -> None:
        """Refuse new requests, and cancel the others."""
        with self.changed:
            self._accepting = False
            self.closed = True
            tickets = [*self._waiting, *self._running]
            self.changed.notify_all()
        for ticket in tickets:
            ticket.cancel()

    def _drop(self, ticket: Ticket) -> None:
        """Let go of a cancelled request, at once if it waits and by the worker if it runs."""
        with self.changed:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
                self.counters.requests["cancelled"] += 1
            self.changed.notify_all()

    def _end(self, ticket: Ticket, outcome: Outcome, resolve: Callable[[], object]) -> None:
        with self.changed:
            self.counters.requests[outcome] += 1
        with suppress(InvalidStateError):  # it was cancelled meanwhile
            resolve()
        with self.changed:
            self._running.discard(ticket)
            self.changed.notify_all()

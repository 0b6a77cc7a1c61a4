"""The serving engine: a bounded queue of requests in front of one agent."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Self

from rsearch_cli.errors import RsearchError, ServiceFailure
from rsearch_cli.policy.generation import Sampling
from rsearch_cli.protocol.plan import PlanReading
from rsearch_cli.rollout.answer import AgentAnswer
from rsearch_cli.rollout.events import Asked, EventWriter, Finished, OnEvent
from rsearch_cli.rollout.rollout import Rollout
from rsearch_cli.serving.requests import AskRequest, Counters, Outcome, QueueFull, Ticket
from rsearch_cli.types import NodeResult, Question
from rsearch_cli.workflows.ask import Agent

logger = logging.getLogger(__name__)


class ServingEngine:
    """Answers requests of several callers with one agent.

    Thread-safe. Close it before the agent.

    Args:
        agent: Answers; nothing else may use its policy meanwhile.
        max_batch: Most requests that are answered at the same time.
        max_waiting: Most requests that wait for their turn.

    Attributes:
        agent: The agent.
        counters: What it has done so far.
    """

    def __init__(self, agent: Agent, max_batch: int = 32, max_waiting: int = 64) -> None:
        self.agent = agent
        self.max_batch = max_batch
        self.max_waiting = max_waiting
        self.counters = Counters()
        self._queue: deque[Ticket] = deque()
        self._in_work: set[Ticket] = set()
        self._changed = threading.Condition(threading.RLock())
        self._accepting = True
        self._closed = False
        count = max_batch if agent.recipe.policy.endpoint.url is not None else 1
        self._threads = [
            threading.Thread(target=self._work, name=f"serving-{i}", daemon=True)
            for i in range(count)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Number of requests that wait for their turn."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """Number of requests that are being answered."""
        return len(self._in_work)

    def submit(self, request: AskRequest, on_event: OnEvent | None = None) -> Ticket:
        """Accept a request.

        Args:
            request: What is asked.
            on_event: Called with every event of it, one at a time, from threads of the engine. It
                must not block.

        Raises:
            QueueFull: `max_waiting` requests wait already, or the engine is shutting down.
        """
        with self._changed:
            if not self._accepting:
                self.counters.requests["refused"] += 1
                raise QueueFull("the server is shutting down; ask another one")
            if len(self._queue) >= self.max_waiting:
                self.counters.requests["refused"] += 1
                raise QueueFull(
                    f"{len(self._queue)} requests wait already, the most that are held; try again "
                    "later"
                )
            ticket = Ticket(request, on_event, self._forget)
            self._queue.append(ticket)
            self._changed.notify()
            return ticket

    def drain(self, seconds: float) -> bool:
        """Refuse new requests, and wait for those that were accepted.

        Returns:
            Whether all of them ended in time.
        """
        with self._changed:
            self._accepting = False
            return self._changed.wait_for(lambda: not self._queue and not self._in_work, seconds)

    def close(self) -> None:
        """Cancel all requests and end the threads."""
        with self._changed:
            self._accepting = False
            self._closed = True
            tickets = [*self._queue, *self._in_work]
            self._changed.notify_all()
        for ticket in tickets:
            ticket.cancel()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        """Return the engine."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the engine."""
        self.close()

    def _forget(self, ticket: Ticket) -> None:
        """Take a cancelled request out of the queue; one in work ends at its next token."""
        with self._changed:
            if ticket in self._queue:
                self._queue.remove(ticket)
                self.counters.requests["cancelled"] += 1
                self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                ticket = self._queue.popleft()
                self._in_work.add(ticket)
            outcome: Outcome = "failed"
            try:
                outcome = self._answer(ticket)
            except _Cancelled:
                outcome = "cancelled"
            except Exception as error:
                if not isinstance(error, RsearchError):
                    logger.exception("a request failed unexpectedly")
                ticket.resolve(error)
            finally:
                with self._changed:
                    self._in_work.discard(ticket)
                    self.counters.requests[outcome] += 1
                    self._changed.notify_all()

    def _answer(self, ticket: Ticket) -> Outcome:
        request, agent = ticket.request, self.agent
        note = "earlier turns are not taken into account" if request.history else None
        ticket.tell(Asked(request.question, None, note))
        recipe = agent.recipe
        if request.max_tokens is not None:
            most = min(request.max_tokens, recipe.rollout.max_new_tokens)
            settings = recipe.rollout.model_copy(update={"max_new_tokens": most})
            recipe = recipe.model_copy(update={"rollout": settings})
        started, paid = time.perf_counter(), agent.budget.snapshot().total.usd
        follower = _Follower(ticket)
        top_p = recipe.rollout.top_p if request.temperature else 1.0
        question = Question("asked", request.question, ())
        (trajectory,) = Rollout(agent.policy, agent.executor, recipe, follower).run(
            [question], Sampling(request.temperature, top_p)
        )
        follower.check()
        follower.writer.end_turn()
        if trajectory.error is not None:
            raise ServiceFailure(trajectory.error)
        usd = agent.budget.snapshot().total.usd - paid
        answer = AgentAnswer(trajectory, agent.recipe, time.perf_counter() - started, usd)
        self._finish(ticket, answer)
        return "answered"

    def _finish(self, ticket: Ticket, answer: AgentAnswer) -> None:
        counters = self.counters
        with self._changed:
            counters.tokens += answer.tokens
            counters.searches += answer.searches
            counters.failed_searches += answer.trajectory.failed_searches
            counters.seconds += time.perf_counter() - ticket.submitted
        ticket.tell(Finished(answer))
        ticket.resolve(answer)


class _Cancelled(Exception):
    """Ends the rollout of a request that was given up."""


class _Follower:
    """The observer of a request: reports its events, and ends its rollout if it was given up."""

    def __init__(self, ticket: Ticket) -> None:
        self._ticket = ticket
        self._on_server = threading.current_thread().ident
        self.writer = EventWriter(ticket.tell)

    def check(self) -> None:
        """Raise if the request was given up."""
        if self._ticket.is_cancelled:
            raise _Cancelled

    def on_text(self, text: str) -> None:
        """Report the text."""
        if threading.current_thread().ident == self._on_server:
            self.check()
        self.writer.on_text(text)

    def on_plan(self, reading: PlanReading) -> None:
        """Report the plan."""
        self.check()
        self.writer.on_plan(reading)

    def on_result(self, result: NodeResult) -> None:
        """Report the result."""
        self.writer.on_result(result)

"""Requests to a policy on a server: each in a thread of its own, as many as the server may get."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import CancelledError

from rsearch_cli.policy.endpoint import EndpointPolicy
from rsearch_cli.rollout.answer import AgentAnswer
from rsearch_cli.rollout.turns import make_on_text
from rsearch_cli.services.budget import billed_to
from rsearch_cli.services.event_loop import wait_for, working_for
from rsearch_cli.serving.job import JOIN_SECONDS, Job, JobSteps
from rsearch_cli.serving.queue import RequestQueue
from rsearch_cli.serving.requests import Ticket
from rsearch_cli.types import FollowUp


class _Over(Exception):
    """Ends a request that nobody waits for."""


class ConnectionWorkers:
    """Answers requests with a policy on a server, some at a time.

    Args:
        steps: Its agent's policy is an `EndpointPolicy`.
        queue: Where the requests come from.
        most: Most requests at a time.
    """

    def __init__(self, steps: JobSteps, queue: RequestQueue, most: int) -> None:
        policy = steps.agent.policy
        assert isinstance(policy, EndpointPolicy)
        self._policy = policy
        self._queue = queue
        self._steps = steps
        self._threads = [
            threading.Thread(target=self._run, name=f"serving-{number}", daemon=True)
            for number in range(most)
        ]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait until the threads have ended, for some seconds; the queue is closed."""
        end = time.monotonic() + JOIN_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _run(self) -> None:
        queue = self._queue
        while True:
            with queue.changed:
                queue.changed.wait_for(lambda: queue.closed or queue.waiting)
                tickets = queue.take(1)
            if not tickets and queue.closed:
                return
            for ticket in tickets:
                self._serve(ticket)

    def _serve(self, ticket: Ticket) -> None:
        try:
            job = self._steps.open(ticket)
            with billed_to(job.bill), working_for(ticket):
                answer = self._answer(job)
        except (_Over, CancelledError, asyncio.CancelledError):
            self._queue.abandon(ticket)
        except Exception as error:
            self._queue.fail(ticket, error)
        else:
            self._queue.finish(ticket, answer)

    def _answer(self, job: Job) -> AgentAnswer:
        steps, turns = self._steps, self._steps.turns
        asked = FollowUp(job.ticket.request.question)
        if steps.needs_condensing(job):
            asked = steps.condense(job)
            _check(job)
        state = steps.start(job, asked)
        while state.stop is None:
            _check(job)
            reply = self._policy.submit(
                state.context, turns.stops(state), state.budget, job.sampling, make_on_text(state)
            )
            (generation,) = wait_for(reply)
            _check(job)
            turns.record(state, generation)
            if state.stop is None:
                search = turns.search([state])
                turns.insert_results(search)
        answer = steps.answer(job)
        if steps.needs_paragraph(job):
            _check(job)
            answer = steps.write_paragraph(answer)
        return steps.close(job, answer)


def _check(job: Job) -> None:
    if job.ticket.is_over:
        raise _Over
